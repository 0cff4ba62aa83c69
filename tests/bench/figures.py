"""The results of a benchmark and their output."""

from __future__ import annotations

import os
import random
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.table import Table

_DRAWS = 4000


@dataclass(frozen=True)
class Figures:
    """One table. Each row is a contestant or a measure, whose name is in the first column."""

    title: str
    columns: tuple[str, ...]
    rows: Sequence[tuple[str, ...]]
    note: str = ""

    def show(self, console: Console) -> None:
        table = Table(title=self.title, title_justify="left", title_style="bold", caption=self.note or None)
        table.caption_justify = "left"
        for at, column in enumerate(self.columns):
            table.add_column(column, justify="left" if at == 0 else "right")
        for row in self.rows:
            table.add_row(*row)
        console.print(table, "")


def machine() -> str:
    """Describes what the figures depend on besides the code."""
    load = ", ".join(f"{value:.1f}" for value in os.getloadavg())
    return f"{os.cpu_count()} cores, Linux {os.uname().release}, load {load} at the start"


def percentile(values: Sequence[float], percent: int) -> float:
    """Returns a percentile of two or more values."""
    return statistics.quantiles(values, n=100, method="inclusive")[percent - 1]


def paired_ratio(pairs: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Returns the sum of the first values of the pairs over that of the second ones, and its 95 % confidence interval
    by percentile bootstrap over the pairs."""
    chance = random.Random(1)

    def of(drawn: Sequence[tuple[float, float]]) -> float:
        return sum(first for first, _ in drawn) / sum(second for _, second in drawn)

    found = sorted(of(chance.choices(pairs, k=len(pairs))) for _ in range(_DRAWS))
    return of(pairs), found[_DRAWS * 25 // 1000], found[_DRAWS * 975 // 1000]


def ratio(value: float, baseline: float | None) -> str:
    return f"{value / baseline:.2f}×" if baseline else "–"


def milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"
