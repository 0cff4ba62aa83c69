"""Who owns which field: `metadata.managedFields`, and how a create, update or patch changes it."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any, Final, NamedTuple, Protocol

from remit.controlplane.schema.fieldset import (
    FieldSet,
    Path,
    SchemaDict,
    compare,
    decode,
    encode,
    object_schema,
)
from remit.controlplane.schema.formats import timestamp

_UPDATERS_KEPT: Final = 10
_ANCIENT: Final = "ancient-changes"
_NOBODYS: Final = frozenset(
    {("f:apiVersion",), ("f:kind",), ("f:metadata",)}
    | {
        ("f:metadata", f"f:{name}")
        for name in (
            "name", "namespace", "creationTimestamp", "selfLink", "uid", "clusterName", "generation", "managedFields",
            "resourceVersion",
        )
    }
)  # fmt: skip
"""Fields that belong to the server, or say which object it is."""


class HasRaw(Protocol):
    """A compiled schema, of which the OpenAPI v3 dict is needed."""

    @property
    def raw(self) -> SchemaDict: ...


class ManagerKey(NamedTuple):
    """Whose entry it is. An applier keeps its entry when it moves to another API version, an updater does not."""

    operation: str
    manager: str
    api_version: str
    subresource: str


@dataclass(frozen=True)
class Entry:
    """One manager's fields. `time` is RFC 3339; empty when the manager never changed a value."""

    manager: str
    operation: str
    api_version: str
    subresource: str
    time: str
    fields: FieldSet

    @property
    def identity(self) -> ManagerKey:
        version = "" if self.operation == "Apply" else self.api_version
        return ManagerKey(self.operation, self.manager, version, self.subresource)


Managers = dict[ManagerKey, Entry]


def track_update(
    old: dict[str, Any] | None,
    new: dict[str, Any],
    *,
    manager: str,
    schema: HasRaw | None,
    api_version: str,
    now: datetime,
    subresource: str | None = None,
) -> None:
    """Write in `new` that `manager` owns what differs from `old`, and that nobody else does any more.

    A client may write managedFields itself; `[{}]` gives up all ownership. Without any, those of `old` go on; an
    object that has none is not tracked until somebody applies to it.
    """
    given = new["metadata"].pop("managedFields", None)
    if given == [{}]:
        return
    managers = read(given) or read((old or {}).get("metadata", {}).get("managedFields"))
    if old is not None and not managers:
        return
    changed = compare(unmanaged(old or {}), unmanaged(new), object_schema(schema.raw if schema else None))
    taken = changed.added | changed.modified
    managers = release(managers, taken | changed.removed)
    mine = taken - _NOBODYS
    if mine:
        fresh = Entry(manager, "Update", api_version, subresource or "", timestamp(now), mine)
        before = managers.get(fresh.identity)
        managers[fresh.identity] = replace(fresh, fields=mine | before.fields) if before else fresh
        managers = _capped(managers)
    write(new, managers)


def read(entries: Any) -> Managers:
    """Entries by identity. If one cannot be understood, all count as absent, as kube-apiserver has it."""
    managers: Managers = {}
    try:
        for raw in entries or ():
            if raw["operation"] not in ("Apply", "Update") or raw["fieldsType"] != "FieldsV1":
                return {}
            fields = decode(raw.get("fieldsV1") or {})
            entry = Entry(
                raw.get("manager", ""),
                raw["operation"],
                raw["apiVersion"],
                raw.get("subresource", ""),
                raw.get("time") or "",
                fields,
            )
            managers[entry.identity] = entry
    except (AttributeError, KeyError, TypeError):
        return {}
    return managers


def write(obj: dict[str, Any], managers: Managers) -> None:
    """Put the managers into the object, in the order of a kube-apiserver: operation, time, manager."""
    ordered = sorted(managers.values(), key=lambda e: (e.operation, e.time, e.manager, e.api_version, e.subresource))
    entries = [_shown(entry) for entry in ordered]
    if entries:
        obj["metadata"]["managedFields"] = entries
    else:
        obj["metadata"].pop("managedFields", None)


def _shown(entry: Entry) -> dict[str, Any]:
    shown: dict[str, Any] = {
        "manager": entry.manager,
        "operation": entry.operation,
        "apiVersion": entry.api_version,
        "time": entry.time,
        "fieldsType": "FieldsV1",
        "fieldsV1": encode(entry.fields),
        "subresource": entry.subresource,
    }
    return {key: value for key, value in shown.items() if value != "" or key == "manager"}


def release(managers: Managers, fields: FieldSet) -> Managers:
    """The managers without `fields`; who is left with nothing is left out."""
    remaining = {identity: entry.fields - fields for identity, entry in managers.items()}
    return {identity: replace(managers[identity], fields=kept) for identity, kept in remaining.items() if kept}


def ownable(fields: Iterable[Path]) -> FieldSet:
    return frozenset(fields) - _NOBODYS


def unmanaged(obj: dict[str, Any]) -> dict[str, Any]:
    """`obj` as field ownership sees it: no record of ownership, no empty metadata. Shares all below metadata."""
    metadata = {key: value for key, value in obj.get("metadata", {}).items() if value and key != "managedFields"}
    return {**obj, "metadata": metadata}


def _capped(managers: Managers) -> Managers:
    """Fold the oldest updaters of one API version into one entry, so that short-lived names do not pile up."""
    updaters = sorted((e for e in managers.values() if e.operation == "Update"), key=lambda e: (e.time, e.manager))
    excess = len(updaters) - _UPDATERS_KEPT
    for entry in updaters[: excess + 1 if excess > 0 else 0]:
        del managers[entry.identity]
        folded = Entry(_ANCIENT, "Update", entry.api_version, "", entry.time, entry.fields)
        before = managers.get(folded.identity)
        managers[folded.identity] = replace(folded, fields=folded.fields | before.fields) if before else folded
    return managers
