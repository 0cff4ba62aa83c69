"""Turns what a client sent into what may be stored: type, metadata, fields, schema. Nothing is written here."""

from __future__ import annotations

import secrets
import uuid
from typing import Any

from remit.controlplane import schema
from remit.controlplane.failures import (
    Failure,
    bad_request,
    body_too_large,
    conflict,
    forbidden,
    invalid,
    not_found,
    quoted,
)
from remit.controlplane.http.bodies import missing_kind, not_an_object, repeated_keys
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.resources import ServedResource
from remit.controlplane.schema import Cause
from remit.controlplane.schema.formats import timestamp
from remit.controlplane.schema.metadata import validate_metadata
from remit.controlplane.storage import Object
from remit.controlplane.verbs.cluster import RequestInfo, Writer

OBJECT_LIMIT = 1_572_864
"""Bytes of one stored object: etcd's default, so what fits here fits a cluster too."""
_MAX_MISTAKES = 100
"""Unknown and repeated fields that are told of one object, as kube-apiserver does."""
_SYSTEM_METADATA = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "generation")


def check_type(resource: ServedResource, obj: Any, request: ApiRequest, raw: bytes = b"") -> Object:
    """The body must be an object of this resource whose parts are of the right types: everything else counts on that.

    Built-in kinds may leave their type out, as kopf's Events do. Raises 400, or 422 for the outcome of a patch.
    """
    if not isinstance(obj, dict):
        raise not_an_object(obj, resource.kind, raw)
    obj = dict(obj)
    for field in ("apiVersion", "kind", "metadata"):
        if obj.get(field) is None:
            obj.pop(field, None)
    try:
        for field in ("apiVersion", "kind"):
            schema.decode(schema.STRING, obj.setdefault(field, ""), schema.Place(field, field))
        _check_kind(resource, obj, raw)
        at = schema.Place("metadata", "" if resource.custom else "metadata", resource.kind)
        schema.decode(schema.OBJECT_META, obj.setdefault("metadata", {}), at)
        resource.schema.decode(obj)
    except schema.Undecodable as error:
        if request.method == "PATCH":
            causes = [("FieldValueInvalid", f"Invalid value: {error}", "patch")]
            raise invalid("", "", "", causes) from None
        raise undecodable(resource, str(error)) from None
    return {**obj, "apiVersion": resource.api_version, "kind": obj["kind"] or resource.kind}


def _check_kind(resource: ServedResource, obj: Object, raw: bytes) -> None:
    api_version, kind = obj["apiVersion"], obj["kind"]
    if resource.custom and not kind:
        raise missing_kind(resource.kind, raw)
    if (api_version or resource.custom) and api_version != resource.api_version:
        raise bad_request(
            f"the API version in the data ({api_version}) does not match the expected API version "
            f"({resource.api_version})"
        )
    if kind and kind != resource.kind and not resource.custom:
        given, wanted = f"{api_version}.{kind}", f"{resource.group.partition('.')[0] or 'core'}.{resource.kind}"
        raise undecodable(resource, f"converting ({given}) to ({wanted}): unknown conversion", kind)


def undecodable(resource: ServedResource, why: str, given: str = "") -> Failure:
    kind, version = resource.kind, resource.version
    return bad_request(f'{given or kind} in version "{version}" cannot be handled as a {kind}: {why}')


def type_causes(resource: ServedResource, obj: Object) -> list[Cause]:
    if obj["kind"] == resource.kind:
        return []
    return [Cause("FieldValueInvalid", f'Invalid value: "{obj["kind"]}": must be {resource.kind}', "kind")]


def check_fields(resource: ServedResource, obj: Object, request: ApiRequest, raw: bytes = b"") -> None:
    """Prune unknown fields; with fieldValidation Strict they are refused, with Warn the client is told."""
    mode = request.text("fieldValidation", "Warn")
    if mode not in ("Ignore", "Warn", "Strict"):
        message = f'Unsupported value: "{mode}": supported values: "", "Ignore", "Strict", "Warn"'
        options = "CreateOptions" if request.method == "POST" else "UpdateOptions"
        raise invalid("meta.k8s.io", options, "", [("FieldValueNotSupported", message, "fieldValidation")])
    content_type = request.headers.get("Content-Type", "")
    mistakes = repeated_keys(raw, content_type) if raw and mode != "Ignore" else []
    mistakes += [f"unknown field {quoted(path)}" for path in resource.schema.prune(obj)]
    del mistakes[_MAX_MISTAKES:]
    if mode == "Strict" and mistakes:
        if mistakes[0].startswith("line "):
            mistakes[0] = f"yaml: unmarshal errors:\n  {mistakes[0]}"
        raise undecodable(resource, f"strict decoding error: {', '.join(mistakes)}")
    if mode == "Warn":
        request.warnings.extend(mistakes)


def check_place(target: RequestInfo, obj: Object) -> None:
    """Name and namespace in the body must agree with those in the path."""
    metadata = obj["metadata"]
    if target.resource.namespaced:
        namespace = metadata.get("namespace") or target.namespace
        if namespace != target.namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")
        metadata["namespace"] = target.namespace
    else:
        metadata.pop("namespace", None)
    name = metadata.get("name")
    if target.name and name and name != target.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({target.name})")
    if target.name:
        metadata["name"] = target.name


