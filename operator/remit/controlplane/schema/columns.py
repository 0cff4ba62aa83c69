"""Computes what `kubectl get` shows: printer columns, of custom resources and of the built-in kinds."""

from __future__ import annotations

import datetime
import json
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from remit.controlplane.schema.formats import parse_date_time
from remit.controlplane.schema.jsonpath import compile_path

Find = Callable[[dict[str, Any]], list[Any]]
Cell = Callable[[dict[str, Any], datetime.datetime], Any]

_ESCAPED_IN_JSON: Final = {ord(character): f"\\u{ord(character):04x}" for character in "<>&\u2028\u2029"}
_NAME: Final = {
    "name": "Name",
    "type": "string",
    "format": "name",
    "description": (
        "Name must be unique within a namespace. Is required when creating resources, although some resources may allow"
        " a client to request the generation of an appropriate name automatically. Name is primarily intended for"
        " creation idempotence and configuration definition. Cannot be updated. More info:"
        " https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
    ),
    "priority": 0,
}
_CREATED: Final = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed"
    " to be set in happens-before order across separate operations. Clients may not set this value. It is represented"
    " in RFC3339 form and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info:"
    " https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
_AGE: Final = {"name": "Age", "type": "date", "description": _CREATED, "jsonPath": ".metadata.creationTimestamp"}


class Columns:
    """The columns of one resource, from a CRD's `additionalPrinterColumns` or for a built-in kind by its name."""

    def __init__(self, source: Sequence[dict[str, Any]] | str) -> None:
        declared = (
            _BUILTIN.get(source, [_builtin_age()])
            if isinstance(source, str)
            else [_custom(c, find) for c, find in _readable(source or [_AGE])]
        )
        name = _path(".metadata.name")
        # For Events, what happened matters most, so the name is the last column and shown only in the wide form.
        columns = [*declared, ({**_NAME, "priority": 1}, name)] if source == "Event" else [(_NAME, name), *declared]
        self.definitions: list[dict[str, Any]] = [definition for definition, _ in columns]
        self._cells = [cell for _, cell in columns]

    def cells(self, obj: dict[str, Any], now: datetime.datetime) -> list[Any]:
        """The row for `obj`, in the order of the definitions. What is not there is null."""
        return [cell(obj, now) for cell in self._cells]


def human_duration(span: datetime.timedelta) -> str:
    """A duration as kubectl writes an age: `42s`, `3m12s`, `5h`, `12d`."""
    seconds = int(span.total_seconds())
    if seconds < -1:
        return "<invalid>"
    if seconds < 0:
        return "0s"
    minutes, hours, days, years = seconds // 60, seconds // 3600, seconds // 86400, seconds // 31_536_000
    if seconds < 120:
        return f"{seconds}s"
    if minutes < 10:
        return _two(minutes, "m", seconds % 60, "s")
    if minutes < 180:
        return f"{minutes}m"
    if hours < 8:
        return _two(hours, "h", minutes % 60, "m")
    if hours < 48:
        return f"{hours}h"
    if days < 8:
        return _two(days, "d", hours % 24, "h")
    if years < 2:
        return f"{days}d"
    return _two(years, "y", days % 365, "d") if years < 8 else f"{years}y"


def _two(large: int, large_unit: str, small: int, small_unit: str) -> str:
    return f"{large}{large_unit}{small}{small_unit}" if small else f"{large}{large_unit}"


def _readable(columns: Sequence[dict[str, Any]]) -> Iterator[tuple[dict[str, Any], Find]]:
    """The columns before the first whose path cannot be read. Like kube-apiserver, a CRD may have any path there."""
    for column in columns:
        try:
            find = compile_path(column["jsonPath"])
        except ValueError:
            return
        yield column, find


def _custom(column: dict[str, Any], find: Find) -> tuple[dict[str, Any], Cell]:
    definition = {
        "name": column["name"],
        "type": column["type"],
        "format": column.get("format", ""),
        "description": column.get("description")
        or f"Custom resource definition column (in JSONPath format): {column['jsonPath']}",
        "priority": column.get("priority", 0),
    }
    type_ = column["type"]

    def cell(obj: dict[str, Any], now: datetime.datetime) -> Any:
        found = find(obj)
        if not found:
            return None
        return _printed(found[0]) if type_ == "string" else _typed(type_, found[0], now)

    return definition, cell


