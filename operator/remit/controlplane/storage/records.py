"""The data of the store: one immutable record per object, one change per write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple, TypeVar, cast

import orjson

Object = dict[str, Any]
EventType = Literal["ADDED", "MODIFIED", "DELETED"]
T = TypeVar("T")

CHANGE_BYTES = 1024
"""Approximate memory of a change and its record without their JSON."""


@dataclass(frozen=True, slots=True)
class Record:
    """One revision of one object. `raw` is its JSON in the storage version, `apiVersion` and `kind` first."""

    namespace: str
    name: str
    revision: int
    uid: str
    labels: dict[str, str]
    owners: tuple[str, ...]
    raw: bytes
    shown: tuple[object, bytes] | None = field(default=None, init=False, compare=False, repr=False)
    """The schema by which it was last shown, and how: see `remember_shown`."""

    @property
    def key(self) -> str:
        """The key of the object within its resource. Keys sort as Kubernetes' lists do."""
        return object_key(self.namespace, self.name)

    def load(self) -> Object:
        """A fresh copy of the object as it is stored, the caller's to change."""
        return cast(Object, orjson.loads(self.raw))

    def remember_shown(self, schema: object, shown: bytes) -> None:
        """Keep how `schema` shows the object: what is stored may be older than the schema and stays as it is."""
        object.__setattr__(self, "shown", (schema, shown))

    @classmethod
    def of(cls, obj: Object, revision: int) -> Record:
        """Raises ValueError for an object that the store cannot index: its metadata is malformed."""
        metadata = _typed(obj, dict, "the object")["metadata"] if "metadata" in obj else {}
        labels = _typed(_typed(metadata, dict, "metadata").get("labels") or {}, dict, "metadata.labels")
        owners = _typed(metadata.get("ownerReferences") or [], list, "metadata.ownerReferences")
        return cls(
            namespace=_typed(metadata.get("namespace") or "", str, "metadata.namespace"),
            name=_typed(metadata.get("name"), str, "metadata.name"),
            revision=revision,
            uid=_typed(metadata.get("uid") or "", str, "metadata.uid"),
            labels={key: _typed(value, str, "metadata.labels") for key, value in labels.items()},
            owners=tuple(_owner(owner) for owner in owners),
            raw=compact(orjson.dumps(obj)),
        )


def compact(encoded: bytes) -> bytes:
    """A copy of no more than its size: what orjson gives keeps its buffer, which may be ten times as large."""
    return bytes(memoryview(encoded))


def _typed(value: Any, expected: type[T], what: str) -> T:
    if not isinstance(value, expected):
        raise ValueError(f"{what} is {type(value).__name__}, not {expected.__name__}")  # noqa: TRY004 - bad data
    return value


def _owner(reference: Any) -> str:
    where = "metadata.ownerReferences"
    return _typed(_typed(reference, dict, where).get("uid"), str, f"{where}.uid")


def object_key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


@dataclass(slots=True)
class Change:
    """One write, and after its commit one watch event. `previous` is the record it replaced."""

    resource: str
    record: Record
    previous: Record | None
    deleted: bool = False

    @property
    def type(self) -> EventType:
        if self.deleted:
            return "DELETED"
        return "MODIFIED" if self.previous else "ADDED"

    @property
    def held_bytes(self) -> int:
        """Memory that the change holds: what it replaced, which nothing but history needs, and itself."""
        held = CHANGE_BYTES + (len(self.previous.raw) if self.previous else 0)
        return held + (len(self.record.raw) if self.deleted else 0)


class Unreadable(NamedTuple):
    """A revision in the journal that cannot be read as an object, and why."""

    resource: str
    namespace: str
    name: str
    revision: int
    deleted: bool
    error: str

    @property
    def key(self) -> str:
        return object_key(self.namespace, self.name)
