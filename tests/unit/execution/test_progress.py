from __future__ import annotations

import datetime
from typing import Any

import pytest

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import ExecutionTaskStatus, PolicyStatus, QueueStatus
from remit.api.phases import Phase
from remit.backends.outcome import Outcome
from remit.execution import progress
from remit.execution.lifecycle import Finish, RetryAt
from remit.execution.queue import Blocked, Place, WaitReason
from remit.kube.status import as_wire
from statusreaders import kstatus, waits_for

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)
ALLOWED = PolicyStatus(name="p", rule="commands.allow[0]", decision="Allowed")


def later(seconds: float) -> datetime.datetime:
    return NOW + datetime.timedelta(seconds=seconds)


def task(status: ExecutionTaskStatus | None = None, **spec: Any) -> ExecutionTask:
    whole = ExecutionTask.parse(
        {"metadata": {"name": "t", "generation": 3}, "spec": {"command": {"argv": ["true"]}, **spec}}
    )
    return whole.model_copy(update={"status": status or ExecutionTaskStatus()})


def ended(reason: str, at: datetime.datetime, exit_code: int | None = None) -> Outcome:
    return Outcome(reason=reason, message="so it ended", exit_code=exit_code, finished_at=at)


def truths(status: ExecutionTaskStatus) -> dict[str, str]:
    return {condition.type: condition.status for condition in status.conditions}


def read(status: ExecutionTaskStatus, generation: int = 3) -> tuple[str, bool]:
    """Returns the status by kstatus, and whether `kubectl wait --for=condition=Finished` ends."""
    obj = {"metadata": {"generation": generation}, "status": as_wire(status)}
    return kstatus(obj), waits_for(obj, "Finished")


@pytest.mark.parametrize(
    ("status", "expected"),
    [
        (ExecutionTaskStatus(), ("InProgress", False)),
        (progress.waiting(task(), Phase.PENDING, "WaitingForReference", "no Secret", NOW), ("InProgress", False)),
        (progress.begun(task(), "u-1", ALLOWED, NOW), ("InProgress", False)),
        (progress.awaiting_earlier_leader(task(), NOW), ("InProgress", False)),
        (progress.backing_off(task(), RetryAt(NOW, "again"), NOW), ("InProgress", False)),
        (progress.scheduled(task(), NOW, last=None, upcoming=NOW, active=[], recent=[]), ("Current", False)),
        (progress.scheduled(task(), NOW, last=None, upcoming=None, active=[], recent=[]), ("Current", False)),
        *[
            (
                progress.finished(task(), Finish(phase, "R", "C", "m"), NOW),
                ("Current" if phase is Phase.SUCCEEDED else "Failed", True),
            )
            for phase in Phase
            if phase.final
        ],
    ],
)
def test_tools_read_each_state(status: ExecutionTaskStatus, expected: tuple[str, bool]) -> None:
    assert read(status) == expected
    assert read(status, generation=4) == ("InProgress", False)  # it does not apply to a later spec
    assert {each.observed_generation for each in status.conditions} <= {3}


def test_waiting_for_an_earlier_leader_says_so() -> None:
    running = progress.begun(task(), "u-1", ALLOWED, NOW)
    waits = progress.awaiting_earlier_leader(task(running), later(1))
    assert (waits.phase, waits.attempts) == (Phase.RUNNING, running.attempts)
    assert {(each.reason, each.message) for each in waits.conditions} == {("AwaitingEarlierLeader", waits.message)}
    assert "attempt 1 was started by an earlier leader" in waits.message


