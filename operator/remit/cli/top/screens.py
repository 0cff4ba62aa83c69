"""The screens that open above the tables: an object's page, its output, a question, and the keys."""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar, Final

from rich.text import Text
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.screen import ModalScreen, Screen
from textual.widgets import Footer, Static

from remit.api.deployment import Deployment
from remit.api.executiontaskstatus import Stream
from remit.cli.errors import described
from remit.cli.follow import Selection
from remit.cli.logsources import LogRequest, Target, show
from remit.cli.terminal import harmless
from remit.cli.top import details
from remit.cli.top.actions import Verb
from remit.cli.top.rows import PolicyRow, ReleaseRow, Row, ScheduleRow
from remit.cli.top.widgets import Page
from remit.describe.connection import Connection
from remit.errors import RemitError
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS
from remit.telemetry.logs import escape

if TYPE_CHECKING:
    from remit.cli.top.app import Top

_TAIL: Final = 1_000
"""Lines of output to begin with."""
_PENDING: Final = 5_000
"""Lines that wait to be drawn; of a program that writes faster, the last."""
_REDRAW_SECONDS: Final = 0.25
_MOST_FOLLOWED: Final = 20


def _kind(row: Row) -> str:
    return "release" if isinstance(row, ReleaseRow) else "policy" if isinstance(row, PolicyRow) else "task"


