"""Small plots as inline SVG. Pure text: no script, no font, no colour of its own; the page's classes give those.

Points that are no finite number are left out, and a plot without a point says so: data is drawn as it was seen.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

WIDTH: Final = 760
_HEIGHT: Final = 190
_LEFT, _RIGHT, _TOP, _BOTTOM = 84, 14, 20, 26
_ROW: Final = 26
_LARGEST: Final = 1e15
"""Beyond it, and for what is nearer to 0 than its inverse, nothing is drawn: coordinates would not be numbers."""

Format = Callable[[float], str]
Point = tuple[float, float]


@dataclass(frozen=True, slots=True)
class Series:
    """A line. `style` is a class of the page's style sheet."""

    style: str
    points: Sequence[Point]


@dataclass(frozen=True, slots=True)
class Mark:
    """A moment that all plots show."""

    x: float
    label: str


@dataclass(frozen=True, slots=True)
class Bar:
    """One row of a time line, from `start` on."""

    label: str
    start: float
    length: float
    note: str
    style: str = ""


def ticks(top: float, count: int = 4) -> list[float]:
    """Round numbers from 0 to at least `top`, about `count` of them."""
    if not _drawable(top) or top <= 0:
        return [0.0, 1.0]
    rough = top / count
    power = 10.0 ** math.floor(math.log10(rough))
    step = next((factor * power for factor in (1, 2, 2.5, 5) if factor * power >= rough * 0.999), 10 * power)
    return [step * index for index in range(math.ceil(top / step - 1e-9) + 1)]


def lines(
    label: str, series: Sequence[Series], span: float, *, y: Format, x: Format, marks: Sequence[Mark] = ()
) -> str:
    """Lines over `span`, which begins at 0. Negative values are drawn as 0."""
    drawn = [Series(each.style, [point for point in each.points if all(map(_drawable, point))]) for each in series]
    if not any(each.points for each in drawn):
        return _nothing(label)
    frame = _Frame.around(span, max(value for each in drawn for _, value in each.points))
    body = "".join(_line(each, frame) for each in drawn)
    return _svg(label, _HEIGHT, "".join(_axes(frame, x, y)) + body + "".join(_marks(frame, marks)))


def columns(
    label: str,
    stacks: Sequence[tuple[float, Mapping[str, float]]],
    span: float,
    *,
    x: Format,
    y: Format,
    marks: Sequence[Mark] = (),
) -> str:
    """A stack for each second, at its moment: heights by style, the first one at the bottom."""
    drawn = [
        (at, {style: height for style, height in stack.items() if _drawable(height) and height > 0})
        for at, stack in stacks
        if _drawable(at)
    ]
    if not any(stack for _, stack in drawn):
        return _nothing(label)
    frame = _Frame.around(span, max(sum(stack.values()) for _, stack in drawn))
    width = max(1.0, frame.x(1.0) - frame.x(0.0) - 1)
    body = "".join(_stack(frame, at, stack, width) for at, stack in drawn)
    return _svg(label, _HEIGHT, "".join(_axes(frame, x, y)) + body + "".join(_marks(frame, marks)))


def timeline(label: str, bars: Sequence[Bar], span: float, *, x: Format) -> str:
    """A row for each bar. Each has a width that can be seen, however short it is."""
    bars = [bar for bar in bars if _drawable(bar.start) and _drawable(bar.length)]
    if not bars:
        return _nothing(label)
    height = _TOP + _BOTTOM + _ROW * len(bars)
    frame = _Frame(_span(span), 1.0, height, left=110)
    grid = "".join(_columns_of_grid(frame, x))
    return _svg(label, height, grid + "".join(_row(frame, index, bar) for index, bar in enumerate(bars)))


@dataclass(frozen=True, slots=True)
class _Frame:
    span: float
    top: float
    height: int
    left: int = _LEFT

    @classmethod
    def around(cls, span: float, top: float) -> _Frame:
        return cls(_span(span), ticks(top)[-1], _HEIGHT)

    def x(self, value: float) -> float:
        share = min(1.0, max(0.0, value / self.span))
        return round(self.left + share * (WIDTH - self.left - _RIGHT), 1)

    def y(self, value: float) -> float:
        share = min(1.0, max(0.0, value / self.top))
        return round(self.height - _BOTTOM - share * (self.height - _TOP - _BOTTOM), 1)


