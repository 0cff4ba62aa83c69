"""What every verb works on: the store, what is served from it, and the clock."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from remit.controlplane.resources import Registry, Resource
from remit.controlplane.storage import Object, Store


def utc_now() -> datetime:
    return datetime.now(UTC)


def timestamp(moment: datetime) -> str:
    """RFC 3339 in whole seconds, as Kubernetes writes times."""
    return moment.strftime("%Y-%m-%dT%H:%M:%SZ")


@dataclass(frozen=True)
class Cluster:
    store: Store
    registry: Registry
    now: Callable[[], datetime] = field(default=utc_now)


@dataclass(frozen=True)
class Target:
    """The object, or the collection when `name` is empty, that a request is about."""

    resource: Resource
    namespace: str = ""
    name: str = ""
    subresource: str = ""


def view(resource: Resource, raw: bytes) -> bytes:
    """A stored object as this version of the resource shows it."""
    if resource.conversion is None and resource.version == resource.storage_version:
        return raw
    import orjson

    return orjson.dumps(convert(resource, orjson.loads(raw)))


def convert(resource: Resource, obj: Object) -> Object:
    """Like `view`, for an object that the caller owns."""
    if resource.conversion is not None:
        return resource.conversion.to_view(obj)
    if obj["apiVersion"] != resource.api_version:
        obj["apiVersion"] = resource.api_version
        resource.schema.prune(obj)
        resource.schema.default(obj)
    return obj


def to_storage(resource: Resource, obj: Object) -> Object:
    """What the store keeps for an object of this version: apiVersion and kind come first."""
    if resource.conversion is not None:
        return resource.conversion.to_storage(obj)
    group = f"{resource.group}/" if resource.group else ""
    return {"apiVersion": group + resource.storage_version, "kind": resource.kind, **_without_type(obj)}


def _without_type(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key not in ("apiVersion", "kind")}
