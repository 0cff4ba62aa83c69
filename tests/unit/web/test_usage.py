"""What a task used, beside the runs of its family."""

from __future__ import annotations

import re

from pagerows import NOW, row
from remit.web.rows import TaskRow, task_row
from remit.web.usage import MOST_RUNS, runs_of, usage_plots


def run(number: int, cpu: float | None = 1.0, memory: float | None = None, phase: str = "Succeeded") -> TaskRow:
    began = NOW - 10_000 + number
    return row(
        f"build-{number}",
        phase,
        created=began,
        started=began,
        ended=began + 2,
        cpu_seconds=cpu,
        max_memory_bytes=memory,
    )


def test_the_runs_of_a_family_are_those_that_ended_oldest_first() -> None:
    this = run(2)
    tasks = [
        run(3),
        this,
        run(1),
        row("build-4", "Running", started=NOW - 1),
        row("builder-1", "Failed", started=1.0, ended=2.0),
    ]
    assert [each.name for each in runs_of(this, tasks)] == ["build-1", "build-2", "build-3"]
    assert [each.name for each in runs_of(row("build-9", "Running"), tasks)] == ["build-1", "build-2", "build-3"]


def test_an_old_run_is_among_the_newest_ones() -> None:
    many = [run(number) for number in range(3 * MOST_RUNS)]
    found = runs_of(many[0], many)
    assert len(found) == MOST_RUNS
    assert found[0] is many[0]
    assert found[-1] is many[-1]


def test_a_schedule_has_the_runs_that_it_made() -> None:
    schedule = row("nightly", "Scheduled", cron="0 2 * * *")
    made = row("nightly-28912", "Succeeded", created=NOW, started=NOW, ended=NOW + 1, schedule="nightly")
    assert runs_of(schedule, [schedule, made, run(1)]) == [made]


def test_each_kind_of_usage_that_two_runs_have_is_plotted() -> None:
    this = run(2, cpu=4.0, memory=1 << 20)
    plots = usage_plots(this, [run(1, cpu=1.0), this, run(3, cpu=2.0, phase="Failed"), run(4, cpu=None)])
    assert [(each.title, each.this, each.median, each.runs) for each in plots] == [
        ("Duration", "2.0s", "2.0s", 4),
        ("CPU time", "4.0s", "2.0s", 3),
    ]
    drawn = str(plots[1].svg)
    assert re.findall(r'rect class="(\w+)"', drawn) == ["ok", "this", "bad"]
    assert "CPU time of 3 runs: this one 4.0s, median 2.0s, most 4.0s" in drawn
    assert "<title>build-3: 2.0s, Failed</title>" in drawn
    heights = [float(each) for each in re.findall(r'height="([0-9.]+)"', drawn)]
    assert heights[1] == 2 * heights[2] == 4 * heights[0]


def test_runs_that_used_nothing_are_drawn_too() -> None:
    plots = usage_plots(run(1, cpu=0.0), [run(1, cpu=0.0), run(2, cpu=0.0)])
    assert [each.title for each in plots] == ["Duration", "CPU time"]


def test_usage_that_is_no_amount_is_left_out() -> None:
    for wrong in ("1", True, -1, float("nan"), float("inf"), 1e300, None, [], {}):
        usage = {"cpuSeconds": wrong, "maxMemoryBytes": wrong}
        obj = {
            "metadata": {"name": "a", "namespace": "b", "uid": "c"},
            "spec": {},
            "status": {"attempts": [{"usage": usage}]},
        }
        read = task_row(obj)
        assert (read.cpu_seconds, read.max_memory_bytes) == (None, None)
    for attempts in ("x", [], ["x"], [{"usage": "x"}]):
        assert (
            task_row({"metadata": {"name": "a", "uid": "c"}, "spec": {}, "status": {"attempts": attempts}}).cpu_seconds
            is None
        )