def _span(span: float) -> float:
    return span if _drawable(span) and span > 0 else 1.0


def _drawable(value: float) -> bool:
    return math.isfinite(value) and (value == 0 or 1 / _LARGEST <= abs(value) <= _LARGEST)


def _svg(label: str, height: int, body: str) -> str:
    head = f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="{escape(label)}">'
    return f"{head}{body}</svg>"


def _nothing(label: str) -> str:
    text = f'<text class="note" x="{WIDTH // 2}" y="34" text-anchor="middle">nothing was measured</text>'
    return _svg(label, 60, text)


def _axes(frame: _Frame, x: Format, y: Format) -> Iterator[str]:
    yield from _columns_of_grid(frame, x)
    for value in ticks(frame.top):
        at = frame.y(value)
        yield f'<line class="grid" x1="{frame.left}" x2="{WIDTH - _RIGHT}" y1="{at}" y2="{at}"/>'
        yield f'<text x="{frame.left - 8}" y="{at + 4}" text-anchor="end">{escape(y(value))}</text>'


def _columns_of_grid(frame: _Frame, x: Format) -> Iterator[str]:
    bottom = frame.height - _BOTTOM
    for value in ticks(frame.span, 6):
        if value <= frame.span:
            at = frame.x(value)
            anchor = "end" if at > WIDTH - 40 else "middle"
            yield f'<line class="grid" x1="{at}" x2="{at}" y1="{_TOP}" y2="{bottom}"/>'
            yield f'<text x="{at}" y="{bottom + 18}" text-anchor="{anchor}">{escape(x(value))}</text>'


def _marks(frame: _Frame, marks: Sequence[Mark]) -> Iterator[str]:
    shown_until = -math.inf
    for mark in sorted((mark for mark in marks if _drawable(mark.x)), key=lambda mark: mark.x):
        at = frame.x(mark.x)
        yield f'<line class="mark" x1="{at}" x2="{at}" y1="{_TOP - 4}" y2="{frame.height - _BOTTOM}"/>'
        width = 7 * len(mark.label)
        start = min(max(at - width / 2, frame.left), WIDTH - _RIGHT - width)
        if start > shown_until:
            yield f'<text class="note" x="{start:.1f}" y="{_TOP - 8}">{escape(mark.label)}</text>'
            shown_until = start + width + 6


def _line(series: Series, frame: _Frame) -> str:
    points = [(frame.x(at), frame.y(value)) for at, value in sorted(series.points, key=lambda point: point[0])]
    if len(points) == 1:
        return f'<circle class="{escape(series.style)}" cx="{points[0][0]}" cy="{points[0][1]}" r="3"/>'
    path = " ".join(f"{x},{y}" for x, y in points)
    return f'<polyline class="{escape(series.style)}" points="{path}"/>' if points else ""


def _stack(frame: _Frame, at: float, stack: Mapping[str, float], width: float) -> str:
    drawn, below = [], 0.0
    for style, height in stack.items():
        low, high = frame.y(below), frame.y(below + height)
        box = f'x="{frame.x(at)}" y="{high}" width="{width:.1f}" height="{max(0.5, low - high):.1f}"'
        drawn.append(f'<rect class="{escape(style)}" {box}/>')
        below += height
    return "".join(drawn)


def _row(frame: _Frame, index: int, bar: Bar) -> str:
    y, start = _TOP + index * _ROW, frame.x(bar.start)
    width = max(2.0, frame.x(bar.start + max(0.0, bar.length)) - start)
    note, end = escape(bar.note), start + width + 6
    outside = end + 7 * len(bar.note) < WIDTH - _RIGHT
    at, anchor = (end, "start") if outside else (start - 6, "end")
    return (
        f'<text x="{frame.left - 8}" y="{y + 17}" text-anchor="end">{escape(bar.label)}</text>'
        f'<rect class="{escape(bar.style)}" x="{start}" y="{y + 4}" width="{width:.1f}" height="{_ROW - 8}" rx="3"/>'
        f'<text class="note" x="{at:.1f}" y="{y + 17}" text-anchor="{anchor}">{note}</text>'
    )
