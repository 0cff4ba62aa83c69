"""Tests `remit top`: which objects are kept, what is counted, and the summary above the tables."""

from __future__ import annotations

import io
import subprocess
import sys
import tracemalloc
from typing import Any

import pytest
from rich.console import Console

import commandline
from remit.api.phases import Phase
from remit.cli.top import details, summary
from remit.cli.top.board import Board, Sight
from remit.cli.top.rates import Rate
from remit.cli.top.views import SCHEDULES, TASKS
from remit.errors import InvalidInput

from .test_top_tables import HOSTILE, NOW, task_object


def listed(board: Board, *objects: dict[str, Any], now: float = 0.0) -> None:
    for obj in objects:
        board.put("tasks", obj, now)
    board.keep_only("tasks", {obj["metadata"]["uid"] for obj in objects})


def test_only_what_happens_in_the_session_is_counted() -> None:
    board = Board(0.0)
    started = {"startTime": "2026-01-01T11:59:00Z"}
    listed(
        board,
        task_object("before", "Failed", **started),
        task_object("t"),
        task_object("running", "Running", **started),
    )
    assert board.rates.started.total == board.rates.finished.total == 0
    board.put("tasks", task_object("t", "Running", **started), 1.0)
    board.put("tasks", task_object("t", "Running", message="again", **started), 2.0)
    board.put("tasks", task_object("t", "Failed", **started), 3.0)
    board.put("tasks", task_object("running", "Succeeded", **started), 3.0)
    board.put("tasks", task_object("denied", "Denied"), 4.0)
    counted = board.rates.started.total, board.rates.finished.total, board.rates.failed.total
    assert counted == (1, 3, 2)


def test_what_a_new_list_brings_is_counted_once() -> None:
    board = Board(0.0)
    ended = task_object("t", "Succeeded", startTime="2026-01-01T11:59:00Z")
    listed(board, task_object("t"))
    listed(board, ended)
    listed(board, ended)
    old = task_object("old", "Failed", startTime="2026-01-01T10:00:00Z")
    old["metadata"]["creationTimestamp"] = "2026-01-01T10:00:00Z"
    board.put("tasks", old, 9.0)  # the object existed before and was only not kept
    assert (board.rates.started.total, board.rates.finished.total, board.rates.failed.total) == (1, 1, 0)


def test_a_rate_is_about_the_last_minute() -> None:
    rate = Rate(100.0)
    rate.count(100.0, 3)
    rate.count(130.0, 2)
    assert rate.per_minute(139.0) == 5
    assert rate.per_minute(165.0) == 2
    assert rate.per_minute(1e6) == 0
    assert (rate.total, len(rate.bars(1e6))) == (5, 60)


def test_what_is_gone_is_not_shown() -> None:
    board = Board(0.0)
    schedule = task_object("s", spec={"command": {"argv": ["true"]}, "schedule": {"cron": "* * * * *"}})
    listed(board, task_object("a"), task_object("b"), schedule)
    assert (len(board.of(TASKS)), len(board.of(SCHEDULES))) == (2, 1)
    before = board.versions[TASKS]
    board.remove("tasks", "uid-a")
    board.remove("tasks", "uid-a")
    assert [row.name for row in board.of(TASKS)] == ["b"]
    assert board.versions[TASKS] == before + 1
    listed(board, task_object("c"))
    assert ([row.name for row in board.of(TASKS)], board.of(SCHEDULES)) == (["c"], [])


def test_of_too_many_those_that_ended_first_are_left_out() -> None:
    board = Board(0.0, most=3)
    objects = [task_object("q", "Queued"), *(task_object(f"t{number}", "Succeeded") for number in range(5))]
    listed(board, *objects)
    assert [row.name for row in board.of(TASKS)] == ["q", "t3", "t4"]
    assert board.left_out == 3
    listed(board, *objects)
    assert board.left_out == 3
    assert "3 more are not kept" in summary.counts(board, 200).plain


@pytest.mark.no_cover
def test_ten_thousand_tasks_take_little_memory() -> None:
    """Whole objects would take 10 KB each and more, because they contain output."""
    output = {"stdoutTail": "x" * 4096, "stderrTail": "y" * 4096}
    board = Board(0.0)
    tracemalloc.start()
    for number in range(10_000):
        obj = task_object(f"task-{number}", "Succeeded", output=output, message=f"{number}" + "m" * 10_000)
        obj["metadata"]["uid"] = f"00000000-0000-4000-8000-{number:012}"
        board.put("tasks", obj, 0.0)
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(board.of(TASKS)) == 10_000
    assert taken < 20_000_000


