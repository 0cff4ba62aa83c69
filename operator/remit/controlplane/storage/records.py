"""What the store keeps: one immutable record per object, one change per write."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Literal, cast

import orjson

Object = dict[str, Any]
EventType = Literal["ADDED", "MODIFIED", "DELETED"]


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

    @property
    def key(self) -> str:
        """Where the object is within its resource. Sorts as Kubernetes lists do."""
        return object_key(self.namespace, self.name)

    def load(self) -> Object:
        """A fresh copy of the object, the caller's to change."""
        return cast(Object, orjson.loads(self.raw))

    @classmethod
    def of(cls, obj: Object, revision: int) -> Record:
        metadata = obj["metadata"]
        return cls(
            namespace=metadata.get("namespace") or "",
            name=metadata["name"],
            revision=revision,
            uid=metadata.get("uid") or "",
            labels=metadata.get("labels") or {},
            owners=tuple(owner["uid"] for owner in metadata.get("ownerReferences") or ()),
            raw=orjson.dumps(obj),
        )


def object_key(namespace: str, name: str) -> str:
    return f"{namespace}/{name}" if namespace else name


@dataclass(slots=True)
class Change:
    """One write, and after its commit one watch event. `previous` is the record it replaced."""

    resource: str
    record: Record
    previous: Record | None
    deleted: bool = False
    encoded: dict[str, bytes] = field(default_factory=dict)
    """Watch lines already encoded for this change, shared by all watchers that want the same form."""

    @property
    def type(self) -> EventType:
        if self.deleted:
            return "DELETED"
        return "MODIFIED" if self.previous else "ADDED"
