"""Objects as tables for people, and as YAML or JSON for programs."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from rich import box
from rich.console import Console, Group, RenderableType
from rich.table import Table
from rich.text import Text

from remit.api.operationnames import OPERATIONS
from remit.api.phases import DeploymentPhase, Phase
from remit.describe.ages import age
from remit.execution.durations import human_duration
from remit.telemetry.logs import escape

Object = dict[str, Any]

_COLOURS: Final = {
    Phase.RUNNING: "cyan",
    Phase.SUCCEEDED: "green",
    Phase.BACKOFF: "yellow",
    Phase.QUEUED: "yellow",
    Phase.PENDING: "yellow",
    Phase.FAILED: "red",
    Phase.TIMED_OUT: "red",
    Phase.DENIED: "red",
    Phase.CANCELLED: "magenta",
}


_RELEASE_COLOURS: Final = {
    DeploymentPhase.HEALTHY: "green",
    DeploymentPhase.PROGRESSING: "cyan",
    DeploymentPhase.DEGRADED: "red",
    DeploymentPhase.FAILED: "red",
}


def console() -> Console:
    """Standard output; where that is no terminal, as wide as it takes: nothing is cut from what a program reads."""
    probe = Console(highlight=False)
    return probe if probe.is_terminal else Console(highlight=False, width=10_000)


def redraws(screen: Console) -> bool:
    """Whether what it shows can be drawn anew in place: a terminal that moves its cursor, so none with TERM=dumb."""
    return screen.is_terminal and not screen.is_dumb_terminal


class Watch:
    """Tables, one for each kind, that are drawn anew in place on a terminal; elsewhere, the rows that changed. Use as a
    context manager.

    What does not fit on the terminal would scroll away with each drawing, so the objects that changed last are shown,
    or the first ones where the order is the user's own (`in_order`), one line each, and the others are counted.
    """

    def __init__(self, *, wide: bool, namespaces: bool, in_order: bool = False) -> None:
        self._wide, self._namespaces, self._in_order = wide, namespaces, in_order
        self._console = console()
        from rich.live import Live

        self._live = Live(console=self._console, auto_refresh=False, vertical_overflow="crop")
        self._shown: dict[str, str] = {}
        self._headed = ""

    def __enter__(self) -> Watch:
        if redraws(self._console):
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def update(self, found: Mapping[str, Sequence[Object]]) -> None:
        """The objects of each kind, in order."""
        if redraws(self._console):
            self._live.update(
                self._frame({plural: objects for plural, objects in found.items() if objects}), refresh=True
            )
            return
        versions: dict[str, str] = {}
        for plural, objects in found.items():
            of_kind = {obj["metadata"]["uid"]: obj["metadata"]["resourceVersion"] for obj in objects}
            changed = [obj for obj in objects if self._shown.get(uid := obj["metadata"]["uid"]) != of_kind[uid]]
            versions |= of_kind
            if changed:
                drawn = self._table(plural, changed)
                drawn.show_header = self._headed != plural
                self._headed = plural
                self._console.print(drawn)
                self._console.file.flush()
        self._shown = versions

    def _frame(self, found: Mapping[str, Sequence[Object]]) -> RenderableType:
        room = self._console.height - _AROUND_ROWS * len(found) - _BELOW_ROWS
        rows = shares({plural: len(objects) for plural, objects in found.items()}, room)
        shown = {
            plural: objects[: rows[plural]] if self._in_order else last_changed(objects, rows[plural])
            for plural, objects in found.items()
        }
        left_out = {plural: left for plural, objects in found.items() if (left := len(objects) - rows[plural])}
        if not left_out:
            whole = Group(*(self._table(plural, objects) for plural, objects in shown.items()))
            if len(self._console.render_lines(whole)) < self._console.height:
                return whole
        drawn: list[RenderableType] = [self._table(plural, objects, one_line=True) for plural, objects in shown.items()]
        if left_out:
            counted = " and ".join(f"{left}{f' {plural}' * (len(found) > 1)}" for plural, left in left_out.items())
            which = "more" if self._in_order else "that changed before these"
            drawn.append(Text(f"… and {counted} {which}; remit get shows all"))
        return Group(*drawn)

    def _table(self, plural: str, objects: Sequence[Object], *, one_line: bool = False) -> Table:
        return table(plural, objects, wide=self._wide, namespaces=self._namespaces, one_line=one_line)


def shares(wanted: Mapping[str, int], room: int) -> dict[str, int]:
    """How many rows of `room` each has, and at least one: equal shares, and what one has no use for is the others'."""
    given: dict[str, int] = {}
    for name in sorted(wanted, key=lambda name: wanted[name]):
        given[name] = min(wanted[name], max(1, room // (len(wanted) - len(given))))
        room -= given[name]
    return given


def last_changed(objects: Sequence[Object], most: int) -> Sequence[Object]:
    """At most `most` objects, those that changed last, in the given order."""
    if len(objects) <= most:
        return objects
    latest = sorted(objects, key=lambda obj: int(obj["metadata"]["resourceVersion"]), reverse=True)[:most]
    kept = {obj["metadata"]["uid"] for obj in latest}
    return [obj for obj in objects if obj["metadata"]["uid"] in kept]


def show(plural: str, objects: Sequence[Object], *, wide: bool, namespaces: bool) -> None:
    console().print(table(plural, objects, wide=wide, namespaces=namespaces))


def table(plural: str, objects: Sequence[Object], *, wide: bool, namespaces: bool, one_line: bool = False) -> Table:
    """The objects in the order in which they are given. `one_line`: messages are cut off instead of folded."""
    now = datetime.datetime.now(datetime.UTC)
    headers = [*(["NAMESPACE"] if namespaces else []), *_TABLES[plural][0][wide]]
    rows = [
        [*([_plain(obj["metadata"].get("namespace", ""))] if namespaces else []), *row(plural, obj, now, wide=wide)]
        for obj in objects
    ]
    return filled(headers, rows, one_line=one_line)


def row(plural: str, obj: Object, now: datetime.datetime, *, wide: bool) -> list[Text]:
    """The cells of one object, as an API server gave it: to build the models of its kind takes longer than all else
    that a table needs."""
    return _TABLES[plural][1](obj, now, wide)


def filled(headers: Sequence[str], rows: Sequence[Sequence[Text]], *, one_line: bool = False) -> Table:
    """A table of what there is room for: some columns, artifacts cut off at their beginnings, messages folded."""
    width = console().width
    drawn, shown = plain_table(), fitting(headers, rows, width)
    room = _room(headers, rows, shown, width)
    for index in shown:
        message = headers[index] == "MESSAGE"
        drawn.add_column(
            headers[index],
            overflow="fold" if message and not one_line else "ellipsis",
            no_wrap=not message or one_line,
            max_width=room["MESSAGE"] if message and one_line else None,
        )
    for cells in rows:
        drawn.add_row(
            *(_end(cells[index], room[headers[index]] if headers[index] in _ENDS_TELL else None) for index in shown)
        )
    return drawn


def listing(headers: Sequence[str], rows: Sequence[Sequence[str]]) -> Table:
    """A table of plain words, folded where they are too long."""
    drawn = plain_table()
    for header in headers:
        drawn.add_column(header, overflow="fold")
    for row in rows:
        drawn.add_row(*(Text(cell) for cell in row))
    return drawn


def fitting(headers: Sequence[str], rows: Sequence[Sequence[Text]], width: int) -> list[int]:
    """The columns that `width` characters have room for: a name that is cut off is of no use to anybody, so whole
    columns go, those first that can be missed most easily. A message folds, and needs only some room, and so does an
    artifact, of which the end tells it from others."""
    needed = _widths(headers, rows)
    for header, least in _LEAST_ROOM.items():
        if header in needed:
            needed[header] = min(needed[header], least)
    for header in _MISSED_LEAST:
        if sum(needed.values()) + _BETWEEN * len(needed) <= width:
            break
        needed.pop(header, None)
    return [index for index, header in enumerate(headers) if header in needed]


def _widths(headers: Sequence[str], rows: Sequence[Sequence[Text]]) -> dict[str, int]:
    return {header: max(len(header), *(row[index].cell_len for row in rows), 0) for index, header in enumerate(headers)}


def _room(headers: Sequence[str], rows: Sequence[Sequence[Text]], shown: Sequence[int], width: int) -> dict[str, int]:
    """How wide the columns may be that need not be whole, so that the others are."""
    widths = {header: size for header, size in _widths(headers, rows).items() if headers.index(header) in shown}
    if "MESSAGE" in widths:
        widths["MESSAGE"] = min(widths["MESSAGE"], _LEAST_ROOM["MESSAGE"])
    cut = [header for header in _ENDS_TELL if header in widths]
    excess = sum(widths.values()) + _BETWEEN * len(widths) - width
    while excess > 0 and (widest := max(cut, key=lambda each: widths[each], default=None)):
        if widths[widest] <= _LEAST_ROOM[widest]:
            break
        widths[widest] -= 1
        excess -= 1
    spare = max(0, width - sum(widths.values()) - _BETWEEN * len(widths))
    return {header: widths[header] + spare * (header == "MESSAGE") for header in _LEAST_ROOM if header in widths}


def _end(cell: Text, room: int | None) -> Text:
    """The end of a cell that does not fit in `room`; None: it fits."""
    if room is None or cell.cell_len <= room:
        return cell
    return Text("…" + cell.plain[-max(1, room - 1) :], style=cell.style)


def plain_table(*headers: str) -> Table:
    """Columns alone where a program reads them; on a terminal with a rule below the headers."""
    drawn = Table(box=box.SIMPLE_HEAD if console().is_terminal else None, pad_edge=False, header_style="bold")
    for header in headers:
        drawn.add_column(header)
    return drawn


def dump(document: Any, form: str) -> str:
    """YAML or JSON, without the trailing newline."""
    text = _dumped(document, form, ascii_only=False)
    lines = text.split("\n")
    # The text contains control characters that a terminal would interpret.
    if any(escape(line) != line for line in lines):
        text = _dumped(document, form, ascii_only=True).replace("\x7f", "\\u007f")
    return text


def _dumped(document: Any, form: str, *, ascii_only: bool) -> str:
    if form == "json":
        return json.dumps(document, indent=2, ensure_ascii=ascii_only)
    import yaml

    from remit import safeyaml

    text: str = yaml.dump(document, Dumper=safeyaml.Dumper, sort_keys=False, allow_unicode=not ascii_only)
    return text.rstrip("\n")


def as_list(objects: Sequence[Object]) -> Object:
    return {"apiVersion": "v1", "kind": "List", "items": list(objects)}


_LEAST_ROOM: Final = {"MESSAGE": 24, "ACTIVE": 16, "PREVIEW": 16, "ARTIFACT": 16}
_ENDS_TELL: Final = ("ACTIVE", "PREVIEW", "ARTIFACT")
"""What is cut off at the beginning: versions of one artifact differ at the end."""
_AROUND_ROWS: Final = 4
"""Lines of a table that are no rows: the header with its rule, blanks."""
_BELOW_ROWS: Final = 2
"""Lines below all tables: how many are left out, the cursor's."""
_BETWEEN: Final = 3
"""Blanks from one column to the next."""
_MISSED_LEAST: Final = (
    "TOOK", "RULE", "BACKEND", "OPERATION", "STRATEGY", "POLICY", "EXIT", "ATTEMPTS", "ENFORCEMENT", "DURATION", "AGE",
    "DENIED", "ALLOWED", "DEPLOYED", "STAGE", "PREVIEW", "OUTCOME", "MESSAGE",
)  # fmt: skip
"""What a table is shown without, in this order, where a terminal is too narrow for all of it."""

_TASK: Final = {
    False: ["NAME", "OPERATION", "BACKEND", "PHASE", "ATTEMPTS", "DURATION", "AGE", "MESSAGE"],
    True: ["NAME", "OPERATION", "BACKEND", "PHASE", "ATTEMPTS", "DURATION", "AGE", "POLICY", "RULE", "EXIT", "MESSAGE"],
}
_POLICY: Final = {
    False: ["NAME", "READY", "ENFORCEMENT", "ALLOWED", "DENIED", "AGE"],
    True: ["NAME", "READY", "ENFORCEMENT", "ALLOWED", "DENIED", "AGE", "MESSAGE"],
}
_DEPLOYMENT: Final = {
    False: ["NAME", "PHASE", "STAGE", "ACTIVE", "PREVIEW", "READY", "AGE"],
    True: ["NAME", "PHASE", "STAGE", "ACTIVE", "PREVIEW", "READY", "AGE", "STRATEGY", "MESSAGE"],
}


def _task(obj: Object, now: datetime.datetime, wide: bool) -> list[Text]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    phase, started = status.get("phase") or Phase.PENDING, _moment(status.get("startTime"))
    row = [
        _word(obj["metadata"], "name"),
        _plain(status.get("operation") or next((name for name in OPERATIONS if name in spec), "")),
        _plain(status.get("backend") or spec.get("backend") or ""),
        Text(escape(str(phase)), style=_COLOURS.get(phase, "")),
        _plain(str(status.get("attemptCount", 0))),
        _plain(status.get("duration") or (human_duration(now - started) if started else "")),
        _age(obj, now),
    ]
    if wide:
        policy, exit_code = status.get("policy") or {}, status.get("exitCode")
        row += [_word(policy, "name"), _word(policy, "rule"), _plain("" if exit_code is None else str(exit_code))]
    return [*row, _word(status, "message")]


def _policy(obj: Object, now: datetime.datetime, wide: bool) -> list[Text]:
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    conditions = status.get("conditions") or []
    ready: Object = next((condition for condition in conditions if condition.get("type") == "Ready"), {})
    truth = ready.get("status", "Unknown")
    row = [
        _word(obj["metadata"], "name"),
        Text(escape(truth), style={"True": "green", "False": "red"}.get(truth, "yellow")),
        _plain(spec.get("enforcement", "Enforce")),
        _plain(str(status.get("allowed", 0))),
        _plain(str(status.get("denied", 0))),
        _age(obj, now),
    ]
    return [*row, _word(ready, "message")] if wide else row


def _deployment(obj: Object, now: datetime.datetime, wide: bool) -> list[Text]:
    """The columns that kubectl shows, which are the printer columns of the kind."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    phase = status.get("phase") or DeploymentPhase.PENDING
    row = [
        _word(obj["metadata"], "name"),
        Text(escape(str(phase)), style=_RELEASE_COLOURS.get(phase, "yellow")),
        *(_word(status, name) for name in ("stage", "active", "preview", "ready")),
        _age(obj, now),
    ]
    strategy = (spec.get("strategy") or {}).get("type", "BlueGreen")
    return [*row, _plain(strategy), _word(status, "message")] if wide else row


def _word(mapping: Object, key: str) -> Text:
    return _plain(str(mapping.get(key) or ""))


def _age(obj: Object, now: datetime.datetime) -> Text:
    return _plain(age(_moment(obj["metadata"].get("creationTimestamp")), now))


def _moment(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None


def _plain(text: str) -> Text:
    return Text(escape(text))


_TABLES: Final[dict[str, tuple[dict[bool, list[str]], Callable[[Object, datetime.datetime, bool], list[Text]]]]] = {
    "tasks": (_TASK, _task),
    "policies": (_POLICY, _policy),
    "deployments": (_DEPLOYMENT, _deployment),
}
