"""Tests the tables of `remit top`, and that nothing in them controls the terminal."""

from __future__ import annotations

import datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len

from releases import live
from remit.cli.top.actions import Question, question
from remit.cli.top.cells import GAP, Column, clipped, fit, padded, size, sparkline
from remit.cli.top.rows import ReleaseRow, ScheduleRow, TaskRow, policy_row, release_row, task_row
from remit.cli.top.views import POLICIES, RELEASES, SCHEDULES, TASKS, VIEWS

NOW = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
HOSTILE = (
    "\x1b]0;owned\x07\x1b[2J [bold red]x[/] [@click=app.quit]y[/] \u202egnp.exe 漢字漢字 e\u0301 🧑‍🚀 \n\r\t\x9b31m"
)


def task(name: str = "t", phase: str | None = None, spec: dict[str, Any] | None = None, **status: Any) -> TaskRow:
    found = task_row(task_object(name, phase, spec, **status))
    assert isinstance(found, TaskRow)
    return found


def task_object(
    name: str = "t", phase: str | None = None, spec: dict[str, Any] | None = None, **status: Any
) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "default", "uid": f"uid-{name}", "resourceVersion": "1"}
    metadata["creationTimestamp"] = "2026-01-01T11:58:00Z"
    body = {"metadata": metadata, "spec": spec or {"command": {"argv": ["true"]}}}
    return body | ({"status": {"phase": phase, **status}} if phase else {})


def cells(row: Any, view: Any = TASKS) -> dict[str, str]:
    titles = [column.title.strip() for column in view.columns]
    return dict(zip(titles, [cell.text for cell in view.cells(row, NOW)], strict=True))


def test_a_queued_task_has_its_place_and_what_it_waits_for() -> None:
    queue = {"position": 2, "waiting": 5, "reason": "PolicyConcurrency", "policy": "default/team"}
    shown = cells(task("build", "Queued", queue=queue, queuedAt="2026-01-01T11:59:30Z"))
    assert shown["WHY"] == "2 of 5  PolicyConcurrency  team"
    assert (shown["PHASE"], shown["TIME"], shown["OP"]) == ("Queued", "+2m", "command")


def test_a_running_and_an_ended_task_have_their_times_and_usage() -> None:
    running = cells(
        task("a", "Running", startTime="2026-01-01T11:59:15Z", attemptCount=2, message="attempt 2 is running")
    )
    assert (running["TIME"], running["TRY"], running["WHY"]) == ("45s", "2", "attempt 2 is running")
    attempts = [{"number": 1, "usage": {"cpuSeconds": 2.25, "maxMemoryBytes": 52_428_800}}, {"number": 2}]
    ended = cells(
        task(
            "b", "Failed", startTime="2026-01-01T11:59:00Z", completionTime="2026-01-01T11:59:03Z", attempts=attempts,
            error={"reason": "OOMKilled", "category": "Resources", "message": "m"}, message="used more memory",
        )
    )  # fmt: skip
    assert (ended["TIME"], ended["AGE"], ended["CPU"], ended["MEM"]) == ("3.0s", "57s", "2.2s", "50M")
    assert ended["WHY"] == "OOMKilled: used more memory"


def test_tasks_are_in_the_order_in_which_somebody_looks_for_them() -> None:
    rows = [
        task("old", "Succeeded", completionTime="2026-01-01T11:00:00Z"),
        task("second", "Queued", queue={"position": 2, "waiting": 2, "reason": "OperatorCapacity"}),
        task("new", "Failed", completionTime="2026-01-01T11:30:00Z"),
        task("fresh"),
        task("first", "Queued", queue={"position": 1, "waiting": 2, "reason": "OperatorCapacity"}),
        task("again", "Backoff", startTime="2026-01-01T11:59:00Z"),
        task("runs", "Running", startTime="2026-01-01T11:59:00Z"),
        task("ran", "Running", startTime="2026-01-01T11:58:00Z"),
    ]
    names = [row.name for row in TASKS.sorted(rows)]
    assert names == ["ran", "runs", "again", "first", "second", "fresh", "new", "old"]


def test_a_filter_takes_what_has_all_of_its_words() -> None:
    rows = [task("dump", "Failed", message="exited with code 3"), task("dump-2", "Running"), task("build", "Failed")]
    assert [row.name for row in TASKS.sorted(rows, "DUMP failed")] == ["dump"]
    assert [row.name for row in TASKS.sorted(rows, "code 3")] == ["dump"]
    assert TASKS.sorted(rows, "[bold]") == []


def test_a_schedule_has_its_next_run() -> None:
    spec = {"command": {"argv": ["true"]}, "schedule": {"cron": "0 2 * * *", "timeZone": "Europe/Paris"}}
    row = task_row(task_object("s", "Scheduled", spec, nextScheduleTime="2026-01-01T17:00:00Z", active=["a", "b"]))
    assert isinstance(row, ScheduleRow)
    shown = cells(row, SCHEDULES)
    assert (shown["CRON"], shown["NEXT"], shown["AT"]) == ("0 2 * * *", "in 5h", "01-01 17:00Z")
    assert (shown["LAST"], shown["ACTIVE"]) == ("never", "2 running")
    spec["schedule"] = {"cron": "0 2 * * *", "suspend": True}
    assert cells(task_row(task_object("s", "Scheduled", spec)), SCHEDULES)["NEXT"] == "suspended"


def release(sim: Any) -> ReleaseRow:
    obj = sim.object
    metadata = {**obj["metadata"], "name": "shop", "namespace": "default", "uid": "u", "resourceVersion": "7"}
    return release_row({**obj, "metadata": metadata})


