"""Tests which runs are unusual and which are not."""

from __future__ import annotations

import datetime
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

import anomalyyear
from anomalyyear import DAILY, HOURLY, MIB, families, total, year
from remit.api.executiontaskstatus import ExecutionTaskStatus, RecentRun
from remit.execution import anomalies
from remit.execution.anomalies import LEARNED, LEAST_RUNS, WINDOW, judge, latest, message, run_of
from support import soaking

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
ENOUGH = 4 * WINDOW


def run(number: int, seconds: float, cpu: float | None = None, memory: int | None = None) -> RecentRun:
    return RecentRun(
        name=f"r{number}",
        finished_at=START + datetime.timedelta(hours=number),
        duration_seconds=seconds,
        cpu_seconds=cpu,
        max_memory_bytes=memory,
    )


def runs(*seconds: float, cpu: float | None = None, memory: int | None = None) -> list[RecentRun]:
    return [run(number, each, cpu, memory) for number, each in enumerate(seconds)]


def quantities(one: RecentRun, before: Sequence[RecentRun]) -> list[str]:
    return [finding.measure.quantity for finding in judge(one, before)]


def alarms(seconds: Sequence[float]) -> list[int]:
    """Returns the numbers of those successive runs that are unusual."""
    found, before = [], list[RecentRun]()
    for number, each in enumerate(seconds):
        if judge(one := run(number, each), before):
            found.append(number)
        before = latest(before, [one])
    return found


durations = st.floats(min_value=0, max_value=1e6)
values = st.one_of(durations, st.sampled_from([0.0, -1.0, 5e-324, 1e300, math.inf, -math.inf, math.nan]))
any_run = st.builds(
    run,
    st.integers(0, 1000),
    values,
    st.none() | values,
    st.none() | st.integers(-1, 2**63),
)


def test_a_run_far_beyond_those_before_is_unusual_and_says_so() -> None:
    before = runs(*([2.5, 3.1, 3.3, 4.0] * 5))
    found = judge(run(99, 41.0), before)
    assert [finding.measure.reason for finding in found] == ["UnusualDuration"]
    assert message(found) == "took 41s; the 20 runs before took 3.2s (median), at most 4.0s"


def test_a_run_that_ends_at_once_may_have_done_nothing() -> None:
    found = judge(run(99, 0.2), runs(*([300, 310, 320, 330] * 5)))
    assert message(found) == "took 0.2s; the 20 runs before took 5m15s (median), at least 5m"


def test_less_memory_or_processor_time_is_no_harm() -> None:
    assert quantities(run(99, 60, cpu=0.1, memory=MIB), runs(*[60.0] * 20, cpu=600, memory=4096 * MIB)) == []


def test_each_quantity_is_looked_at_by_itself() -> None:
    before = runs(*[60.0] * 20, cpu=30, memory=400 * MIB)
    assert quantities(run(99, 60, cpu=150, memory=400 * MIB), before) == ["Cpu"]
    assert quantities(run(99, 60, cpu=30, memory=800 * MIB), before) == ["Memory"]
    found = judge(run(99, 600, cpu=150, memory=800 * MIB), before)
    assert [finding.measure.quantity for finding in found] == ["Duration", "Memory", "Cpu"]
    assert message(found) == (
        "took 10m; the 20 runs before took 1m (median), at most 1m; had 800Mi of memory at the most; the 20 runs before"
        " had 400Mi (median), at most 400Mi; used 2m30s of processor time; the 20 runs before used 30s (median),"
        " at most 30s"
    )


def test_what_the_backend_does_not_measure_is_never_unusual() -> None:
    assert quantities(run(99, 60), runs(*[60.0] * 20, cpu=30, memory=400 * MIB)) == []
    assert quantities(run(99, 60, cpu=9000, memory=9000 * MIB), runs(*[60.0] * 20)) == []


def test_values_that_are_not_measured_do_not_count_among_the_runs() -> None:
    known = runs(*[60.0] * (LEAST_RUNS - 1), memory=MIB)
    unknown = [run(100 + number, 60) for number in range(10)]
    assert quantities(run(999, 60, memory=9000 * MIB), [*known, *unknown]) == []
    assert quantities(run(999, 60, memory=9000 * MIB), [*known, run(50, 60, memory=MIB), *unknown]) == ["Memory"]


@pytest.mark.parametrize("before", range(LEAST_RUNS + 2))
def test_nothing_is_said_before_there_are_enough_runs(before: int) -> None:
    assert bool(judge(run(99, 9999), runs(*[1.0] * before))) == (before >= LEAST_RUNS)


