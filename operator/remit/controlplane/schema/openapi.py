"""OpenAPI v3 documents, of which `kubectl explain` is made and by which kubectl learns what the server can do."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any, Protocol

Raw = dict[str, Any]

_PATCHES = ("application/merge-patch+json", "application/apply-patch+yaml")
_STRATEGIC = "application/strategic-merge-patch+json"
_META = "io.k8s.apimachinery.pkg.apis.meta.v1"
_CORE = {"": "io.k8s.api.core", "apps": "io.k8s.api.apps", "coordination.k8s.io": "io.k8s.api.coordination",
         "events.k8s.io": "io.k8s.api.events",
         "apiextensions.k8s.io": "io.k8s.apiextensions-apiserver.pkg.apis.apiextensions"}  # fmt: skip


class Described(Protocol):
    """The properties of a served resource that its description needs."""

    @property
    def kind(self) -> str: ...
    @property
    def list_kind(self) -> str: ...
    @property
    def plural(self) -> str: ...
    @property
    def namespaced(self) -> bool: ...
    @property
    def custom(self) -> bool: ...
    @property
    def schema(self) -> Any: ...


def openapi_v3(group: str, version: str, resources: Iterable[Described]) -> Raw:
    """The document of one group and version."""
    schemas: Raw = _meta_schemas()
    paths: Raw = {}
    prefix = f"/apis/{group}/{version}" if group else f"/api/{version}"
    for resource in resources:
        gvk = {"group": group, "version": version, "kind": resource.kind}
        name = f"{_package(group)}.{version}.{resource.kind}"
        schemas[name] = _object_schema(resource, gvk)
        schemas[f"{name}List"] = _list_schema(resource, name, {**gvk, "kind": resource.list_kind})
        scope = "/namespaces/{namespace}" if resource.namespaced else ""
        collection = f"{prefix}{scope}/{resource.plural}"
        paths[collection] = {
            "get": _operation("list", gvk, f"{name}List", custom=resource.custom),
            "post": _operation("post", gvk, name, custom=resource.custom),
        }
        paths[f"{collection}/{{name}}"] = {
            verb: _operation(verb, gvk, name, custom=resource.custom) for verb in ("get", "put", "patch", "delete")
        }
    return {
        "openapi": "3.0.0",
        "info": {"title": "Kubernetes", "version": "unversioned"},
        "paths": paths,
        "components": {"schemas": schemas},
    }


def _package(group: str) -> str:
    return _CORE.get(group) or ".".join(reversed(group.split(".")))


def _object_schema(resource: Described, gvk: Raw) -> Raw:
    schema = copy.deepcopy(getattr(resource.schema, "raw", None) or {"type": "object"})
    properties = {
        "apiVersion": {
            "type": "string",
            "description": "APIVersion defines the versioned schema of this representation of an object.",
        },
        "kind": {"type": "string", "description": "Kind is a string value representing this REST resource."},
        "metadata": {
            "allOf": [{"$ref": f"#/components/schemas/{_META}.ObjectMeta"}],
            "default": {},
            "description": "Standard object's metadata.",
        },
    }
    schema["properties"] = {**schema.get("properties", {}), **properties}
    schema["x-kubernetes-group-version-kind"] = [gvk]
    return schema


def _list_schema(resource: Described, name: str, gvk: Raw) -> Raw:
    return {
        "type": "object",
        "description": f"{resource.list_kind} is a list of {resource.kind}",
        "required": ["items"],
        "properties": {
            "apiVersion": {"type": "string"},
            "kind": {"type": "string"},
            "metadata": {"allOf": [{"$ref": f"#/components/schemas/{_META}.ListMeta"}]},
            "items": {"type": "array", "items": {"$ref": f"#/components/schemas/{name}"}},
        },
        "x-kubernetes-group-version-kind": [gvk],
    }


def _operation(verb: str, gvk: Raw, name: str, *, custom: bool) -> Raw:
    writes = verb in {"post", "put", "patch", "delete"}
    parameters = [_parameter("dryRun")] if writes else []
    if verb in {"post", "put", "patch"}:
        parameters += [_parameter("fieldManager"), _parameter("fieldValidation")]
    if verb == "patch":
        parameters.append(_parameter("force", "boolean"))
    schema = {"schema": {"$ref": f"#/components/schemas/{name}"}}
    told = {"200": "OK"} | ({"201": "Created"} if verb in {"post", "put", "patch"} else {})
    operation: Raw = {
        "parameters": parameters,
        "responses": {
            status: {"description": about, "content": {"application/json": schema}} for status, about in told.items()
        },
        "x-kubernetes-action": verb,
        "x-kubernetes-group-version-kind": gvk,
    }
    if verb in {"post", "put", "patch"}:
        media: Raw = {"application/json": schema}
        if verb == "patch":
            media = {"application/json-patch+json": {"schema": {"type": "array", "items": {"type": "object"}}}}
            media |= dict.fromkeys(_PATCHES if custom else (*_PATCHES, _STRATEGIC), schema)
        operation["requestBody"] = {"content": media}
    return operation


def _parameter(name: str, type_: str = "string") -> Raw:
    return {"name": name, "in": "query", "schema": {"type": type_, "uniqueItems": True}}


def _meta_schemas() -> Raw:
    string = {"type": "string"}
    time = {"type": "string", "format": "date-time"}

    def texts(description: str) -> Raw:
        return {"type": "object", "additionalProperties": string, "description": description}

    owner = {
        "type": "object",
        "description": "OwnerReference identifies an owning object.",
        "required": ["apiVersion", "kind", "name", "uid"],
        "properties": {
            "apiVersion": string,
            "kind": string,
            "name": string,
            "uid": string,
            "controller": {"type": "boolean"},
            "blockOwnerDeletion": {"type": "boolean"},
        },
    }
    return {
        f"{_META}.OwnerReference": owner,
        f"{_META}.ListMeta": {
            "type": "object",
            "properties": {
                "resourceVersion": string,
                "continue": string,
                "remainingItemCount": {"type": "integer", "format": "int64"},
            },
        },
        f"{_META}.ObjectMeta": {
            "type": "object",
            "description": "ObjectMeta is metadata that all persisted resources must have.",
            "properties": {
                "name": {**string, "description": "Name must be unique within a namespace."},
                "generateName": {**string, "description": "A prefix from which the server makes a unique name."},
                "namespace": {**string, "description": "Namespace defines the space within which each name is unique."},
                "labels": texts("Map of string keys and values that can be used to organize and select objects."),
                "annotations": texts("Unstructured key value map for what tools store with a resource."),
                "finalizers": {"type": "array", "items": string, "description": "Must be empty before the object is"
                               " deleted from the registry."},
                "ownerReferences": {"type": "array", "description": "List of objects depended by this object.",
                                    "items": {"$ref": f"#/components/schemas/{_META}.OwnerReference"}},
                "uid": {**string, "description": "The unique in time and space value for this object."},
                "resourceVersion": {**string, "description": "The internal version of this object."},
                "generation": {"type": "integer", "format": "int64", "description": "Generation of the desired state."},
                "creationTimestamp": {**time, "description": "When this object was created."},
                "deletionTimestamp": {**time, "description": "When this resource will be deleted."},
                "deletionGracePeriodSeconds": {"type": "integer", "format": "int64"},
                "managedFields": {"type": "array", "items": {"type": "object"},
                                  "description": "Which fields are managed by whom."},
                "selfLink": string,
            },
        },
    }  # fmt: skip