def test_a_release_at_its_gate_shows_both_sides_and_that_it_waits() -> None:
    manual = {"strategy": {"blueGreen": {"autoPromote": False}}}
    sim = live("v1", **manual).apply(version="v2", **manual)
    sim.waits_for("AwaitingPromotion")
    row = release(sim)
    shown = cells(row, RELEASES)
    assert shown["PHASE"] == "AwaitingPromotion"
    assert (shown["BLUE"], shown["GREEN"]) == ("▶ r1 2/2 live", "  r2 2/2 preview")
    assert shown["STAGE"] == "Promote 6/9"
    assert shown["MESSAGE"].startswith("waits for promotion: p promotes, a aborts")
    assert (row.revision, list(row.verbs)) == (2, ["promote", "abort"])
    asked = question("promote", row)
    assert isinstance(asked, Question)
    assert asked.text == "Promote revision 2 of default/shop? This lets it go on."


def test_a_canary_shows_its_share_of_the_requests() -> None:
    canary = {"strategy": {"type": "Canary", "canary": {"steps": [{"weight": 20}, {"weight": 60}]}}}
    sim = live("v1", **canary).apply(version="v2", **canary)
    sim.waits_for("AwaitingPromotion")
    assert "20%" in cells(release(sim), RELEASES)["GREEN"]


def test_what_cannot_be_done_is_told_instead_of_asked() -> None:
    assert question("cancel", task("t", "Failed")) == "task default/t has already ended (Failed)"
    assert question("cancel", None) == "nothing is selected"
    assert question("promote", task("t")) == "promote is for releases; Tab shows them"
    said = question("abort", release(live("v1")))
    assert isinstance(said, str)
    assert said.startswith("there is nothing to abort on default/shop (Healthy)")


def test_a_policy_has_its_counts_and_its_last_denial() -> None:
    denied = {"task": "t9", "reason": "no rule allows it", "time": "2026-01-01T11:59:30Z"}
    status = {"conditions": [{"type": "Ready", "status": "True", "reason": "Ready", "message": "", "lastTransitionTime": "2026-01-01T11:00:00Z"}], "matchedTasks": 3, "allowed": 12, "denied": 4, "lastDenied": denied}  # fmt: skip # noqa: E501
    row = policy_row({"metadata": {"name": "p", "namespace": "n", "uid": "u"}, "spec": {}, "status": status})
    shown = cells(row, POLICIES)
    assert (shown["READY"], shown["MODE"], shown["ALLOWED"], shown["DENIED"]) == ("ready", "Enforce", "12", "4")
    assert shown["LAST DENIED"] == "30s ago t9: no rule allows it"


@pytest.mark.parametrize("status", [None, [], "x", {"phase": 3}, {"attempts": "x", "queue": [1], "error": 7}, {"startTime": "never", "attempts": [None, {"usage": 3}], "queue": {"position": "a"}}])  # fmt: skip # noqa: E501
def test_a_status_that_is_none_does_no_harm(status: object) -> None:
    row = task_row({**task_object(), "status": status})
    assert len(TASKS.cells(row, NOW)) == len(TASKS.columns)
    assert row.phase == "Pending"


def test_objects_that_cannot_be_read_are_shown_all_the_same() -> None:
    broken: dict[str, Any] = {"metadata": {"name": "x", "namespace": "n", "uid": "u"}, "spec": {"target": 3}}
    assert "cannot be read" in cells(release_row(broken), RELEASES)["MESSAGE"]
    assert "cannot be read" in cells(policy_row({**broken, "spec": {"commands": 3}}), POLICIES)["LAST DENIED"]


@pytest.mark.parametrize("width", [1, 2, 5, 12, 40, 300])
def test_hostile_text_is_as_wide_as_its_column_and_drives_nothing(width: int) -> None:
    for text in (HOSTILE, HOSTILE * 100_000):
        for middle in (False, True):
            shown = padded(text, width, middle=middle)
            assert cell_len(shown) == width
            assert all(char.isprintable() for char in shown.replace("\u200d", ""))


@given(st.text(max_size=40), st.integers(0, 30), st.booleans())
def test_any_text_fits(text: str, width: int, middle: bool) -> None:
    assert cell_len(padded(text, width, middle=middle)) == width


def test_names_keep_both_ends() -> None:
    assert clipped("run-pg-dump-customers-x7k2p", 15, middle=True) == "run-pg-…s-x7k2p"
    assert clipped("short", 15, middle=True) == "short"


@pytest.mark.parametrize("width", [10, 20, 40, 60, 80, 120, 300])
@pytest.mark.parametrize("view", VIEWS, ids=lambda view: view.title)
def test_a_table_is_as_wide_as_the_terminal_and_keeps_names(view: Any, width: int) -> None:
    sizes = fit(view.columns, [column.most for column in view.columns], width)
    shown = [size for size in sizes if size]
    assert sizes[1] >= 8  # the name
    if width >= 40:
        assert sum(shown) + GAP * (len(shown) - 1) <= width
    if width >= 80 and view is not SCHEDULES:  # the other columns of schedules are more important
        assert sizes[-1] >= 20  # the reason, or the message


def test_the_columns_that_are_missed_least_go_first() -> None:
    columns = (Column("A", 10, 10), Column("B", 10, 10, 2), Column("C", 10, 10, 1))
    assert fit(columns, [10, 10, 10], 34) == [10, 10, 10]
    assert fit(columns, [10, 10, 10], 33) == [10, 0, 21]
    assert fit(columns, [10, 10, 10], 12) == [10, 0, 0]


def test_sparklines_and_sizes() -> None:
    assert sparkline([0, 1, 7, 14], 6) == "▁▂▅█  "
    assert sparkline([], 3) == "   "
    assert [size(count) for count in (0, 999, 1024, 52_428_800, 3 << 40)] == ["0B", "999B", "1.0K", "50M", "3.0T"]
