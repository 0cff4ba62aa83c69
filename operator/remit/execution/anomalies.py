"""Which runs are unusual: compared with the runs before of the same family, by median and MAD on a logarithmic scale.
Pure.

Times and sizes are skewed: a run takes twice as long more easily than no time at all. So the median and the MAD (median
absolute deviation) are those of logarithms, where a factor is a distance. An unusual run is beyond three bounds: far
from the median for how much its family varies, a large factor away from it, and by an amount that matters. For families
that never vary the factor is what counts.

A run at a level that `LEARNED` runs of the window had reached before is not unusual. A lasting change is therefore
reported that many times, and occasional levels (a cold cache) are learned.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from statistics import median
from typing import Final

from remit.api.base import Condition
from remit.api.executiontaskstatus import ExecutionTaskStatus, RecentRun
from remit.api.phases import Phase
from remit.api.quantity import format_bytes
from remit.execution.durations import human_duration

WINDOW: Final = 20
"""Runs that one is compared with: the latest that succeeded before it."""
LEAST_RUNS: Final = 8
"""The minimum number of values to compare with. With fewer, nothing is reported."""
LEARNED: Final = 3
"""Runs of the window at a level that make it a usual one."""
SPREADS: Final = 4
"""How many standard deviations, as the MAD estimates them, an unusual value is away from the median."""
_SIGMA: Final = 1.4826
"""The standard deviation of a normal distribution by its MAD."""
_SAME_LEVEL: Final = 1.25
"""The factor up to which a value is at the level of another."""
_LARGEST: Final = 2.0**60
"""Larger numbers are not measurements: a client that may write status can write any number."""
_LONGEST: Final = 1e9
"""Seconds that are shown as what they are."""


class Unusual(StrEnum):
    """The reason of the condition."""

    DURATION = "UnusualDuration"
    MEMORY = "UnusualMemory"
    CPU = "UnusualCpu"


@dataclass(frozen=True, slots=True)
class Measure:
    """One quantity of a run, and when it is unusual."""

    reason: Unusual
    quantity: str
    """The value of the metric's label."""
    of: Callable[[RecentRun], float | None]
    text: Callable[[float], str]
    """A value for people."""
    told: str
    """What a run did, with `{}` for how much."""
    factor: float
    """At least this much more than the median."""
    factor_below: float | None
    """At least this much less; None where less is never unusual."""
    difference: float
    """At least this far from the median, in the unit of the quantity."""
    resolution: float
    """Lower values count as this one."""


def _seconds(value: float) -> str:
    return human_duration(timedelta(seconds=min(value, _LONGEST)))


def _bytes(value: float) -> str:
    return format_bytes(round(value / (1 << 20)) << 20)


MEASURES: Final = (
    # A run that succeeds at once although other runs take minutes may have done nothing, such as an empty backup.
    Measure(
        Unusual.DURATION,
        "Duration",
        lambda run: run.duration_seconds,
        _seconds,
        "took {}",
        factor=3,
        factor_below=5,
        difference=5,
        resolution=0.1,
    ),
    Measure(
        Unusual.MEMORY,
        "Memory",
        lambda run: run.max_memory_bytes,
        _bytes,
        "had {} of memory at the most",
        factor=1.5,
        factor_below=None,
        difference=64 << 20,
        resolution=1 << 20,
    ),
    Measure(
        Unusual.CPU,
        "Cpu",
        lambda run: run.cpu_seconds,
        _seconds,
        "used {} of processor time",
        factor=3,
        factor_below=None,
        difference=5,
        resolution=0.1,
    ),
)


@dataclass(frozen=True, slots=True)
class Finding:
    """One quantity of a run that is unusual, and why."""

    measure: Measure
    message: str


def run_of(name: str, status: ExecutionTaskStatus) -> RecentRun | None:
    """The run of a task that is compared and learned from: its last attempt. None unless it succeeded.

    What failed says so itself, and how long it took says nothing of those that work.
    """
    if status.phase is not Phase.SUCCEEDED or not status.attempts:
        return None
    attempt = status.attempts[-1]
    if attempt.finished_at is None or attempt.finished_at < attempt.started_at:  # the clock was set back
        return None
    usage = attempt.usage
    counted = usage is not None and (usage.cpu_seconds > 0 or usage.max_memory_bytes > 0)
    return RecentRun(
        name=name,
        finished_at=attempt.finished_at,
        duration_seconds=round((attempt.finished_at - attempt.started_at).total_seconds(), 3),
        cpu_seconds=usage.cpu_seconds if usage and counted else None,
        max_memory_bytes=usage.max_memory_bytes or None if usage and counted else None,
    )


def latest(*runs: Iterable[RecentRun]) -> list[RecentRun]:
    """Returns the latest of all these runs, oldest first, each once by its name. The result does not depend on the
    order and the number of calls."""
    found = {run.name: run for some in runs for run in some}
    return sorted(found.values(), key=lambda run: (run.finished_at, run.name))[-WINDOW:]


def judge(run: RecentRun, before: Sequence[RecentRun]) -> list[Finding]:
    """Find what is unusual about `run`, compared with those `before` it; the quantity that says most is first."""
    others = [each for each in before if each.name != run.name]
    found = (_judge(measure, run, others[-WINDOW:]) for measure in MEASURES)
    return [finding for finding in found if finding is not None]


def message(findings: Sequence[Finding]) -> str:
    """All of it in one sentence."""
    return "; ".join(finding.message for finding in findings)


def marked(status: ExecutionTaskStatus, findings: Sequence[Finding], now: datetime) -> ExecutionTaskStatus:
    """The `status` of a task that has ended, with the condition that says so."""
    condition = Condition(
        type="Unusual",
        status="True",
        reason=findings[0].measure.reason,
        message=message(findings),
        last_transition_time=now.replace(microsecond=0),
        observed_generation=status.observed_generation,
    )
    return status.model_copy(update={"conditions": [*status.conditions, condition]})


def _judge(measure: Measure, run: RecentRun, before: Sequence[RecentRun]) -> Finding | None:
    value = _measured(measure, run)
    known = [found for each in before if (found := _measured(measure, each)) is not None]
    if value is None or len(known) < LEAST_RUNS:
        return None
    levels = [math.log(max(each, measure.resolution)) for each in known]
    level, usual = math.log(max(value, measure.resolution)), median(levels)
    more = level > usual
    factor = measure.factor if more else measure.factor_below
    if factor is None or abs(value - math.exp(usual)) < measure.difference:
        return None
    spread = _SIGMA * median(abs(each - usual) for each in levels)
    if abs(level - usual) < max(SPREADS * spread, math.log(factor)):
        return None
    side = 1 if more else -1
    if sum((each - level) * side >= -math.log(_SAME_LEVEL) for each in levels) >= LEARNED:
        return None
    bound = f"at most {measure.text(max(known))}" if more else f"at least {measure.text(min(known))}"
    verb = measure.told.partition(" ")[0]
    others = f"the {len(known)} runs before {verb} {measure.text(median(known))} (median), {bound}"
    return Finding(measure, f"{measure.told.format(measure.text(value))}; {others}")


def _measured(measure: Measure, run: RecentRun) -> float | None:
    value = measure.of(run)
    return value if value is not None and 0 <= value <= _LARGEST else None
