"""The environment of every verb: the store, what is served from it, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import orjson

from remit.controlplane.resources import Registry, ServedResource
from remit.controlplane.schema.celcost import Budget
from remit.controlplane.storage import Object, Record, Store, compact


def utc_now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True)
class Cluster:
    store: Store
    registry: Registry
    now: Callable[[], datetime] = field(default=utc_now)

    def rule_budget(self) -> Budget:
        return Budget(on_loop=True)


class WriteStore(Protocol):
    """The part of `Store` that a write uses."""

    def latest(self, resource: str, namespace: str, name: str) -> Record | None: ...

    def put(self, resource: str, obj: Object) -> Record: ...

    def remove(self, resource: str, obj: Object) -> Record: ...


class Writer(Protocol):
    """The environment of verbs that create, update and patch: `Cluster` on the event loop, `Aside` in a thread."""

    @property
    def store(self) -> WriteStore: ...

    @property
    def now(self) -> Callable[[], datetime]: ...

    def rule_budget(self) -> Budget: ...


@dataclass(frozen=True)
class RequestInfo:
    """The object, or the collection when `name` is empty, that a request is about."""

    resource: ServedResource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def view(resource: ServedResource, record: Record) -> bytes:
    """A stored object as this version of the resource shows it.

    A custom resource is pruned and defaulted by its schema as it is now, as kube-apiserver does when it reads from
    etcd: a field that leaves the CRD and comes back has its value again.
    """
    if not resource.custom:
        return record.raw if resource.conversion is None else orjson.dumps(convert(resource, record.load()))
    schema = resource.stored_schema or resource.schema
    remembered = record.shown  # read once, because a thread with another schema may replace it meanwhile
    if remembered is not None and remembered[0] is schema:
        shown = remembered[1]
    else:
        encoded = orjson.dumps(_through_stored_schema(resource, record.load()))
        shown = record.raw if encoded == record.raw else compact(encoded)
        record.remember_shown(schema, shown)
    if resource.version == resource.storage_version:
        return shown
    return orjson.dumps(_through_own_schema(resource, orjson.loads(shown)))


def load(resource: ServedResource, record: Record) -> Object:
    """Like `view`, as a fresh object, the caller's to change."""
    obj: Object = orjson.loads(view(resource, record))
    return obj


def convert(resource: ServedResource, obj: Object) -> Object:
    """A stored object of the caller's as this version of the resource shows it."""
    if resource.conversion is not None:
        return resource.conversion.to_view(obj)
    if not resource.custom:
        return obj
    obj = _through_stored_schema(resource, obj)
    return obj if resource.version == resource.storage_version else _through_own_schema(resource, obj)


def _through_stored_schema(resource: ServedResource, obj: Object) -> Object:
    schema = resource.stored_schema or resource.schema
    obj["apiVersion"] = f"{resource.group}/{resource.storage_version}"
    schema.prune(obj)
    schema.default(obj)
    return obj


def _through_own_schema(resource: ServedResource, obj: Object) -> Object:
    """Without defaults: of what is stored, only the version that it is stored in has some."""
    obj["apiVersion"] = resource.api_version
    resource.schema.prune(obj)
    return obj


def to_storage(resource: ServedResource, obj: Object) -> Object:
    """The stored form of an object of this version: apiVersion and kind come first."""
    if resource.conversion is not None:
        return resource.conversion.to_storage(obj)
    group = f"{resource.group}/" if resource.group else ""
    return {"apiVersion": group + resource.storage_version, "kind": resource.kind, **_without_type(obj)}


def _without_type(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