@pytest.mark.parametrize(
    ("usual", "seconds", "unusual"),
    [
        (0.01, 4.9, False),  # a factor of 490, but too short to matter
        (0.01, 5.5, True),
        (100, 299, False),
        (100, 301, True),
        (100, 20.5, False),
        (100, 19.5, True),
        (4, 0.0, False),
    ],
)
def test_families_that_never_vary_are_not_unusual_for_little(usual: float, seconds: float, unusual: bool) -> None:
    assert bool(judge(run(99, seconds), runs(*[usual] * 20))) == unusual


def test_a_family_that_varies_much_may_vary_much() -> None:
    wild = runs(*[10.0, 20, 40, 80, 160] * 4)
    assert judge(run(99, 400), wild) == []
    assert quantities(run(99, 400), runs(*[38.0, 39, 40, 41, 42] * 4)) == ["Duration"]


@given(st.lists(any_run, max_size=30, unique_by=lambda run: run.name), any_run)
@example([run(number, math.nan) for number in range(20)], run(99, 5.0))
@example([run(number, 5.0) for number in range(20)], run(99, math.nan, math.inf, 2**62))
@example([run(number, math.inf, 1e300) for number in range(20)], run(99, 5.0, 1.0))
def test_no_numbers_break_it(before: list[RecentRun], one: RecentRun) -> None:
    for finding in judge(one, before):
        assert len(finding.message) < 200
        assert "nan" not in finding.message
        assert "inf" not in finding.message


@given(st.lists(durations, min_size=LEAST_RUNS, max_size=WINDOW), st.permutations(range(WINDOW)))
def test_the_order_of_the_runs_before_does_not_matter(seconds: list[float], order: list[int]) -> None:
    before = runs(*seconds)
    shuffled = [before[at] for at in order if at < len(before)]
    assert judge(run(99, 1e5), before) == judge(run(99, 1e5), shuffled)


