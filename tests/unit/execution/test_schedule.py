"""Tests when scheduled tasks run: at real clock changes of three zones, after downtime, and while earlier runs
continue."""

from __future__ import annotations

import datetime
import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.api.executiontask import ExecutionTask, Schedule
from remit.api.phases import Phase
from remit.errors import InvalidInput
from remit.execution import cron, schedule
from remit.execution.schedule import Replace, Skip, Start, Wait

HALF_HOUR = "Australia/Lord_Howe"
"""A zone whose summer time is half an hour."""


def at(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text).astimezone(datetime.UTC)


def ticks(expression: str, zone: str, start: str, count: int) -> list[str]:
    spec, moment, found = Schedule(cron=expression, time_zone=zone), at(start), []
    for _ in range(count):
        moment = cron.following(spec, moment)
        found.append(moment.astimezone(cron.zone_of(spec)).isoformat(timespec="minutes"))
        assert cron.latest(spec, moment, at(start)) == moment  # searching backwards finds the same ticks
    return found


@pytest.mark.parametrize(
    ("expression", "zone", "start", "expected"),
    [
        # A skipped time: a run at a time that does not exist starts right after the gap, once.
        ("30 2 * * *", "Europe/Paris", "2026-03-28T12:00Z", ["2026-03-29T03:00+02:00", "2026-03-30T02:30+02:00"]),
        ("30 2 * * *", "America/New_York", "2026-03-07T12:00Z", ["2026-03-08T03:00-04:00", "2026-03-09T02:30-04:00"]),
        (
            "15 2 * * *",
            "Australia/Lord_Howe",
            "2026-10-03T12:00Z",
            ["2026-10-04T02:30+11:00", "2026-10-05T02:15+11:00"],
        ),
        # A repeated time: a run at a time that occurs twice starts the first time only.
        ("30 2 * * *", "Europe/Paris", "2026-10-24T12:00Z", ["2026-10-25T02:30+02:00", "2026-10-26T02:30+01:00"]),
        ("30 1 * * *", "America/New_York", "2026-10-31T12:00Z", ["2026-11-01T01:30-04:00", "2026-11-02T01:30-05:00"]),
        (
            "45 1 * * *",
            "Australia/Lord_Howe",
            "2026-04-04T12:00Z",
            ["2026-04-05T01:45+11:00", "2026-04-06T01:45+10:30"],
        ),
        # An hourly schedule runs at every hour of the clock.
        (
            "30 * * * *",
            "Europe/Paris",
            "2026-10-25T00:00Z",
            ["2026-10-25T02:30+02:00", "2026-10-25T02:30+01:00", "2026-10-25T03:30+01:00"],
        ),
        (
            "30 * * * *",
            "Europe/Paris",
            "2026-03-29T00:00Z",
            ["2026-03-29T01:30+01:00", "2026-03-29T03:30+02:00"],
        ),
        (
            "*/15 * * * *",
            "Australia/Lord_Howe",
            "2026-04-04T14:35Z",
            ["2026-04-05T01:45+11:00", "2026-04-05T01:30+10:30", "2026-04-05T01:45+10:30", "2026-04-05T02:00+10:30"],
        ),
    ],
)
def test_clock_changes(expression: str, zone: str, start: str, expected: list[str]) -> None:
    assert ticks(expression, zone, start, len(expected)) == expected


@given(
    moment=st.datetimes(datetime.datetime(2026, 1, 1), datetime.datetime(2028, 1, 1)),
    zone=st.sampled_from(["Europe/Paris", "America/New_York", "Australia/Lord_Howe", "Etc/UTC"]),
    expression=st.sampled_from(["*/7 * * * *", "30 2 * * *", "0 0 1 * *", "15 1-3 * * 0", "59 23 29 2 *"]),
)
def test_looking_back_and_forth_agree(moment: datetime.datetime, zone: str, expression: str) -> None:
    now, spec = moment.replace(tzinfo=datetime.UTC), Schedule(cron=expression, time_zone=zone)
    last = cron.latest(spec, now, now - datetime.timedelta(days=5 * 366))
    assert last is not None
    assert last <= now < cron.following(spec, now)
    assert cron.following(spec, last) > now


