"""Small plots as inline SVG, without a colour or a style of their own: the page's classes give those. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from markupsafe import Markup

from remit.telemetry.logs import escape as harmless

WIDTH: Final = 240
HEIGHT: Final = 44


def line(label: str, values: Sequence[float], style: str, places: int = 0) -> Markup:
    """An area below a line. `style` is a class. With more `places` than values, the first ones stay empty."""
    top = max([*values, 1])
    step = WIDTH / max(1, max(places, len(values)) - 1)
    begin = WIDTH - step * max(0, len(values) - 1)
    bends = [
        index
        for index, value in enumerate(values)
        if index in {0, len(values) - 1} or not values[index - 1] == value == values[index + 1]
    ]
    path = " ".join(f"{begin + index * step:.1f},{_y(values[index], top)}" for index in bends)
    area = Markup('<polygon class="area {}" points="{},{} {} {},{}"/>')
    area = area.format(style, round(begin, 1), HEIGHT, path, WIDTH, HEIGHT)
    return frame(label, area + Markup('<polyline class="{}" points="{}"/>').format(style, path))


def columns(label: str, stacks: Sequence[Sequence[float]], styles: Sequence[str]) -> Markup:
    """A column for each position, of one part for each of `stacks`, the first one at the bottom."""
    totals = [sum(parts) for parts in zip(*stacks, strict=True)]
    top, width = max([*totals, 1]), WIDTH / max(1, len(totals))
    drawn = Markup()
    for index, parts in enumerate(zip(*stacks, strict=True)):
        below = 0.0
        for style, value in zip(styles, parts, strict=True):
            if value > 0:
                high, low = _y(below + value, top), _y(below, top)
                box = f"{index * width:.1f}", high, f"{max(1.0, width - 1):.1f}", f"{max(1.0, low - high):.1f}"
                drawn += Markup('<rect class="{}" x="{}" y="{}" width="{}" height="{}"/>').format(style, *box)
                below += value
    return frame(label, drawn)


def _y(value: float, top: float) -> float:
    return round(HEIGHT - 1 - (HEIGHT - 4) * min(1.0, max(0.0, value / top)), 1)


_FRAME: Final = Markup(
    '<svg class="spark" role="img" aria-label="{}" viewBox="0 0 {} {}" preserveAspectRatio="none">{}</svg>'
)


def frame(label: str, body: Markup) -> Markup:
    """An SVG of `WIDTH` and `HEIGHT` that is called `label`."""
    return _FRAME.format(harmless(label), WIDTH, HEIGHT, body)