def check_namespace(cluster: Writer, target: RequestInfo, obj: Object) -> None:
    """New objects need a namespace that exists and is not going away."""
    if not target.resource.namespaced:
        return
    name = target.namespace
    record = cluster.store.latest("namespaces", "", name)
    if record is None:
        raise not_found("", "namespaces", name)
    if record.load()["metadata"].get("deletionTimestamp"):
        raise forbidden(
            target.resource.group,
            target.resource.plural,
            obj["metadata"].get("name") or "",
            f"unable to create new content in namespace {name} because it is being terminated",
            [Cause("NamespaceTerminating", f"namespace {name} is being terminated", "metadata.namespace")],
        )


def set_new_metadata(cluster: Writer, obj: Object) -> None:
    metadata = obj["metadata"]
    if metadata.get("resourceVersion") not in (None, "", "0"):
        raise Failure(500, "", "resourceVersion should not be set on objects to be created")
    for field in (*_SYSTEM_METADATA, "selfLink", "resourceVersion"):
        metadata.pop(field, None)
    metadata["uid"] = str(uuid.uuid4())
    metadata["creationTimestamp"] = timestamp(cluster.now())
    if not metadata.get("name") and metadata.get("generateName"):
        suffix = "".join(secrets.choice("bcdfghjklmnpqrstvwxz2456789") for _ in range(5))
        metadata["name"] = metadata["generateName"][:58] + suffix


def tidy(resource: ServedResource, obj: Object) -> None:
    """Leave out what is empty where Kubernetes leaves it out."""
    metadata = obj["metadata"]
    for field in ("labels", "annotations", "finalizers", "ownerReferences"):
        if field in metadata and not metadata[field]:
            del metadata[field]
    if not resource.custom:
        for field in ("data", "binaryData"):
            if field in obj and not obj[field]:
                del obj[field]


def keep_system_metadata(obj: Object, old: Object) -> None:
    metadata, before = obj["metadata"], old["metadata"]
    metadata.pop("selfLink", None)
    for field in _SYSTEM_METADATA:
        if field == "uid" and metadata.get("uid"):
            continue  # validation refuses a uid that differs from the object's
        if field in before:
            metadata[field] = before[field]
        else:
            metadata.pop(field, None)


def check_revision(resource: ServedResource, obj: Object, old: Object, *, required: bool) -> None:
    """The resourceVersion in the body, where given, must be that of the live object."""
    metadata, before = obj["metadata"], old["metadata"]
    name, revision = before["name"], metadata.get("resourceVersion") or ""
    if revision in ("", "0") and required:
        cause = ("FieldValueInvalid", "Invalid value: 0: must be specified for an update", "metadata.resourceVersion")
        raise invalid(resource.group, resource.plural, name, [cause])
    if revision and not revision.isdigit():
        raise Failure(500, "", f'strconv.ParseUint: parsing "{revision}": invalid syntax')
    if revision not in ("", "0") and revision != before["resourceVersion"]:
        raise conflict(resource.group, resource.plural, name)
    metadata["resourceVersion"] = before["resourceVersion"]


def check_uid(resource: ServedResource, obj: Object, old: Object) -> None:
    """A PUT that names a uid is meant for that object, not for another of the same name."""
    uid, actual = obj["metadata"].get("uid"), old["metadata"]["uid"]
    if uid and uid != actual:
        why = f"Precondition failed: UID in precondition: {uid}, UID in object meta: {actual}"
        raise conflict(resource.group, resource.plural, old["metadata"]["name"], why)


def _uid_causes(obj: Object, old: Object | None) -> list[Cause]:
    uid = obj["metadata"].get("uid")
    if old is None or uid == old["metadata"]["uid"]:
        return []
    return [Cause("FieldValueInvalid", f'Invalid value: "{uid}": field is immutable', "metadata.uid")]


def validate(cluster: Writer, resource: ServedResource, obj: Object, old: Object | None = None) -> None:
    """Metadata, schema, and the resource's own rules. Raises 422 with every cause, and `NotOnLoop`."""
    shape = resource.schema.validate(obj, old, cluster.rule_budget())
    if not resource.custom:
        _refuse_undecodable(resource, shape)
    causes: list[Any] = [
        *type_causes(resource, obj),
        *_uid_causes(obj, old),
        *validate_metadata(obj, namespaced=resource.namespaced, old=old, kind=resource.kind),
        *shape,
        *resource.check(obj, old),
    ]
    if causes:
        raise invalid(resource.group, obj["kind"], obj["metadata"].get("name") or "", causes)


def _refuse_undecodable(resource: ServedResource, causes: list[Cause]) -> None:
    """Built-in kinds are Go structs to Kubernetes: a value of a wrong type cannot even be decoded."""
    for cause in causes:
        if cause.reason == "FieldValueTypeInvalid" or "must be of type" in cause.message:
            raise undecodable(resource, f"{cause.field}: {cause.message}")


def check_size(raw: bytes) -> None:
    if len(raw) > OBJECT_LIMIT:
        raise body_too_large(OBJECT_LIMIT)
