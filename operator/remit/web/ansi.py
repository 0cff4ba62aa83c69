"""Output of programs as HTML: its colours as classes, everything else as text. Pure, and bounded by its input.

What moves a cursor, sets a title or makes a link is left out. Colours beyond the sixteen become the nearest of those,
which the style sheet has for light and for dark.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Final

from markupsafe import Markup

from remit.telemetry.logs import escape as harmless

LONGEST_SHOWN: Final = 8192
"""Characters of one line. The rest is in what can be downloaded."""
_MOST_SPANS: Final = 200
"""Limit of one line. Beyond it the text has no colours, because browsers are slow with many elements."""
_MOST_CODES: Final = 64
_SEQUENCE: Final = re.compile(
    r"\x1b\[([0-9:;]*)m"  # colours and other attributes
    r"|\x1b\[[0-?]{0,64}[ -/]{0,8}[@-~]"
    r"|\x1b[\]PX^_][^\x07\x1b]{0,4096}(?:\x07|\x1b\\)"
    r"|\x1b[ -/]{0,4}[0-~]"
)
_PALETTE: Final = (
    *((0, 0, 0), (205, 0, 0), (0, 205, 0), (205, 205, 0), (0, 0, 238), (205, 0, 205), (0, 205, 205), (229, 229, 229)),
    *((127, 127, 127), (255, 0, 0), (0, 255, 0), (255, 255, 0), (92, 92, 255), (255, 0, 255), (0, 255, 255)),
    (255, 255, 255),
)
_FLAGS: Final = {1: "bold", 2: "faint", 3: "italic", 4: "underline", 7: "inverse", 9: "struck"}
_CLEARED: Final = {22: ("bold", "faint"), 23: ("italic",), 24: ("underline",), 27: ("inverse",), 29: ("struck",)}


@dataclass(frozen=True, slots=True)
class Style:
    foreground: int | None = None
    background: int | None = None
    flags: frozenset[str] = frozenset()

    @property
    def classes(self) -> str:
        front, back = self.foreground, self.background
        if "inverse" in self.flags:
            front, back = (0 if back is None else back), (7 if front is None else front)
        names = [f"f{front}"] if front is not None else []
        names += [f"b{back}"] if back is not None else []
        return " ".join([*names, *sorted(self.flags - {"inverse"})])


class Painter:
    """Paints one stream. Colours continue from line to line."""

    def __init__(self) -> None:
        self._style = Style()

    def line(self, data: bytes) -> Markup:
        """The HTML of a line, without its end."""
        text = data.decode(errors="replace").removesuffix("\n").removesuffix("\r")
        cut = len(text) - LONGEST_SHOWN
        if cut > 0:
            text = text[:LONGEST_SHOWN]
        pieces: list[tuple[Style, str]] = []
        at = 0
        for found in _SEQUENCE.finditer(text):
            pieces.append((self._style, text[at : found.start()]))
            at = found.end()
            if found[1] is not None:
                self._style = _after(self._style, found[1])
        pieces.append((self._style, text[at:]))
        shown = [(style, piece) for style, piece in _overwritten(pieces) if piece]
        rest = "".join(piece for _, piece in shown[_MOST_SPANS:])
        html = Markup().join(_span(style, piece) for style, piece in [*shown[:_MOST_SPANS], (Style(), rest)] if piece)
        if cut > 0:
            html += Markup('<span class="cut-off"> … {} characters more</span>').format(cut)
        return html


def _overwritten(pieces: list[tuple[Style, str]]) -> list[tuple[Style, str]]:
    """The part of a line that its carriage returns leave: progress bars are drawn over and over."""
    for index in range(len(pieces) - 1, -1, -1):
        style, text = pieces[index]
        _, found, after = text.rpartition("\r")
        if found and (after or any(rest for _, rest in pieces[index + 1 :])):
            return [(style, after), *pieces[index + 1 :]]
    return pieces


def _span(style: Style, text: str) -> Markup:
    shown = "\t".join(harmless(part) for part in text.split("\t"))
    return (
        Markup('<span class="{}">{}</span>').format(style.classes, shown) if style != Style() else Markup.escape(shown)
    )


def _after(style: Style, parameters: str) -> Style:
    codes = [int(each) if each and len(each) < 6 else 0 for each in re.split("[;:]", parameters)[:_MOST_CODES]]
    while codes:
        code = codes.pop(0)
        if code == 0:
            style = Style()
        elif code in _FLAGS:
            style = replace(style, flags=style.flags | {_FLAGS[code]})
        elif code in _CLEARED:
            style = replace(style, flags=style.flags - {*_CLEARED[code]})
        elif code in {38, 48}:
            colour = _colour(codes)
            style = replace(style, foreground=colour) if code == 38 else replace(style, background=colour)
        elif 30 <= code <= 39 or 90 <= code <= 97:
            style = replace(style, foreground=_basic(code))
        elif 40 <= code <= 49 or 100 <= code <= 107:
            style = replace(style, background=_basic(code - 10))
    return style


def _basic(code: int) -> int | None:
    return None if code >= 38 and code < 90 else code - 30 if code < 40 else code - 82


def _colour(codes: list[int]) -> int | None:
    """Takes what follows a 38 or 48 from `codes`."""
    kind = codes.pop(0) if codes else 0
    if kind == 5 and codes:
        number = codes.pop(0)
        return number if number < 16 else _nearest(*_of_256(min(number, 255)))
    if kind == 2 and len(codes) >= 3:
        red, green, blue = codes[:3]
        del codes[:3]
        return _nearest(min(red, 255), min(green, 255), min(blue, 255))
    codes.clear()  # the rest of an incomplete sequence is not a code
    return None


def _of_256(number: int) -> tuple[int, int, int]:
    if number >= 232:
        grey = 8 + 10 * (number - 232)
        return grey, grey, grey
    red, rest = divmod(number - 16, 36)
    green, blue = divmod(rest, 6)
    steps = (0, 95, 135, 175, 215, 255)
    return steps[red], steps[green], steps[blue]


def _nearest(red: int, green: int, blue: int) -> int:
    def distance(number: int) -> int:
        other = _PALETTE[number]
        return 3 * (red - other[0]) ** 2 + 4 * (green - other[1]) ** 2 + 2 * (blue - other[2]) ** 2

    return min(range(16), key=distance)
