"""create, update and patch.

Every function that decides is synchronous: on the event loop nothing else can run between reading the live object and
handing the new one to the store, so a write never meets a conflict that its client did not cause. One that takes long
is decided in a thread, and again when the live object has changed meanwhile (`draft.py`).
"""

from __future__ import annotations

from typing import Any, NamedTuple

import orjson

from remit.controlplane.failures import (
    already_exists,
    bad_request,
    being_deleted,
    conflict,
    forbidden,
    generated_name_exists,
    invalid,
)
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.resources import ServedResource
from remit.controlplane.schema.apply import server_side_apply
from remit.controlplane.schema.jsontypes import same
from remit.controlplane.schema.managedfields import track_update
from remit.controlplane.storage import Object, Record
from remit.controlplane.verbs import admit
from remit.controlplane.verbs.cluster import RequestInfo, Writer, convert, load, to_storage
from remit.controlplane.verbs.patches import patched

LONGEST_MANAGER = 128
"""Bytes of a field manager's name."""


class Written(NamedTuple):
    """The outcome of a write: HTTP status and the object as the client's version shows it."""

    status: int
    obj: Object


def create(cluster: Writer, target: RequestInfo, body: Any, request: ApiRequest, raw: bytes = b"") -> Written:
    resource = target.resource
    obj = admit.check_type(resource, body, request, raw)
    admit.check_place(target, obj)
    admit.check_fields(resource, obj, request, raw)
    admit.check_namespace(cluster, target, obj)
    return _create(cluster, target, obj, request)


def _create(
    cluster: Writer, target: RequestInfo, obj: Object, request: ApiRequest, *, applied: bool = False
) -> Written:
    resource = target.resource
    generated = not obj["metadata"].get("name")
    if resource.status:
        obj.pop("status", None)
    admit.check_size(orjson.dumps(obj))  # before the work whose cost grows with the object
    resource.schema.default(obj)
    admit.set_new_metadata(cluster, obj)
    if resource.has_generation:
        obj["metadata"]["generation"] = 1
    resource.prepare(obj, None)
    admit.tidy(resource, obj)
    if not applied:
        _track(cluster, target, None, obj, request)
    admit.validate(cluster, resource, obj)
    resource.settle(obj, None)
    name = obj["metadata"]["name"]
    existing = cluster.store.latest(resource.stored_as, target.namespace, name)
    if existing is not None:
        going = b'"deletionTimestamp"' in existing.raw
        refuse = generated_name_exists if generated else being_deleted if going else already_exists
        raise refuse(resource.group, resource.plural, name)
    return Written(201, _put(cluster, resource, obj, request))


def update(cluster: Writer, target: RequestInfo, body: Any, request: ApiRequest, raw: bytes = b"") -> Written:
    """PUT: replace the object, or its status."""
    resource = target.resource
    obj = admit.check_type(resource, body, request, raw)
    admit.check_place(target, obj)
    admit.check_fields(resource, obj, request, raw)
    live = _live(cluster, target)
    if live is None:
        if resource.create_on_update and not target.subresource:
            admit.check_namespace(cluster, target, obj)
            return _create(cluster, target, obj, request)
        raise resource.not_found(target.name)
    if not obj["metadata"].get("name"):
        raise bad_request("name must be provided")
    old = load(resource, live)
    admit.check_uid(resource, obj, old)
    return replace(cluster, target, old, obj, request, revision_required=not resource.unconditional_update)


def replace(
    cluster: Writer,
    target: RequestInfo,
    old: Object,
    obj: Object,
    request: ApiRequest,
    *,
    revision_required: bool = False,
    applied: bool = False,
) -> Written:
    """Store `obj`, pruned already, in place of `old`; both in the version of the request."""
    resource = target.resource
    admit.check_revision(resource, obj, old, required=revision_required)
    obj = _isolate(resource, target.subresource, obj, old)
    admit.check_size(orjson.dumps(obj))
    resource.schema.default(obj)
    admit.keep_system_metadata(obj, old)
    if not target.subresource:
        resource.prepare(obj, old)
    admit.tidy(resource, obj)
    if not applied:
        _track(cluster, target, old, obj, request)
    if resource.has_generation and target.subresource != "status" and _spec(resource, obj) != _spec(resource, old):
        obj["metadata"]["generation"] = old["metadata"].get("generation", 0) + 1
    admit.validate(cluster, resource, obj, old)
    if not target.subresource:
        resource.settle(obj, old)
    if _same(obj, old):
        return Written(200, old)
    metadata = obj["metadata"]
    if metadata.get("deletionTimestamp") and not _held(obj):
        if not request.dry_run:
            cluster.store.remove(resource.stored_as, to_storage(resource, old))
        return Written(200, obj)  # the response has the previous resourceVersion; only watches see that of the deletion
    return Written(200, _put(cluster, resource, obj, request))


def _held(obj: Object) -> bool:
    """Whether finalizers keep an object that is being deleted."""
    return bool(obj["metadata"].get("finalizers") or (obj["kind"] == "Namespace" and obj["spec"].get("finalizers")))


def patch(cluster: Writer, target: RequestInfo, content_type: str, body: bytes, request: ApiRequest) -> Written:
    """JSON patch, merge patch, strategic merge patch."""
    _check_patch_options(request, applied=False)
    resource = target.resource
    live = _live(cluster, target)
    if live is None:
        raise resource.not_found(target.name)
    old = load(resource, live)
    result = patched(resource, content_type, body, load(resource, live))
    if resource.custom and isinstance(result, dict) and result.get("apiVersion") != resource.api_version:
        why = f'Invalid value: "{result.get("apiVersion", "")}": must be {resource.api_version}'
        raise invalid("", resource.kind, target.name, [("FieldValueInvalid", why, "apiVersion")])
    obj = admit.check_type(resource, result, request, body)
    admit.check_place(target, obj)
    admit.check_fields(resource, obj, request)
    return replace(cluster, target, old, obj, request)