class _Above(Screen[None]):
    """A page with a title, which Esc closes."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,q,left", "app.pop_screen", "Back"),
        Binding("tab,shift+tab", "nothing", show=False),
    ]
    CSS = """
    .title { height: 1; padding: 0 1; background: $panel; color: $text; text-style: bold; }
    """

    def __init__(self, title: str, page: Page) -> None:
        super().__init__()
        self._title, self.page = title, page

    def compose(self) -> ComposeResult:
        yield Static(Text(escape(self._title), no_wrap=True, overflow="ellipsis"), classes="title")
        yield self.page
        yield Footer(show_command_palette=False)

    def on_mount(self) -> None:
        self.page.focus()

    def action_nothing(self) -> None:
        """There is nothing else to go to."""


class Detail(_Above):
    """All about one object, kept up to date."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("l", "logs", "Logs"),
        Binding("c", "ask('cancel')", "Cancel"),
        Binding("p", "ask('promote')", "Promote"),
        Binding("a", "ask('abort')", "Abort"),
        Binding("r", "ask('rerun')", "Rerun"),
    ]

    def __init__(self, connection: Connection, row: Row, operator_namespace: str) -> None:
        super().__init__(f"{_kind(row)} {row.key}", Page(hang=details.HANG, id="detail"))
        self.row, self._operator_namespace = row, operator_namespace
        self._connection = replace(connection, namespace=row.namespace)
        self._decision: list[Text] = []

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Only keys that mean something here are shown."""
        if action == "ask":
            wanted = parameters[0] in {"promote", "abort"}
            return wanted == isinstance(self.row, ReleaseRow) and not isinstance(self.row, PolicyRow | ScheduleRow)
        return not (action == "logs" and isinstance(self.row, PolicyRow))

    def on_mount(self) -> None:
        super().on_mount()
        self.page.replace([Text("looking …", style="dim")])
        self.run_worker(self._keep(), exclusive=True)

    def action_logs(self) -> None:
        self._top.follow(self.row)

    def action_ask(self, verb: Verb) -> None:
        self._top.ask(verb, self._top.board.find(self.row.uid) or self.row)

    @property
    def _top(self) -> Top:
        return self.app  # type: ignore[return-value]

    async def _keep(self) -> None:
        """Look again whenever the board has another version of it."""
        shown = None
        while True:
            row = self._top.board.find(self.row.uid)
            if row is None and shown is not None:
                self.page.append([Text("it was deleted", style="bold red")])
                return
            if row is None or row.version != shown:
                shown = row.version if row is not None else ""
                try:
                    await self._look(again=bool(self._decision))
                except (RemitError, OSError) as error:
                    self.page.append([Text(escape(described(error)), style="red")])
            await self._top.board_changed()

    async def _look(self, *, again: bool) -> None:
        now = datetime.datetime.now(datetime.UTC)
        if isinstance(self.row, PolicyRow):
            self.page.replace(details.policy_lines(await self._connection.find(POLICIES, self.row.name), now))
        elif isinstance(self.row, ReleaseRow):
            self.page.replace(await self._release(now))
        else:
            obj = await self._connection.find(TASKS, self.row.name)
            lines = [*details.task_lines(obj, now), Text()]
            self.page.replace([*lines, *(self._decision or [Text("asking what policies say …", style="dim")])])
            if not again:
                self._decision = await self._decided()
                self.page.replace([*lines, *self._decision])

    async def _release(self, now: datetime.datetime) -> Iterable[Text]:
        from remit.cli.releasedrawing import draw
        from remit.controllers import hooks
        from remit.describe.releasetree import release_tree

        obj = await self._connection.find(DEPLOYMENTS, self.row.name)
        found = await self._connection.kube.list(
            TASKS, self.row.namespace, label_selector=hooks.selector(self.row.name)
        )
        tree = release_tree(
            Deployment.parse(obj), hooks.hook_tasks(obj, found), now, options=f" -n {self.row.namespace}"
        )
        console = self.app.console
        width = max(20, self.page.size.width - 2)
        segments = console.render_lines(draw(tree), console.options.update_width(width), pad=False)
        return [Text.assemble(*((each.text, each.style or "") for each in one)) for one in segments]

    async def _decided(self) -> list[Text]:
        from remit.cli.policytest import facts
        from remit.describe.explained import explain
        from remit.describe.policyyaml import told

        try:
            found = await explain(self._connection, self.row.name, self._operator_namespace)
        except (RemitError, OSError) as error:
            return [details.heading("today's policies say"), details.line("unknown", described(error), "yellow")]
        lines = list(
            details.decision_lines(found.decision.allowed, facts(found.decision), found.objection, found.change)
        )
        left = told(found.suggestion.left_out) if found.suggestion else []
        return [*lines, *(details.line("not by any", text, "yellow") for text in left)]


class Output(_Above):
    """Shows an output as it comes."""

    def __init__(self, connection: Connection, row: Row) -> None:
        super().__init__(f"output of {row.key}", Page(follows=True, id="output"))
        kind: Target = "deploy" if isinstance(row, ReleaseRow) else "task"
        self._connection = replace(connection, namespace=row.namespace)
        selection = Selection(tail=_TAIL, by_line=True)
        self._request = LogRequest(kind, row.name, follow=True, selection=selection, most_followed=_MOST_FOLLOWED)

    def on_mount(self) -> None:
        super().on_mount()
        self.run_worker(self._follow(), exclusive=True)

    async def _follow(self) -> None:
        writer = _PageWriter()
        drawing = asyncio.create_task(self._draw(writer))
        try:
            await show(self._connection, self._request, writer, writer.tell)
            writer.tell("[the end]")
        except (RemitError, OSError) as error:
            writer.lines.append(Text(escape(described(error)), style="red"))
        finally:
            drawing.cancel()
            if self.is_attached:
                self.page.append(writer.take())

    async def _draw(self, writer: _PageWriter) -> None:
        while True:
            if writer.lines:
                self.page.append(writer.take())
            await asyncio.sleep(_REDRAW_SECONDS)


class _PageWriter:
    """A `LogWriter` that keeps lines until they are drawn."""

    streams: tuple[Stream, ...] = ("stdout", "stderr")

    def __init__(self) -> None:
        self.lines: list[Text] = []

    def take(self) -> list[Text]:
        lines, self.lines = self.lines, []
        return lines

    def write(self, stream: Stream, data: bytes) -> None:
        for each in data.removesuffix(b"\n").split(b"\n") if data else ():
            self.write_line(stream, b"", each)

    def write_line(self, stream: Stream, prefix: bytes, line: bytes) -> None:
        text = harmless((prefix + line.removesuffix(b"\n")).decode(errors="replace")).replace("\n", " ")
        self._add(Text(text, style="yellow" if stream == "stderr" else ""))

    def has_colors(self, stream: Stream) -> bool:
        return False

    def tell(self, message: str) -> None:
        self._add(Text(escape(message), style="dim"))

    def _add(self, text: Text) -> None:
        self.lines.append(text)
        if len(self.lines) > 2 * _PENDING:
            del self.lines[:_PENDING]


class Confirm(ModalScreen[bool]):
    """A question that y answers with yes; all other keys are no."""

    CSS = """
    Confirm { align: center middle; background: $background 60%; }
    Confirm > Vertical { width: 70; max-width: 96%; height: auto; padding: 1 2; }
    Confirm > Vertical { border: round $warning; background: $surface; }
    Confirm Static { height: auto; }
    """

    def __init__(self, text: str) -> None:
        super().__init__()
        self._text = text

    def compose(self) -> ComposeResult:
        keys = Text.assemble("\n", ("y", "bold green"), "  yes      ", ("n", "bold red"), "  no", style="")
        with Vertical():
            yield Static(Text(escape(self._text)))
            yield Static(keys)

    def on_key(self, event: Any) -> None:
        event.stop()
        self.dismiss(event.key in {"y", "Y"})


class Help(ModalScreen[None]):
    """The keys."""

    CSS = """
    Help { align: center middle; background: $background 60%; }
    Help > Static { width: 74; max-width: 96%; height: auto; max-height: 96%; padding: 1 2; }
    Help > Static { border: round $primary; background: $surface; }
    """
    KEYS: ClassVar[tuple[tuple[str, str], ...]] = (
        ("Tab, 1-4", "the next table, or that one"),
        ("↑ ↓ PgUp PgDn g G", "move"),
        ("Enter", "all about one: attempts, policy, sides, hooks"),
        ("l", "follow its output"),
        ("/", "filter: all words must occur; Esc ends it"),
        ("c", "cancel the task"),
        ("r", "run a copy of the task"),
        ("p", "promote the release"),
        ("a", "abort the release"),
        ("q, Ctrl-C", "quit"),
    )

    def compose(self) -> ComposeResult:
        lines = [Text.assemble((f"{keys:<19}", "bold cyan"), says) for keys, says in self.KEYS]
        yield Static(
            Text("\n").join(
                [Text("remit top", style="bold"), Text(), *lines, Text(), Text("any key closes this", style="dim")]
            )
        )

    def on_key(self, event: Any) -> None:
        event.stop()
        self.dismiss(None)
