"""The attempts of a task on one line of time, as inline SVG. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from remit.web.rendering import span

WIDTH: Final = 1000.0
_ROW: Final = 22
_AXIS: Final = 18


@dataclass(frozen=True, slots=True)
class Bar:
    """A span between two moments, in seconds since 1970. `kind` is a class of the style sheet."""

    start: float
    end: float
    kind: str
    label: str


def ticks(seconds: float) -> list[float]:
    """Round moments within so many seconds, four to eight of them where there is room."""
    steps = (0.1, 0.2, 0.5, 1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600, 7200, 14400, 43200, 86400)
    step = next((each for each in steps if seconds / each <= 7), max(86400.0, seconds / 7))
    return [step * number for number in range(int(seconds / step) + 1)]


_FRAME: Final = Markup('<svg class="timeline" role="img" aria-label="{}" viewBox="0 0 {} {}">{}</svg>')
_TICK: Final = Markup(
    '<line class="grid" x1="{0}" x2="{0}" y1="0" y2="{1}"/><text x="{0}" y="{2}" text-anchor="{3}">{4}</text>'
)
_BAR: Final = Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}" rx="3"><title>{}</title></rect>')


def timeline(rows: Sequence[Sequence[Bar]]) -> Markup:
    """One row for each sequence of bars, all on the same scale."""
    bars = [bar for row in rows for bar in row]
    if not bars:
        return Markup()
    begin, end = min(bar.start for bar in bars), max(bar.end for bar in bars)
    length = max(end - begin, 0.001)
    drawn = Markup()
    for tick in ticks(length):
        x = round(tick / length * WIDTH, 1)
        anchor = "end" if x > WIDTH - 40 else "start" if x < 40 else "middle"
        drawn += _TICK.format(x, len(rows) * _ROW, len(rows) * _ROW + 13, anchor, span(tick) if tick else "0")
    for number, row in enumerate(rows):
        for bar in row:
            x = round((bar.start - begin) / length * WIDTH, 1)
            width = round(max(3.0, (bar.end - bar.start) / length * WIDTH), 1)
            box = min(x, WIDTH - width), number * _ROW + 4, width, _ROW - 8
            drawn += _BAR.format(bar.kind, *box, bar.label)
    label = "; ".join(bar.label for bar in bars)
    return _FRAME.format(label, WIDTH, len(rows) * _ROW + _AXIS, drawn)