def _typed(type_: str, value: Any, now: datetime.datetime) -> Any:
    match type_:
        case "date":
            return age(value, now)
        case "integer":
            number = isinstance(value, int | float) and not isinstance(value, bool)
            return int(value) if number and abs(value) < 1 << 63 else None
        case "number":
            return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None
        case "boolean":
            return value if isinstance(value, bool) else None
    return None


def _printed(value: Any) -> str:
    """A value as Go prints it: nothing for an absent one, and objects in the order of their keys."""
    if value is None or isinstance(value, str):
        return "<no value>" if value is None else value
    text = json.dumps(value, separators=(",", ":"), ensure_ascii=False, sort_keys=True)
    return text.translate(_ESCAPED_IN_JSON)


def age(value: Any, now: datetime.datetime) -> str:
    """How long ago a time was, for people."""
    if not isinstance(value, str):
        return "<unknown>" if value is None else "<invalid>"
    try:
        return human_duration(now - parse_date_time(value))
    except ValueError:
        return "<invalid>"


def _column(name: str, cell: Cell, type_: str = "string", priority: int = 0) -> tuple[dict[str, Any], Cell]:
    return {"name": name, "type": type_, "format": "", "description": "", "priority": priority}, cell


def _path(text: str, otherwise: Any = "") -> Cell:
    find = compile_path(text)
    return lambda obj, now: next(iter(find(obj)), otherwise)


def _builtin_age() -> tuple[dict[str, Any], Cell]:
    definition = {"name": "Age", "type": "string", "format": "", "description": _CREATED, "priority": 0}
    return definition, lambda obj, now: age(obj["metadata"].get("creationTimestamp"), now)


def _count(*fields: str) -> Cell:
    return lambda obj, now: sum(len(obj.get(field) or {}) for field in fields)


def _event_object(obj: dict[str, Any], now: datetime.datetime) -> str:
    about = obj.get("involvedObject") or obj.get("regarding") or {}
    return f"{about.get('kind', '').lower()}/{about.get('name', '')}"


def _event_seen(*fields: str) -> Cell:
    def cell(obj: dict[str, Any], now: datetime.datetime) -> str:
        series = obj.get("series") or {}
        found = series.get("lastObservedTime") if "lastTimestamp" in fields else None
        return age(found or next((obj[field] for field in fields if obj.get(field)), None), now)

    return cell


def _event_source(obj: dict[str, Any], now: datetime.datetime) -> str:
    source = obj.get("source") or {}
    component = source.get("component") or obj.get("reportingComponent") or obj.get("reportingController") or ""
    return f"{component}, {source['host']}" if source.get("host") else component


def _controller(obj: dict[str, Any], now: datetime.datetime) -> str:
    owner = next((ref for ref in obj["metadata"].get("ownerReferences") or () if ref.get("controller")), None)
    if owner is None:
        return "<none>"
    group = owner["apiVersion"].rpartition("/")[0]
    return f"{owner['kind'].lower()}{'.' + group if group else ''}/{owner['name']}"


_BUILTIN: Final[dict[str, list[tuple[dict[str, Any], Cell]]]] = {
    "Namespace": [_column("Status", _path(".status.phase")), _builtin_age()],
    "ConfigMap": [_column("Data", _count("data", "binaryData")), _builtin_age()],
    "Secret": [_column("Type", _path(".type")), _column("Data", _count("data")), _builtin_age()],
    "Lease": [_column("Holder", _path(".spec.holderIdentity")), _builtin_age()],
    "ControllerRevision": [
        _column("Controller", _controller),
        _column("Revision", _path(".revision", 0), "integer"),
        _builtin_age(),
    ],
    "CustomResourceDefinition": [
        (
            {"name": "Created At", "type": "date", "format": "", "description": _CREATED, "priority": 0},
            _path(".metadata.creationTimestamp", None),
        )
    ],
    "Event": [
        _column("Last Seen", _event_seen("lastTimestamp", "firstTimestamp", "eventTime")),
        _column("Type", _path(".type")),
        _column("Reason", _path(".reason")),
        _column("Object", _event_object),
        _column("Subobject", _path(".involvedObject.fieldPath"), priority=1),
        _column("Source", _event_source, priority=1),
        _column("Message", lambda obj, now: (obj.get("message") or obj.get("note") or "").strip()),
        _column("First Seen", _event_seen("firstTimestamp", "eventTime"), priority=1),
        _column(
            "Count", lambda obj, now: (obj.get("series") or {}).get("count") or obj.get("count") or 1, "integer", 1
        ),
    ],
}