CREATED = at("2026-06-01T00:00Z")


def parent(last: str | None = None, **spec: Any) -> ExecutionTask:
    return ExecutionTask.parse(
        {
            "metadata": {"name": "nightly", "namespace": "ns", "uid": "u", "creationTimestamp": "2026-06-01T00:00:00Z"},
            "spec": {"command": {"argv": ["true"]}, "schedule": {"cron": "0 * * * *", **spec}},
            "status": {"lastScheduleTime": last} if last else {},
        }
    )


def test_a_clock_that_is_set_back_by_an_hour_holds_up_no_runs() -> None:
    task = parent(cron="*/5 * * * *", last="2026-06-01T10:00:00Z")
    back = schedule.turn(task, [], at("2026-06-01T09:02Z"))
    assert back.action == Wait()
    assert back.next_tick == at("2026-06-01T09:05Z")
    assert "2026-06-01T10:00:00Z" in back.set_back
    told = parent(cron="*/5 * * * *", last="2026-06-01T09:02:00Z")  # as status says then
    turn = schedule.turn(told, [], at("2026-06-01T09:05:01Z"))
    assert (turn.action, turn.set_back) == (Start(at("2026-06-01T09:05Z")), "")


def test_a_clock_that_is_set_back_to_before_the_creation_holds_up_no_runs() -> None:
    task = parent(cron="*/5 * * * *")
    assert schedule.turn(task, [], at("2026-05-31T22:04Z")).action == Wait()
    assert schedule.turn(task, [], at("2026-05-31T22:05:01Z")).action == Start(at("2026-05-31T22:05Z"))


def test_clocks_that_differ_a_little_run_no_tick_twice() -> None:
    task = parent(cron="*/5 * * * *", last="2026-06-01T10:00:00Z")
    turn = schedule.turn(task, [], at("2026-06-01T09:59:59Z"))
    assert (turn.action, turn.set_back) == (Wait(), "")


def test_nothing_is_due_before_the_first_tick() -> None:
    turn = schedule.turn(parent(), [], CREATED)
    assert turn == schedule.Turn(Wait(), at("2026-06-01T01:00Z"))


def test_a_tick_is_due_once() -> None:
    now = at("2026-06-01T01:00Z")
    assert schedule.turn(parent(), [], now).action == Start(now)
    assert schedule.turn(parent(last="2026-06-01T01:00:00Z"), [], now).action == Wait()


def test_after_a_long_time_away_only_the_latest_is_made_up_for() -> None:
    now = at("2031-01-01T00:30Z")
    assert schedule.turn(parent(last="2026-06-01T01:00:00Z"), [], now).action == Start(at("2031-01-01T00:00Z"))


@pytest.mark.parametrize(("late", "starts"), [(300, True), (301, False)])
def test_the_starting_deadline(late: int, starts: bool) -> None:
    now = at("2026-06-01T01:00Z") + datetime.timedelta(seconds=late)
    action = schedule.turn(parent(startingDeadlineSeconds=300), [], now).action
    assert isinstance(action, Start if starts else Skip)


def test_suspended() -> None:
    assert schedule.turn(parent(suspend=True), [], at("2026-06-02T00:00Z")) == schedule.Turn(Wait(), None)


@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("Allow", Start(at("2026-06-01T01:00Z"))),
        ("Replace", Replace(at("2026-06-01T01:00Z"), ("nightly-1",))),
    ],
)
def test_while_a_run_has_not_ended(policy: str, expected: object) -> None:
    now = at("2026-06-01T01:00Z")
    assert schedule.turn(parent(concurrencyPolicy=policy), ["nightly-1"], now).action == expected


def test_forbid_skips_and_says_what_for() -> None:
    action = schedule.turn(parent(), ["nightly-1"], at("2026-06-01T01:00Z")).action
    assert isinstance(action, Skip)
    assert "nightly-1 has not ended" in action.why


