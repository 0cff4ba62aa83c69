"""Plots the usage of a task beside the earlier and later runs of its family. Pure."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from remit.web.rendering import size, span
from remit.web.rows import TaskRow
from remit.web.sparkline import HEIGHT, WIDTH, frame

MOST_RUNS: Final = 60
"""Runs of a family that are drawn, the newest ones."""
_BAR: Final = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"><title>{}</title></rect>')
_MEDIAN: Final = Markup('<line class="median" x1="0" x2="{}" y1="{}" y2="{}"/>')


@dataclass(frozen=True, slots=True)
class UsagePlot:
    """One kind of usage over the runs of a family."""

    title: str
    this: str
    """The value of the run that is looked at; empty if it has none."""
    median: str
    runs: int
    svg: Markup


_Measure = Callable[[TaskRow], float | None]
_MEASURES: Final[Sequence[tuple[str, _Measure, Callable[[float | None], str]]]] = (
    ("Duration", lambda row: row.seconds, span),
    ("CPU time", lambda row: row.cpu_seconds, span),
    ("Memory, at most", lambda row: row.max_memory_bytes, size),
)


def runs_of(row: TaskRow, tasks: Iterable[TaskRow]) -> list[TaskRow]:
    """Give the newest `MOST_RUNS` runs that ended of the family of `row`, which is a task or a schedule, oldest first.
    A task that ended is always one of them."""
    family = row.name if row.is_schedule else row.family
    found = [
        each
        for each in tasks
        if each.namespace == row.namespace
        and each.seconds is not None
        and (each.schedule or each.name).startswith(family)  # sooner known than the family
        and each.family == family
        and each.name != row.name
    ]
    if row.seconds is not None and not row.is_schedule:
        found.append(row)
    found.sort(key=lambda each: each.created)
    newest = found[-MOST_RUNS:]
    if row in found and row not in newest:
        newest = [row, *newest[1:]]
    return newest


def usage_plots(row: TaskRow, runs: Sequence[TaskRow]) -> list[UsagePlot]:
    """Plot each kind of usage that at least two of `runs` have."""
    found = []
    for title, measure, text in _MEASURES:
        values = [(each, value) for each in runs if (value := measure(each)) is not None]
        if len(values) > 1:
            found.append(_plot(title, row, values, text))
    return found


def _plot(
    title: str, row: TaskRow, values: Sequence[tuple[TaskRow, float]], text: Callable[[float | None], str]
) -> UsagePlot:
    median, most = statistics.median(value for _, value in values), max(value for _, value in values)
    this = next((text(value) for each, value in values if each.uid == row.uid), "")
    top, width = most or 1.0, WIDTH / len(values)
    drawn = Markup()
    for number, (each, value) in enumerate(values):
        height = max(1.0, round((HEIGHT - 4) * value / top, 1))
        kind = "this" if each.uid == row.uid else "ok" if each.phase == "Succeeded" else "bad"
        box = f"{number * width:.1f}", HEIGHT - height, f"{max(1.0, width - 1):.1f}", height
        drawn += _BAR.format(kind, *box, f"{each.name}: {text(value)}, {each.phase}")
    at = round(HEIGHT - (HEIGHT - 4) * median / top, 1)
    drawn += _MEDIAN.format(WIDTH, at, at)
    own = f"this one {this}, " if this else ""
    label = f"{title} of {len(values)} runs: {own}median {text(median)}, most {text(most)}"
    return UsagePlot(title, this, text(median), len(values), frame(label, drawn))