def apply(cluster: Writer, target: RequestInfo, config: Any, request: ApiRequest) -> Written:
    """Server-side apply: create the object, or merge into it what the manager owns."""
    resource = target.resource
    manager = _check_patch_options(request, applied=True)
    if isinstance(config, dict) and config.get("kind") and config.get("apiVersion"):
        given = config["apiVersion"], config["kind"]
        if given != (resource.api_version, resource.kind):
            raise bad_request(f"invalid object type: {given[0]}, Kind={given[1]}")
    config = admit.check_type(resource, config, request)
    admit.check_place(target, config)
    if config["metadata"].get("managedFields") is not None:
        raise bad_request("metadata.managedFields must be nil")
    admit.check_fields(resource, config, request)
    live = _live(cluster, target)
    if live is None and target.subresource:
        raise resource.not_found(target.name)
    old = load(resource, live) if live else None
    if resource.status and not target.subresource:
        config.pop("status", None)
    if config["metadata"].get("resourceVersion") and live is None:
        raise conflict(resource.group, resource.plural, target.name)
    obj = server_side_apply(
        load(resource, live) if live else None,
        config,
        manager=manager,
        force=request.flag("force"),
        schema=resource.schema,
        api_version=resource.api_version,
        now=cluster.now(),
        subresource=target.subresource,
    )
    if old is None:
        if "create" not in resource.verbs:
            why = "create not allowed while custom resource definition is terminating"
            raise forbidden(resource.group, resource.plural, target.name, why)
        admit.check_namespace(cluster, target, obj)
        return _create(cluster, target, obj, request, applied=True)
    return replace(cluster, target, old, obj, request, applied=True)


def _check_patch_options(request: ApiRequest, *, applied: bool) -> str:
    """The field manager. Raises 422 for options that do not fit the type of the patch."""
    manager = request.text("fieldManager")
    causes = []
    if applied and not manager:
        causes.append(("FieldValueRequired", "Required value: is required for apply patch", "fieldManager"))
    if not applied and "force" in request.query:
        causes.append(("FieldValueForbidden", "Forbidden: may not be specified for non-apply patch", "force"))
    if len(manager.encode()) > LONGEST_MANAGER:
        why = f"Too long: may not be more than {LONGEST_MANAGER} bytes"
        causes.append(("FieldValueTooLong", why, "fieldManager"))
    if causes:
        raise invalid("meta.k8s.io", "PatchOptions", "", causes)
    return manager


def _live(cluster: Writer, target: RequestInfo) -> Record | None:
    return cluster.store.latest(target.resource.stored_as, target.namespace, target.name)


def _isolate(resource: ServedResource, subresource: str, obj: Object, old: Object) -> Object:
    """The main endpoint does not touch status, and the status endpoint touches nothing else."""
    if subresource == "status":
        kept = {**old, "metadata": {**old["metadata"], "managedFields": obj["metadata"].get("managedFields", [])}}
        return _with_status(kept, obj)
    return _with_status(obj, old) if resource.status else obj


def _without_status(obj: Object) -> Object:
    return {key: value for key, value in obj.items() if key != "status"}


def _with_status(obj: Object, source: Object) -> Object:
    result = _without_status(obj)
    if "status" in source:
        result["status"] = source["status"]
    return result


def _spec(resource: ServedResource, obj: Object) -> Object:
    """The part of an object whose change counts as a new generation."""
    skipped = ("metadata", "status") if resource.status else ("metadata",)
    return {key: value for key, value in obj.items() if key not in skipped}


def _same(obj: Object, old: Object) -> bool:
    """Whether nothing changed but the times in managedFields: such a write keeps the resourceVersion."""
    new, earlier = _timeless(obj), _timeless(old)
    # Python's equality treats True and 1 as equal, but finds most differences quickly.
    return new == earlier and same(new, earlier)


def _timeless(obj: Object) -> Object:
    metadata = obj["metadata"]
    entries = [{k: v for k, v in entry.items() if k != "time"} for entry in metadata.get("managedFields") or ()]
    return {**obj, "metadata": {**metadata, "managedFields": entries}}


def _track(cluster: Writer, target: RequestInfo, old: Object | None, obj: Object, request: ApiRequest) -> None:
    if target.resource.status and not target.subresource:
        # The main endpoint does not own status, including its defaults. Metadata is shared with the status endpoint.
        old = old and _without_status(old)
        obj = _without_status(obj)
    track_update(
        old,
        obj,
        manager=request.manager,
        schema=target.resource.schema,
        api_version=target.resource.api_version,
        now=cluster.now(),
        subresource=target.subresource,
    )
    if not obj["metadata"].get("managedFields"):
        obj["metadata"].pop("managedFields", None)


def _put(cluster: Writer, resource: ServedResource, obj: Object, request: ApiRequest) -> Object:
    """Hand the object to the store, unless this is a dry run; the result is what the client is shown.

    Both share their metadata, in which the store sets the resourceVersion.
    """
    stored = to_storage(resource, obj)
    encoded = orjson.dumps(stored)
    admit.check_size(encoded)
    # Return the object as it will be read again, after conversion.
    if resource.custom and resource.version != resource.storage_version:
        obj = convert(resource, orjson.loads(encoded)) | {"metadata": obj["metadata"]}
    if request.dry_run:
        return obj
    record = cluster.store.put(resource.stored_as, stored)
    if resource.version == resource.storage_version:
        record.remember_shown(resource.schema, record.raw)  # the object was just pruned and defaulted
    return obj