@pytest.mark.parametrize(
    ("spec", "told"),
    [
        ({"cron": "61 * * * *"}, "spec.schedule.cron: '61"),
        ({"cron": "* * * *"}, "has not five fields"),
        ({"cron": "0 * * * * *"}, "has not five fields"),
        ({"timeZone": "Europe/Pariss"}, "did you mean Europe/Paris?"),
        ({"timeZone": "america/new york"}, "did you mean America/New_York?"),
        ({"timeZone": "Berlin"}, "did you mean Europe/Berlin?"),
        ({"timeZone": "Nowhere"}, "use an IANA name such as Europe/Paris"),
        ({"cron": "0 0 31 2 *"}, "spec.schedule.cron"),
        ({"timeZone": "Mars/Olympus"}, "spec.schedule.timeZone: 'Mars/Olympus' is no time zone"),
        ({"timeZone": "../../etc/passwd"}, "is no time zone"),
    ],
)
def test_what_cannot_be_read(spec: dict[str, str], told: str) -> None:
    with pytest.raises(InvalidInput, match=r"spec\.schedule") as caught:
        cron.check(Schedule.model_validate({"cron": "* * * * *", **spec}))
    assert told in str(caught.value)


def test_a_child_is_its_parent_without_the_schedule() -> None:
    obj = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": "nightly", "namespace": "ns", "uid": "u", "labels": {"team": "data"}},
        "spec": {"command": {"argv": ["true"]}, "schedule": {"cron": "* * * * *"}, "ttlSecondsAfterFinished": 5},
    }
    child = schedule.child(obj, at("2026-06-01T01:00Z"))
    assert child["metadata"]["name"] == "nightly-29671260"
    assert child["metadata"]["labels"] == {"team": "data", schedule.PARENT_LABEL: "nightly"}
    assert child["metadata"]["ownerReferences"][0]["uid"] == "u"
    assert child["spec"] == {"command": {"argv": ["true"]}}
    assert schedule.child(obj, None)["metadata"]["generateName"] == "nightly-manual-"


@pytest.mark.parametrize("cut", [".", "-", "a"])
def test_a_child_of_a_long_name_has_a_name_of_its_own(cut: str) -> None:
    """A name is cut where there may be a dot or a hyphen, with which no name may end."""
    names = [f"{'x' * 228}{cut}{'y' * 23}{last}" for last in "12"]
    children = [schedule.child_name(name, CREATED) for name in names]
    assert len(set(children)) == 2
    for child in children:
        assert len(child) <= 253
        assert all(re.fullmatch(r"[a-z0-9]([-a-z0-9]*[a-z0-9])?", label) for label in child.split("."))
        assert child.endswith(f"-{int(CREATED.timestamp()) // 60}")
    assert schedule.child_name("x" * 240, CREATED).startswith("x" * 240 + "-")


def test_a_clock_that_is_set_back_runs_nothing_again() -> None:
    ran = parent(last="2026-06-02T01:00:00Z")
    for now in ("2026-06-01T23:30Z", "2026-06-02T00:00Z", "2026-06-02T01:00Z"):
        assert schedule.turn(ran, [], at(now)).action == Wait()
    assert schedule.turn(ran, [], at("2026-06-02T02:00Z")).action == Start(at("2026-06-02T02:00Z"))


def test_history_keeps_the_newest() -> None:
    def ended(name: str, phase: Phase, minute: int) -> ExecutionTask:
        return ExecutionTask.parse(
            {
                "metadata": {"name": name, "namespace": "ns"},
                "spec": {"command": {"argv": ["true"]}},
                "status": {"phase": str(phase), "completionTime": f"2026-06-01T01:{minute:02}:00Z"},
            }
        )

    children = [
        ended("a", Phase.SUCCEEDED, 4),
        ended("b", Phase.SUCCEEDED, 1),
        ended("c", Phase.SUCCEEDED, 2),
        ended("d", Phase.TIMED_OUT, 1),
        ended("e", Phase.FAILED, 2),
        ended("f", Phase.RUNNING, 0),
    ]
    spec = Schedule(cron="* * * * *", successful_runs_history_limit=2, failed_runs_history_limit=1)
    assert [child.metadata.name for child in schedule.surplus(children, spec)] == ["b", "d"]
