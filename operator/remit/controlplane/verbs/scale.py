"""The scale subresource: replicas of a custom resource as an autoscaling/v1 Scale."""

from __future__ import annotations

from typing import Any

import orjson

from remit.controlplane.failures import bad_request, internal, invalid
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.resources import ServedResource
from remit.controlplane.schema import SCALE, Undecodable, decode
from remit.controlplane.storage import Object
from remit.controlplane.verbs.cluster import Cluster, RequestInfo, Writer, load
from remit.controlplane.verbs.patches import patched
from remit.controlplane.verbs.write import Written, replace


def _at(obj: Any, path: str) -> Any:
    for part in path.split(".") if path else ():
        obj = obj.get(part) if isinstance(obj, dict) else None
    return obj


def show_scale(resource: ServedResource, obj: Object) -> Object:
    """The Scale of a custom resource's object."""
    assert resource.scale is not None  # noqa: S101 - the path is served only where there is one
    metadata = obj["metadata"]
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    status: Object = {"replicas": _at(obj, resource.scale.status_replicas) or 0}
    selector = _at(obj, resource.scale.label_selector) if resource.scale.label_selector else None
    if selector:
        status["selector"] = selector
    replicas = _at(obj, resource.scale.spec_replicas)
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: metadata[key] for key in kept if key in metadata},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }


def get_scale(cluster: Cluster, target: RequestInfo) -> Object:
    record = cluster.store.get(target.resource.stored_as, target.namespace, target.name)
    if record is None:
        raise target.resource.not_found(target.name)
    obj = load(target.resource, record)
    assert target.resource.scale is not None  # noqa: S101 - the path is served only where there is one
    path = target.resource.scale.spec_replicas
    if _at(obj, path) is None:
        raise internal(f'the spec replicas field ".{path}" does not exist')
    return show_scale(target.resource, obj)


def _live(cluster: Writer, target: RequestInfo) -> Object:
    record = cluster.store.latest(target.resource.stored_as, target.namespace, target.name)
    if record is None:
        raise target.resource.not_found(target.name)
    return load(target.resource, record)


def put_scale(cluster: Writer, target: RequestInfo, body: Any, request: ApiRequest, raw: bytes = b"") -> Written:
    live = _live(cluster, target)
    return _replace(cluster, target, live, body, request)


def patch_scale(cluster: Writer, target: RequestInfo, media: str, request: ApiRequest) -> Written:
    live = _live(cluster, target)
    body = patched(target.resource, media, request.body, show_scale(target.resource, live))
    return _replace(cluster, target, live, body, request)


def _replace(cluster: Writer, target: RequestInfo, live: Object, scale: Any, request: ApiRequest) -> Written:
    resource = target.resource
    assert resource.scale is not None  # noqa: S101
    if not isinstance(scale, dict) or scale.get("kind") != "Scale":
        raise bad_request("the object provided is unrecognized (must be of type Scale)")
    try:
        decode(SCALE, scale)
    except Undecodable as error:
        raise bad_request(f'Scale in version "v1" cannot be handled as a Scale: {error}') from None
    replicas = _at(scale, "spec.replicas") or 0
    if replicas < 0:
        why = f"Invalid value: {replicas}: should be a non-negative integer"
        raise invalid("autoscaling", "Scale", target.name, [("FieldValueInvalid", why, "spec.replicas")])
    obj: Object = orjson.loads(orjson.dumps(live))
    obj["metadata"]["resourceVersion"] = (scale.get("metadata") or {}).get("resourceVersion") or ""
    *parents, last = resource.scale.spec_replicas.split(".")
    place = obj
    for parent in parents:
        place = place.setdefault(parent, {})
        if not isinstance(place, dict):
            raise internal(f'the spec replicas field ".{resource.scale.spec_replicas}" is not within objects')
    place[last] = replicas
    return replace(cluster, target, live, obj, request)