def test_a_life_in_four_writes() -> None:
    running = progress.begun(task(), "u-1", ALLOWED, NOW)
    assert running.phase is Phase.RUNNING
    assert running.observed_generation == 3
    assert running.attempts[0].finished_at is None
    assert truths(running) == {
        "Succeeded": "Unknown", "Finished": "False", "Reconciling": "True", "Stalled": "False",
    }  # fmt: skip

    failed = progress.attempt_ended(task(running), ended("ExitCode", later(1), exit_code=7))
    backoff = progress.backing_off(task(failed), RetryAt(later(3), "next attempt in 2.0 s"), later(1))
    assert (backoff.phase, backoff.exit_code, backoff.next_retry_time) == (Phase.BACKOFF, 7, later(3))

    again = progress.begun(task(backoff), "u-2", ALLOWED, later(3))
    assert (again.attempt_count, again.start_time, again.next_retry_time) == (2, NOW, None)

    closed = progress.attempt_ended(task(again), ended("Completed", later(4), exit_code=0))
    done = progress.finished(task(closed), Finish(Phase.SUCCEEDED, "Completed", "", "completed"), later(4))
    assert truths(done) == {"Succeeded": "True", "Finished": "True", "Reconciling": "False", "Stalled": "False"}
    assert (done.duration, done.exit_code, done.error) == ("4.0s", 0, None)
    assert [attempt.reason for attempt in done.attempts] == ["ExitCode", "Completed"]


def test_a_denied_task_is_stalled_and_says_why() -> None:
    denied = PolicyStatus(decision="Denied")
    status = progress.finished(task(), Finish(Phase.DENIED, "NoPolicy", "Denied", "no policy"), NOW, denied)
    assert truths(status)["Stalled"] == "True"
    assert status.error is not None
    assert (status.error.category, status.error.retryable) == ("Denied", False)
    assert status.policy == denied
    assert status.duration == ""


def test_a_transition_time_moves_only_with_its_status() -> None:
    running = progress.begun(task(), "u-1", ALLOWED, NOW)
    ended = progress.finished(task(running), Finish(Phase.FAILED, "ExitCode", "ExitCode", "no"), later(9))
    times = {condition.type: condition.last_transition_time for condition in ended.conditions}
    assert times["Succeeded"] == times["Finished"] == later(9)
    queued = progress.waiting(task(running), Phase.QUEUED, "Queued", "waits", later(5))
    assert {condition.last_transition_time for condition in queued.conditions} == {NOW}


def test_of_many_attempts_the_first_and_the_latest_are_shown() -> None:
    status = ExecutionTaskStatus()
    for number in range(1, 31):
        status = progress.begun(task(status), f"u-{number}", ALLOWED, NOW)
        status = progress.attempt_ended(task(status), ended("ExitCode", NOW, exit_code=1))
    assert [attempt.number for attempt in status.attempts] == [1, *range(22, 31)]
    assert status.attempt_count == 30


def test_interruptions_are_counted() -> None:
    status = progress.begun(task(), "u-1", ALLOWED, NOW)
    assert progress.attempt_ended(task(status), ended("Interrupted", NOW)).interruptions == 1
    assert progress.attempt_ended(task(status), ended("Timeout", NOW)).interruptions == 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (-1, "0.0s"),
        (0.04, "0.0s"),
        (9.94, "9.9s"),
        (42.4, "42s"),
        (60, "1m"),
        (192, "3m12s"),
        (7200, "2h"),
        (7500, "2h5m"),
    ],
)
def test_durations_for_people(seconds: float, text: str) -> None:
    assert progress.human_duration(datetime.timedelta(seconds=seconds)) == text


@pytest.mark.parametrize(
    ("blocked", "why"),
    [
        (Blocked(WaitReason.OPERATOR, 32), "the operator runs 32 at once, all are taken"),
        (Blocked(WaitReason.CONCURRENCY, 4, "default/data"), "policy data allows 4 at once, all are taken"),
        (Blocked(WaitReason.RATE, 2, "remit/all", 9.0), "policy remit/all allows 2 starts a minute, all are used"),
    ],
)
def test_who_waits_is_told_what_for_and_its_place(blocked: Blocked, why: str) -> None:
    status = progress.queued(task(), Place(3, 17, blocked), NOW)
    assert status.message == f"waits for its turn: {why}; 3rd of 17 waiting in namespace default"
    assert status.queue == QueueStatus(position=3, waiting=17, reason=blocked.reason, policy=blocked.policy)
    begun = progress.begun(task(status), "id", PolicyStatus(decision="Allowed"), NOW)
    assert begun.queue is None


def test_places_as_people_write_them() -> None:
    words = {1: "1st", 2: "2nd", 3: "3rd", 4: "4th", 11: "11th", 12: "12th", 21: "21st", 111: "111th", 122: "122nd"}
    assert {number: progress.ordinal(number) for number in words} == words
