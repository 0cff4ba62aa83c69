"""Simulates a year of scheduled runs: how often a usual run is reported as unusual, and how many unusual runs are
found.

`PYTHONPATH=tests python tests/anomalyyear.py [SEEDS]` prints the table of docs/anomalies.md.
"""

from __future__ import annotations

import datetime
import math
import random
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from remit.api.executiontaskstatus import RecentRun
from remit.execution.anomalies import judge, latest

START = datetime.datetime(2030, 1, 1, tzinfo=datetime.UTC)
MIB = 1 << 20
HOURLY, DAILY = 8760, 365


@dataclass(frozen=True)
class Family:
    """A schedule's runs. `level` returns the factor by which a run takes longer, from the hour of the year and
    chance."""

    name: str
    runs: int
    noise: float
    """Standard deviation of the logarithm of the duration; processor time varies by two thirds of it, memory by a
    fifth."""
    level: Callable[[float, random.Random], float] = lambda hour, chance: 1.0
    seconds: float = 60.0
    memory_level: Callable[[float], float] = lambda hour: 1.0


def _day_and_night(hour: float, chance: random.Random) -> float:
    """Returns a factor that is twice as high at the busiest hour as at the quietest; weekends are like nights."""
    weekend = int(hour // 24) % 7 >= 5
    return 1.0 if weekend else 1.5 + 0.5 * math.sin(hour % 24 / 24 * 2 * math.pi)


def _cold_cache(hour: float, chance: random.Random) -> float:
    return 2.0 if chance.random() < 0.01 else 1.0


def _change(hour: float) -> float:
    return 5.0 if hour >= 4380 else 1.0


def _growth(hour: float) -> float:
    return 1.0 + hour / 8760


def families(runs: int) -> list[Family]:
    return [
        Family("steady", runs, 0.10),
        Family("noisy, as over a network", runs, 0.35),
        Family("by the time of day", runs, 0.15, _day_and_night),
        Family("twice as much at the end of the year", runs, 0.15, lambda hour, _: _growth(hour), 60.0, _growth),
        Family("a cold cache in 1 % of runs: 2×", runs, 0.15, _cold_cache),
        Family("five times as much from July on", runs, 0.15, lambda hour, _: _change(hour), 60.0, _change),
        Family("short: 0.5 s", runs, 0.35, seconds=0.5),
    ]


@dataclass
class Year:
    """The results of one simulated year of one family."""

    injected: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)
    false: list[int] = field(default_factory=list)
    """Numbers of usual runs that were reported as unusual."""


OUTLIERS = {"5× duration": (5.0, 1.0, 1.0), "10× duration": (10.0, 1.0, 1.0), "5× CPU": (1.0, 5.0, 1.0)} | {
    "2× memory": (1.0, 1.0, 2.0),
    "1/20 duration": (0.05, 1.0, 1.0),
}
_LOOKED_FOR = {"5× CPU": "Cpu", "2× memory": "Memory"}


def year(family: Family, seed: int) -> Year:
    """Simulates one year. One in 73 runs is an outlier, at different times each year."""
    chance, seen, before = random.Random(f"{family.name} {seed}"), Year(), list[RecentRun]()
    for number in range(family.runs):
        kind = chance.choice(list(OUTLIERS)) if chance.random() < 1 / 73 else ""
        run = _run(family, number, chance, *OUTLIERS.get(kind, (1.0, 1.0, 1.0)))
        quantities = {finding.measure.quantity for finding in judge(run, before)}
        if kind and number >= 20:
            seen.injected[kind] += 1
            seen.found[kind] += _LOOKED_FOR.get(kind, "Duration") in quantities
        elif quantities and not kind:
            seen.false.append(number)
        before = latest(before, [run])
    return seen


def _run(family: Family, number: int, chance: random.Random, time: float, cpu: float, memory: float) -> RecentRun:
    hour = number * 8760 / family.runs
    level, noise = family.level(hour, chance), family.noise
    return RecentRun(
        name=f"run-{number}",
        finished_at=START + datetime.timedelta(hours=hour),
        duration_seconds=family.seconds * level * time * chance.lognormvariate(0, noise),
        cpu_seconds=family.seconds / 2 * level * cpu * chance.lognormvariate(0, noise * 2 / 3),
        max_memory_bytes=round(300 * MIB * family.memory_level(hour) * memory * chance.lognormvariate(0, noise / 5)),
    )


def total(family: Family, seeds: int) -> Year:
    """Returns the results of several years, added up."""
    whole = Year()
    for each in (year(family, seed) for seed in range(seeds)):
        whole.injected += each.injected
        whole.found += each.found
        whole.false += each.false
    return whole


def rows(seeds: int = 5, often: str = "") -> Iterator[str]:
    """Yields the rows of the table in docs/anomalies.md: `seeds` years of each hourly family, and ten times as many of
    each daily family. `often` selects `hourly` or `daily`."""
    for word, runs, years in (("hourly", HOURLY, seeds), ("daily", DAILY, 10 * seeds)):
        for family in families(runs) if often in ("", word) else ():
            seen = total(family, years)
            shares = (f"{seen.found[kind] / seen.injected[kind]:.0%}" for kind in OUTLIERS)
            yield f"| {word} | {family.name} | {len(seen.false) / years:.1f} | {' | '.join(shares)} |"


if __name__ == "__main__":
    print(f"| runs | family | false alarms a year | {' | '.join(OUTLIERS)} |")
    print(f"| --- | --- |{' ---: |' * (1 + len(OUTLIERS))}")
    print("\n".join(rows(int(sys.argv[1]) if sys.argv[1:] else 5)))