@given(st.lists(durations, min_size=LEAST_RUNS, max_size=WINDOW), durations)
def test_whatever_is_said_is_outside_of_almost_all_runs_and_far_from_the_median(
    seconds: list[float], one: float
) -> None:
    before = sorted(seconds)
    if judge(run(99, one), runs(*seconds)):
        beyond = min(sum(each >= one for each in before), sum(each <= one for each in before))
        assert beyond < LEARNED
        middle = before[(len(before) - 1) // 2], before[len(before) // 2]
        assert min(abs(one - each) for each in middle) > 2


@given(st.floats(1, 1e4), st.floats(3.1, 1000), st.booleans())
def test_a_lasting_change_is_told_of_three_times(usual: float, factor: float, up: bool) -> None:
    """After that it is usual, and the previous level is not any more."""
    low, high = usual, usual * factor * (1 if up else 2)
    before, after = (low, high) if up else (high, low)
    told = alarms([before] * ENOUGH + [after] * ENOUGH + [before] * ENOUGH)
    first = [number for number in told if number < 2 * ENOUGH]
    assert first in ([], [ENOUGH, ENOUGH + 1, ENOUGH + 2])
    assert len(told) <= 2 * LEARNED
    if up and high - low >= 5:
        assert first


@given(st.lists(st.tuples(st.integers(0, 200), durations), max_size=60), st.randoms(use_true_random=False))
def test_the_window_does_not_depend_on_how_runs_are_added(some: list[tuple[int, float]], chance: Any) -> None:
    every = [run(number, seconds) for number, seconds in dict(some).items()]
    window = latest(every)
    assert len(window) == min(len(every), WINDOW)
    assert window == sorted(every, key=lambda each: each.finished_at)[-WINDOW:]
    one_by_one = list[RecentRun]()
    shuffled = [*every, *window]
    chance.shuffle(shuffled)
    for each in shuffled:
        one_by_one = latest(one_by_one, [each])
    assert one_by_one == window


def ended(**changes: Any) -> ExecutionTaskStatus:
    attempt = {
        "number": 1,
        "id": "a",
        "startedAt": "2030-01-01T00:00:00.000000Z",
        "finishedAt": "2030-01-01T00:00:02.500000Z",
        "usage": {"cpuSeconds": 1.5, "maxMemoryBytes": MIB},
    }
    return ExecutionTaskStatus.model_validate({"phase": "Succeeded", "attempts": [attempt | changes]})


def test_a_run_is_the_last_attempt_of_what_succeeded() -> None:
    finished = START + datetime.timedelta(seconds=2.5)
    expected = RecentRun(name="n", finished_at=finished, duration_seconds=2.5, cpu_seconds=1.5, max_memory_bytes=MIB)
    status = ended()
    assert run_of("n", status) == expected
    first = status.attempts[0].model_copy(update={"started_at": START - datetime.timedelta(hours=1)})
    assert run_of("n", status.model_copy(update={"attempts": [first, *status.attempts]})) == expected


@pytest.mark.parametrize("phase", ["Failed", "TimedOut", "Cancelled", "Denied", "Running", None])
def test_only_what_succeeded_is_judged_and_teaches(phase: str | None) -> None:
    assert run_of("n", ended().model_copy(update={"phase": phase})) is None


def test_a_run_that_ended_before_it_started_says_nothing() -> None:
    assert run_of("n", ended(finishedAt="2029-12-31T23:59:59.000000Z")) is None
    assert run_of("n", ended(finishedAt=None)) is None
    assert run_of("n", ExecutionTaskStatus.model_validate({"phase": "Succeeded"})) is None


@pytest.mark.parametrize("usage", [None, {}, {"cpuSeconds": 0, "maxMemoryBytes": 0}, {"readBytes": 5}])
def test_usage_that_nothing_counted_is_not_known(usage: dict[str, Any] | None) -> None:
    one = run_of("n", ended(usage=usage))
    assert one is not None
    assert (one.cpu_seconds, one.max_memory_bytes) == (None, None)


def test_no_processor_time_is_known_where_memory_is() -> None:
    one = run_of("n", ended(usage={"cpuSeconds": 0, "maxMemoryBytes": MIB}))
    assert one is not None
    assert (one.cpu_seconds, one.max_memory_bytes) == (0, MIB)


# A year of each family; docs/anomalies.md has the figures of more years. Coverage is measured for the shortest only,
# because measuring takes four times as long and all run the same code.

BY_NAME = {family.name: family for family in families(HOURLY)}


@pytest.mark.no_cover
def test_a_year_of_steady_runs_has_no_false_alarm_and_hides_nothing() -> None:
    seen = year(BY_NAME["steady"], 0)
    assert seen.false == []
    assert seen.injected.total() > 100
    assert seen.found == seen.injected


@pytest.mark.no_cover
def test_a_year_of_runs_that_vary_much_has_few_false_alarms() -> None:
    seen = year(BY_NAME["noisy, as over a network"], 0)
    assert len(seen.false) <= 4
    for kind in ("10× duration", "2× memory", "1/20 duration"):
        assert seen.found[kind] >= 0.9 * seen.injected[kind] > 0, kind
    assert seen.found["5× duration"] >= 0.4 * seen.injected["5× duration"] > 0


@pytest.mark.no_cover
def test_a_change_in_july_is_told_of_in_july_and_not_in_august() -> None:
    seen = year(BY_NAME["five times as much from July on"], 0)
    assert HOURLY // 2 in seen.false
    assert len(seen.false) <= 6
    assert all(HOURLY // 2 <= number < HOURLY // 2 + WINDOW for number in seen.false)


def test_a_change_is_told_of_three_times_in_a_year_of_daily_runs() -> None:
    (family,) = (each for each in families(DAILY) if "July" in each.name)
    assert sum(DAILY // 2 <= number < DAILY // 2 + WINDOW for number in year(family, 0).false) >= LEARNED


@pytest.mark.no_cover
@pytest.mark.parametrize("family", families(DAILY), ids=lambda family: family.name)
def test_ten_years_of_daily_runs(family: anomalyyear.Family) -> None:
    seen = total(family, 10)
    told = 6.0 if "July" in family.name else 0.3
    assert len(seen.false) <= 10 * told
    if family.seconds > 1:
        assert seen.found.total() >= 0.85 * seen.injected.total()


@pytest.mark.no_cover
def test_the_page_has_the_figures() -> None:
    page = (Path(__file__).parents[3] / "docs/anomalies.md").read_text()
    table = [line for line in page.splitlines() if line.startswith(("| hourly", "| daily"))]
    assert len(table) == 2 * len(BY_NAME)
    measured = list(anomalyyear.rows()) if soaking() else [next(anomalyyear.rows(often="daily"))]
    assert [line for line in table if line in measured] == measured


@pytest.mark.no_cover
def test_a_measure_without_its_bound_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The simulation must be able to distinguish a bad rule from a good one."""
    monkeypatch.setattr(anomalies, "LEARNED", WINDOW)
    assert len(year(BY_NAME["five times as much from July on"], 0).false) > 6
    monkeypatch.undo()
    monkeypatch.setattr(anomalies, "SPREADS", 0)
    assert len(year(BY_NAME["noisy, as over a network"], 0).false) > 8