def test_a_lost_server_is_told_with_what_is_shown_meanwhile() -> None:
    changes: list[None] = []
    board = Board(0.0, changed=lambda: changes.append(None))
    for kind in board.sights:
        board.see(kind, Sight("live"))
    told = len(changes)
    board.see("tasks", Sight("live"))
    assert (summary.sight(board, 5.0)[0], summary.trouble(board), len(changes)) == ("● live", "", told)
    board.see("tasks", Sight("lost", "https://x does not answer", 5.0))
    assert summary.sight(board, 17.0)[0] == "○ no answer for 12s"
    assert summary.trouble(board) == "this is the last that was seen; reconnecting: https://x does not answer"
    board.see("tasks", Sight("live"))
    board.see("policies", Sight("refused", "forbidden; ask for a role that allows it", 5.0))
    assert summary.sight(board, 17.0)[0] == "● 1 of 3 refused"
    assert summary.trouble(board) == "policies may not be seen: forbidden; ask for a role that allows it"


@pytest.mark.parametrize("width", [20, 40, 60, 80, 200])
def test_the_lines_above_fit_and_have_what_matters(width: int) -> None:
    board = Board(0.0)
    listed(
        board, *(task_object(str(phase), phase) for phase in Phase if phase != "Scheduled"), task_object("odd", HOSTILE)
    )
    board.rates.failed.count(1.0, 12345)
    lines = [
        summary.title(f"namespace {HOSTILE}", "https://" + "x" * 300, board, 1.0, width),
        summary.counts(board, width),
        summary.rates(board, 1.0, width),
        summary.tabs(board, TASKS, HOSTILE, 3, width),
    ]
    for line in lines:
        assert line.cell_len <= width
        assert "\x1b" not in line.plain
        assert "\n" not in line.plain
    assert "1 running" in lines[1].plain
    if width >= 60:
        assert "failed 12345/min" in lines[2].plain


def drawn(lines: Any) -> str:
    screen = io.StringIO()
    console = Console(file=screen, width=200)
    for line in lines:
        console.print(line)
    return screen.getvalue()


def test_a_detail_has_attempts_decision_and_output_and_drives_nothing() -> None:
    attempt = {"number": 1, "id": "x", "startedAt": "2026-01-01T11:59:00Z", "finishedAt": "2026-01-01T11:59:02Z", "exitCode": 3, "reason": "ExitCode", "usage": {"cpuSeconds": 1.5, "maxMemoryBytes": 1048576}}  # fmt: skip # noqa: E501
    obj = task_object(
        "t", "Failed", attempts=[attempt], attemptCount=1, message=HOSTILE, output={"stdoutTail": f"hello\n{HOSTILE}"},
        error={"reason": "ExitCode", "category": "ExitCode", "message": "exited with code 3"},
        policy={"name": "team", "rule": "commands.allow[0]", "decision": "Allowed"},
    )  # fmt: skip
    obj["apiVersion"], obj["kind"] = "remit.dev/v1alpha1", "ExecutionTask"
    said = drawn(details.task_lines(obj, NOW))
    assert "11:59:00Z     2.0s  ExitCode  exit 3  cpu 1.5s, memory 1.0M" in said
    assert "Allowed by team commands.allow[0]" in said
    assert "what to do" in said
    assert "hello" in said
    assert "[bold red]x[/]" in said
    assert "\x1b" not in said
    with pytest.raises(InvalidInput):
        list(details.task_lines({**obj, "spec": {}}, NOW))


def test_a_decision_says_what_would_allow_it() -> None:
    change = "--- a\n+++ b\n@@ -1 +1 @@\n+  allow: [rm]"
    said = drawn(details.decision_lines(False, {"why": "no rule"}, "", change))
    assert "Denied" in said
    assert "+  allow: [rm]" in said


def test_without_a_terminal_the_command_names_another_one() -> None:
    done = commandline.invoke("top")
    assert isinstance(done.exception, InvalidInput)
    assert "'remit get -w'" in str(done.exception)


def test_no_other_command_pays_for_what_draws() -> None:
    script = "import sys, remit.cli.app; sys.exit('textual' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], check=True, timeout=60, env={"PYTHONPATH": ":".join(sys.path)})
