"""Texts in columns: none that drives a terminal, none wider than its column. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

from rich.cells import cell_len, set_cell_size

from remit.telemetry.logs import escape

GAP: Final = 2
"""Blanks between two columns."""
_BARS: Final = "▁▂▃▄▅▆▇█"


class Cell(NamedTuple):
    """A text, and how rich draws it. The text may be anything that somebody wrote."""

    text: str
    style: str = ""


@dataclass(frozen=True, slots=True)
class Column:
    """`least` and `most` characters. Where there is too little room, the column with the highest `rank` is left out
    first; with 0 never. The last column of a table gets the room that is left."""

    title: str
    least: int
    most: int
    rank: int = 0
    right: bool = False
    middle: bool = False
    """What does not fit is left out in the middle: names that are alike differ at their ends."""


def fit(columns: Sequence[Column], wanted: Sequence[int], width: int) -> list[int]:
    """The width of each column in a table of `width` characters; 0: left out. `wanted` is what their texts need."""
    sizes = [
        max(cell_len(column.title), column.least, min(need, column.most))
        for column, need in zip(columns, wanted, strict=True)
    ]
    least = [min(size, max(column.least, cell_len(column.title))) for column, size in zip(columns, sizes, strict=True)]
    shown = set(range(len(columns)))
    while _taken(least, shown) > width and (droppable := [index for index in shown if columns[index].rank]):
        shown.discard(max(droppable, key=lambda index: columns[index].rank))
    for index in sorted(shown, key=lambda index: sizes[index] - least[index], reverse=True):
        excess = _taken(sizes, shown) - width
        if excess > 0:
            sizes[index] = max(least[index], sizes[index] - excess)
    if (last := len(columns) - 1) in shown:
        sizes[last] += max(0, width - _taken(sizes, shown))
    return [size if index in shown else 0 for index, size in enumerate(sizes)]


def _taken(sizes: Sequence[int], shown: set[int]) -> int:
    return sum(sizes[index] for index in shown) + GAP * max(0, len(shown) - 1)


def clipped(text: str, width: int, *, middle: bool = False) -> str:
    """`text` on one line that no terminal obeys, at most `width` characters wide."""
    if width <= 0:
        return ""
    if len(text) > 4 * width + 8:  # of a text of megabytes, only the visible part is processed
        text = text[: 2 * width + 4] + text[-2 * width - 4 :] if middle else text[: 4 * width + 8]
    text = escape(text)
    if cell_len(text) <= width:
        return text
    if not middle or width < 5:
        return _beginning(text, width - 1) + "…"
    end = _end(text, (width - 1) // 2)
    return _beginning(text, width - 1 - cell_len(end)) + "…" + end


def padded(text: str, width: int, *, right: bool = False, middle: bool = False) -> str:
    """`text` exactly `width` characters wide."""
    text = clipped(text, width, middle=middle)
    blanks = " " * max(0, width - cell_len(text))
    return blanks + text if right else text + blanks


def _beginning(text: str, width: int) -> str:
    return set_cell_size(text, width).rstrip() if width > 0 else ""


def _end(text: str, width: int) -> str:
    for start in range(max(0, len(text) - width), len(text)):
        if cell_len(text[start:]) <= width:
            return text[start:]
    return ""


def sparkline(values: Sequence[int], width: int) -> str:
    """The newest `width` of the values as bars, the highest one as high as a line; blank after them."""
    shown = list(values)[-width:]
    highest = max(shown, default=0) or 1
    bars = (_BARS[0] if value <= 0 else _BARS[min(7, max(1, -(-value * 7 // highest)))] for value in shown)
    return "".join(bars).ljust(width)


def size(count: float) -> str:
    """Bytes in at most six characters, such as `512M`, in powers of 1024 as Kubernetes has them."""
    for unit in ("B", "K", "M", "G"):
        if count < 1000:
            return f"{count:.0f}{unit}" if count >= 10 or unit == "B" else f"{count:.1f}{unit}"
        count /= 1024
    return f"{count:.1f}T"
