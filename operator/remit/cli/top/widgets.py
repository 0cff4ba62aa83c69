"""A table of which only what can be seen is drawn, and the page on which lines come."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable, Sequence
from typing import ClassVar, Final

from rich.cells import cell_len
from rich.segment import Segment
from rich.style import Style
from rich.text import Text
from textual import events
from textual.binding import Binding, BindingType
from textual.geometry import Region, Size
from textual.message import Message
from textual.scroll_view import ScrollView
from textual.strip import Strip

from remit.cli.top.cells import GAP, Cell, fit, padded
from remit.cli.top.rows import Row
from remit.cli.top.views import View

_MOST_LINES: Final = 5_000
"""Lines that a page keeps; of a program that writes more, the last."""


class RowTable(ScrollView, can_focus=True):
    """The rows of one view. The cursor stays on its object, wherever that moves."""

    DEFAULT_CSS = """
    RowTable { height: 1fr; width: 1fr; scrollbar-size-vertical: 1; overflow-x: hidden; padding: 0 1; }
    RowTable > .rowtable--header { text-style: bold; color: $text-muted; }
    RowTable > .rowtable--cursor { background: $primary 40%; }
    RowTable:focus > .rowtable--cursor { background: $primary; color: $text; }
    RowTable.-plain > .rowtable--cursor { text-style: reverse; }
    """
    COMPONENT_CLASSES: ClassVar[set[str]] = {"rowtable--header", "rowtable--cursor"}
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up,k", "move(-1)", "Up", show=False),
        Binding("down,j", "move(1)", "Down", show=False),
        Binding("pageup", "move_page(-1)", "Page up", show=False),
        Binding("pagedown,space", "move_page(1)", "Page down", show=False),
        Binding("home,g", "move(-10000000)", "First", show=False),
        Binding("end,G", "move(10000000)", "Last", show=False),
        Binding("enter", "open", "Open"),
    ]

    class Opened(Message):
        """Enter was pressed on a row."""

        def __init__(self, row: Row) -> None:
            super().__init__()
            self.row = row

    def __init__(self, view: View, *, namespaces: bool, id: str) -> None:
        super().__init__(id=id)
        self._view, self._namespaces = view, namespaces
        self._rows: list[Row] = []
        self._cursor = 0
        self._uid: str | None = None
        """The object that the cursor is on; None: it stays on the first row, until somebody moves it."""
        self._widths: list[int] = [0] * len(view.columns)
        """What texts needed so far: columns do not jump."""
        self._layout: list[int] = []
        self._drawn: list[Sequence[Cell]] = []
        self.empty = view.empty

    @property
    def rows(self) -> Sequence[Row]:
        return self._rows

    @property
    def selected(self) -> Row | None:
        return self._rows[self._cursor] if self._cursor < len(self._rows) else None

    def show(self, rows: list[Row], now: datetime.datetime) -> None:
        """Draw these."""
        self._rows = rows
        if self._uid is not None:
            found = next((index for index, row in enumerate(rows) if row.uid == self._uid), None)
            self._cursor = found if found is not None else min(self._cursor, max(0, len(rows) - 1))
            self._uid = rows[self._cursor].uid if rows else self._uid
        else:
            self._cursor = 0
        self.virtual_size = Size(self.size.width, max(1, len(rows)) + 1)
        if self._uid is not None:
            self._reveal()
        self.tick(now, redraw=True)

    def tick(self, now: datetime.datetime, *, redraw: bool = False) -> None:
        """Draw anew what changes with the time, if it does."""
        self._now = now
        drawn, before, layout = [self._view.cells(row, now) for row in self._visible()], self._drawn, self._layout
        self._drawn = drawn
        if redraw or len(drawn) != len(before):
            self._measure()
            self.refresh()
        elif changed := [index for index, cells in enumerate(drawn) if cells != before[index]]:
            self._measure()
            lines = [Region(0, index + 1, self.size.width, 1) for index in changed]
            self.refresh(*(lines if layout == self._layout else ()))

    def _visible(self) -> Sequence[Row]:
        top = self.scroll_offset.y
        return self._rows[top : top + max(0, self.size.height - 1)]

    def _measure(self) -> None:
        for cells in self._drawn:
            for index, cell in enumerate(cells):
                if cell.text:
                    needed = cell_len(cell.text[: 2 * self._view.columns[index].most])
                    self._widths[index] = max(self._widths[index], needed)
        skipped = 0 if self._namespaces else 1
        width = self.scrollable_content_region.width
        self._layout = [0] * skipped + fit(self._view.columns[skipped:], self._widths[skipped:], width)

    def render_line(self, y: int) -> Strip:
        width, style = self.scrollable_content_region.width, self.rich_style
        if not self._layout:
            return Strip.blank(width, style)
        if y == 0:
            titles = [Cell(column.title) for column in self._view.columns]
            return self._strip(titles, style + self.get_component_rich_style("rowtable--header", partial=True), width)
        if not self._rows:
            text = padded(f" {self.empty}" if y == 2 else "", width)
            return Strip([Segment(text, style + Style(dim=True))]).adjust_cell_length(width, style)
        index = self.scroll_offset.y + y - 1
        if index >= len(self._rows):
            return Strip.blank(width, style)
        cells = self._view.cells(self._rows[index], self._now)
        if index == self._cursor:
            cursor = self.get_component_rich_style("rowtable--cursor", partial=True)
            return self._strip([Cell(cell.text, "bold") for cell in cells], style + cursor, width)
        return self._strip(cells, style, width)

    def _strip(self, cells: Sequence[Cell], style: Style, width: int) -> Strip:
        segments: list[Segment] = []
        for column, cell, size in zip(self._view.columns, cells, self._layout, strict=True):
            if not size:
                continue
            if segments:
                segments.append(Segment(" " * GAP, style))
            text = padded(cell.text, size, right=column.right, middle=column.middle)
            segments.append(Segment(text, style + Style.parse(cell.style) if cell.style else style))
        return Strip(segments).adjust_cell_length(width, style)

    def action_move(self, by: int) -> None:
        self._move_to(self._cursor + by)

    def action_move_page(self, pages: int) -> None:
        self._move_to(self._cursor + pages * max(1, self.size.height - 2))

    def action_open(self) -> None:
        if self.selected is not None:
            self.post_message(self.Opened(self.selected))

    def _move_to(self, index: int) -> None:
        if self._rows:
            self._cursor = min(max(0, index), len(self._rows) - 1)
            self._uid = self._rows[self._cursor].uid if self._cursor else None
            self._reveal()
            self.tick(self._now, redraw=True)

    def _reveal(self) -> None:
        """Scroll so that the cursor is seen."""
        room, top = max(1, self.size.height - 1), self.scroll_offset.y
        if not top <= self._cursor < top + room:
            target = self._cursor if self._cursor < top else self._cursor - room + 1
            self.scroll_to(y=target, animate=False, force=True, immediate=True)

    def watch_scroll_y(self, old_value: float, new_value: float) -> None:
        super().watch_scroll_y(old_value, new_value)
        if round(old_value) != round(new_value):
            self.tick(self._now, redraw=True)

    def on_resize(self, event: events.Resize) -> None:
        self.virtual_size = Size(self.size.width, max(1, len(self._rows)) + 1)
        self.tick(self._now, redraw=True)

    def on_click(self, event: events.Click) -> None:
        at = event.get_content_offset(self)
        index = self.scroll_offset.y + at.y - 1 if at is not None and at.y else -1
        if 0 <= index < len(self._rows):
            if index == self._cursor and event.chain > 1:
                self.action_open()
            self._move_to(index)

    _now: datetime.datetime = datetime.datetime.fromtimestamp(0, datetime.UTC)


class Page(ScrollView, can_focus=True):
    """Lines of text, each drawn as it is. It follows its end while that is seen."""

    DEFAULT_CSS = (
        "Page { height: 1fr; scrollbar-size-vertical: 1; overflow-y: scroll; overflow-x: hidden; padding: 0 1; }"
    )
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("k", "scroll_up", show=False),
        Binding("j", "scroll_down", show=False),
        Binding("space", "page_down", show=False),
        Binding("g", "scroll_home", show=False),
        Binding("G", "scroll_end", show=False),
    ]

    def __init__(self, *, follows: bool = False, hang: int = 0, id: str) -> None:
        """`hang`: how far the rest of a long line is indented, where the line itself is."""
        super().__init__(id=id)
        self._follows, self._hang = follows, hang
        self._source: deque[Text] = deque(maxlen=_MOST_LINES)
        self._lines: deque[Text] = deque(maxlen=_MOST_LINES * 4)
        """The same, as wide as the page."""

    @property
    def text(self) -> str:
        return "\n".join(each.plain for each in self._source)

    def replace(self, lines: Iterable[Text]) -> None:
        self._source.clear()
        self._source.extend(lines)
        self._wrap()

    def append(self, lines: Sequence[Text]) -> None:
        at_end = self.is_vertical_scroll_end
        self._source.extend(lines)
        for each in lines:
            self._lines.extend(self._fold(each))
        self._resized(at_end)

    def _wrap(self) -> None:
        at_end = self.is_vertical_scroll_end
        self._lines.clear()
        for each in self._source:
            self._lines.extend(self._fold(each))
        self._resized(at_end and self._follows)

    def _fold(self, text: Text) -> Iterable[Text]:
        width = max(8, self.scrollable_content_region.width)
        text = text.copy()
        text.expand_tabs(8)
        if text.cell_len <= width:
            return [text]
        first, *rest = text.wrap(self.app.console, width, overflow="fold")
        hang = self._hang if text.plain.startswith("  ") and width > 2 * self._hang else 0
        if not hang or not rest:
            return [first, *rest]
        begin = len(first.plain)
        tail = text[begin + len(text.plain[begin:]) - len(text.plain[begin:].lstrip()) :]
        folded = tail.wrap(self.app.console, width - hang, overflow="fold")
        return [first, *(Text(" " * hang).append_text(each) for each in folded)]

    def _resized(self, at_end: bool) -> None:
        self.virtual_size = Size(self.scrollable_content_region.width, len(self._lines))
        if at_end and self._follows:
            self.scroll_end(animate=False, force=True, immediate=True)
        self.refresh()

    def render_line(self, y: int) -> Strip:
        width, style = self.scrollable_content_region.width, self.rich_style
        index = self.scroll_offset.y + y
        if index >= len(self._lines):
            return Strip.blank(width, style)
        text = self._lines[index]
        own = style + self.app.console.get_style(text.style)  # `render` does not apply the text's own style
        return Strip(Segment.apply_style(text.render(self.app.console, end=""), own)).adjust_cell_length(width, style)

    def on_resize(self, event: events.Resize) -> None:
        self._wrap()
