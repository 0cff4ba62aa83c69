"""The program: four tables over one board, drawn at most four times a second, and only where something has changed."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import os
from typing import Any, ClassVar, Final

from rich.text import Text
from textual import events
from textual.app import App, ComposeResult
from textual.binding import Binding, BindingType
from textual.widgets import Footer, Input, Static

from remit.cli.errors import described
from remit.cli.top import summary
from remit.cli.top.actions import Question, Verb, perform, question
from remit.cli.top.board import Board
from remit.cli.top.rows import PolicyRow, Row
from remit.cli.top.screens import Confirm, Detail, Help, Output
from remit.cli.top.views import POLICIES, VIEWS, View
from remit.cli.top.watching import watching
from remit.cli.top.widgets import RowTable
from remit.describe.connection import Connection
from remit.errors import RemitError
from remit.telemetry.logs import escape

REDRAW_SECONDS: Final = 0.25
_TICK_SECONDS: Final = 1.0
"""How often durations and ages are looked at."""
_LONGEST_FILTER: Final = 200


class Top(App[None]):
    """`namespace` None: all of them. `selector` chooses by labels, as the API server takes it."""

    ENABLE_COMMAND_PALETTE = False
    TITLE = "remit top"
    CSS = """
    Screen { background: $background; }
    #summary { height: 4; padding: 0 1; }
    #message { height: 1; padding: 0 1; }
    #filter { display: none; height: 1; border: none; padding: 0 1; background: $panel; }
    RowTable { display: none; }
    RowTable.shown { display: block; }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("tab", "view(1)", "Next", priority=True),
        Binding("shift+tab", "view(-1)", show=False, priority=True),
        *(Binding(str(number), f"view_number({number})", show=False) for number in range(1, len(VIEWS) + 1)),
        Binding("question_mark,f1", "help", "Help"),
        Binding("q", "quit", "Quit"),
        Binding("slash", "filter", "Filter"),
        Binding("l", "logs", "Logs"),
        Binding("c", "ask('cancel')", "Cancel"),
        Binding("r", "ask('rerun')", "Rerun"),
        Binding("p", "ask('promote')", "Promote"),
        Binding("a", "ask('abort')", "Abort"),
        Binding("ctrl+c", "quit", show=False, priority=True),
        Binding("escape", "clear_filter", show=False),
    ]

    def __init__(
        self, connection: Connection, namespace: str | None, selector: str, operator_namespace: str = "remit-system"
    ) -> None:
        # Without colours, use only the terminal's own; Textual would otherwise use shades of grey.
        super().__init__(ansi_color=True if os.environ.get("NO_COLOR") else None)
        self._connection, self._namespace, self._selector = connection, namespace, selector
        self._operator_namespace = operator_namespace
        self._dirty, self._pulse = asyncio.Event(), asyncio.Event()
        self._clock = asyncio.get_running_loop().time
        self.board = Board(self._clock(), changed=self._dirty.set)
        self._view: View = VIEWS[0]
        self._filter = ""
        self._shown: dict[View, tuple[int, str]] = {}
        """Which version of each table is drawn, with which filter."""
        self._said: dict[str, Text] = {}
        self._message = Text()
        self.redraws = 0
        self.mistake: Exception | None = None
        """What ended it, where nobody had foreseen that."""
        self._open = contextlib.AsyncExitStack()
        self._lines = {name: Static(id=name) for name in ("summary", "message")}
        self._tables = {view: RowTable(view, namespaces=namespace is None, id=view.title.lower()) for view in VIEWS}
        self._input = Input(placeholder="filter", max_length=_LONGEST_FILTER, id="filter")

    def compose(self) -> ComposeResult:
        yield self._lines["summary"]
        yield from self._tables.values()
        yield self._input
        yield self._lines["message"]
        yield Footer(show_command_palette=False)

    async def on_mount(self) -> None:
        if self.no_color:
            self.theme = "ansi-dark"
            for table in self._tables.values():
                table.add_class("-plain")
        self.action_view(0)
        await self._open.enter_async_context(
            watching(self._connection.kube, self.board, self._namespace, self._selector)
        )
        self.run_worker(self._redraw(), name="redraw")
        self.set_interval(_TICK_SECONDS, self._tick)

    async def on_unmount(self) -> None:
        await self._open.aclose()

    async def board_changed(self) -> None:
        """Wait until the board may be another, no more often than it is drawn."""
        await self._pulse.wait()

    async def _redraw(self) -> None:
        while True:
            await self._dirty.wait()
            self._dirty.clear()
            self._draw()
            pulse, self._pulse = self._pulse, asyncio.Event()
            pulse.set()
            await asyncio.sleep(REDRAW_SECONDS)

    def _draw(self) -> None:
        if not self._is_seen:
            return  # it is drawn when the screen above is closed
        self.redraws += 1
        table, wanted = self._table, (self.board.versions[self._view], self._filter)
        if self._shown.get(self._view) != wanted:
            self._shown[self._view] = wanted
            rows = self._view.sorted(self.board.of(self._view), self._filter)
            table.empty = f"nothing has {self._filter!r} in it" if self._filter else self._view.empty
            table.show(rows, _utc())
        self._summarize()

    def _tick(self) -> None:
        if self._is_seen and not self._dirty.is_set():  # otherwise everything is about to be drawn
            self._table.tick(_utc())
            self._summarize()

    @property
    def _is_seen(self) -> bool:
        """Whether the tables are: no page is above them, and they have not been taken down."""
        return len(self.screen_stack) == 1 and self._table.is_attached

    def _summarize(self) -> None:
        width, now = max(20, self.size.width - 2), self._clock()
        where = f"namespace {self._namespace}" if self._namespace else "all namespaces"
        if self._selector:
            where += f"  -l {self._selector}"
        lines = [
            summary.title(where, self._connection.kube.access.server, self.board, now, width),
            summary.counts(self.board, width),
            summary.rates(self.board, now, width),
            summary.tabs(self.board, self._view, self._filter, len(self._table.rows), width),
        ]
        self._say("summary", Text("\n").join(lines))
        trouble = summary.trouble(self.board)
        told = self._message if self._message or not trouble else Text(escape(trouble), style="red")
        told = told.copy()
        told.truncate(width, overflow="ellipsis")
        self._say("message", told)

    def _say(self, where: str, text: Text) -> None:
        """Draw a text where it is another one."""
        if self._said.get(where) != text or str(self._said[where].spans) != str(text.spans):
            self._said[where] = text
            self._lines[where].update(text)

    @property
    def _table(self) -> RowTable:
        return self._tables[self._view]

    def tell(self, text: str, style: str = "") -> None:
        """One line for people, until the next key."""
        self._message = Text(escape(" ".join(text.split())), style=style, no_wrap=True)
        if len(self.screen_stack) > 1:
            self.notify(escape(text), severity="error" if style == "red" else "information", markup=False)
        self._summarize()

    def on_key(self, event: events.Key) -> None:
        if self._message:
            self._message = Text()
            self._summarize()

    def on_resize(self, event: events.Resize) -> None:
        self._dirty.set()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        if len(self.screen_stack) > 1 and action not in {"quit", "pop_screen", "help"}:
            return False
        if action == "ask":
            wanted = {"cancel": "Tasks", "rerun": "Tasks", "promote": "Releases", "abort": "Releases"}
            return wanted.get(str(parameters[0])) == self._view.title
        return action != "logs" or self._view is not POLICIES

    def action_view(self, by: int) -> None:
        self._go_to(VIEWS[(VIEWS.index(self._view) + by) % len(VIEWS)])

    def action_view_number(self, number: int) -> None:
        self._go_to(VIEWS[number - 1])

    def _go_to(self, view: View) -> None:
        self._view = view
        for each, table in self._tables.items():
            table.set_class(each is view, "shown")
        if not self._input.display:
            self._table.focus()
        self._draw()
        self.refresh_bindings()

    def action_filter(self) -> None:
        self._input.display = True
        self._input.focus()

    def action_clear_filter(self) -> None:
        self._input.value = ""
        self._end_filter()

    def on_input_changed(self, event: Input.Changed) -> None:
        self._filter = event.value
        self._draw()

    def on_input_submitted(self, event: Input.Submitted) -> None:
        self._end_filter()

    def _end_filter(self) -> None:
        self._input.display = False
        self._table.focus()
        self._draw()

    def on_row_table_opened(self, event: RowTable.Opened) -> None:
        self._push(Detail(self._connection, event.row, self._operator_namespace))

    def action_logs(self) -> None:
        self.follow(self._table.selected)

    def follow(self, row: Row | None) -> None:
        """Show what it writes."""
        if row is None or isinstance(row, PolicyRow):
            self.tell("nothing is selected" if row is None else "a policy writes nothing", "yellow")
            return
        self._push(Output(self._connection, row))

    def action_help(self) -> None:
        self._push(Help())

    def _push(self, screen: Any) -> None:
        self.push_screen(screen, lambda _: self._dirty.set())

    def action_ask(self, verb: Verb) -> None:
        self.ask(verb, self._table.selected)

    def ask(self, verb: Verb, row: Row | None) -> None:
        """Do something to an object, once somebody has said yes."""
        asked = question(verb, row)
        if isinstance(asked, str):
            self.tell(asked, "yellow")
            return

        def answered(yes: bool | None) -> None:
            self._dirty.set()
            if yes:
                self.tell(f"{verb}: asking {asked.row.key} …", "dim")
                self.run_worker(self._perform(asked))

        self.push_screen(Confirm(asked.text), answered)

    async def _perform(self, asked: Question) -> None:
        try:
            self.tell(await perform(asked, self._connection), "green")
        except (RemitError, OSError) as error:
            self.tell(described(error), "red")

    def on_screen_resume(self) -> None:
        self._dirty.set()

    def _handle_exception(self, error: Exception) -> None:
        self.mistake = self.mistake or error
        super()._handle_exception(error)

    def _fatal_error(self) -> None:
        """Textual's own prints all local variables, a token of the kubeconfig among them."""
        self._close_messages_no_wait()


def _utc() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
