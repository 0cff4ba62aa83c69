"""Discovery: which groups, versions and resources are served, in the plain and the aggregated form."""

from __future__ import annotations

import base64
import hashlib
from typing import Any

import orjson

from remit.controlplane.http.negotiation import media_types
from remit.controlplane.http.reviews import REVIEWS
from remit.controlplane.resources import Registry, ServedResource

AGGREGATED = ("v2", "v2beta1")
_CUSTOM_ORDER = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")


def groups(registry: Registry) -> list[str]:
    return [*registry.groups(), *(group for group, _ in REVIEWS)]


def versions(registry: Registry, group: str) -> list[str]:
    return registry.versions(group) or [version for name, version in REVIEWS if name == group]


def wanted_aggregation(accept: str) -> str | None:
    """The version of apidiscovery.k8s.io that the client prefers, if it wants the aggregated form at all."""
    for media, parameters in media_types(accept):
        if media == "application/json":
            if parameters.get("as") == "APIGroupDiscoveryList" and parameters.get("g") == "apidiscovery.k8s.io":
                if parameters.get("v") in AGGREGATED:
                    return parameters["v"]
            elif "as" not in parameters:
                return None
    return None


def aggregated_type(version: str) -> str:
    return f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList"


def core_versions(address: str) -> dict[str, Any]:
    return {
        "kind": "APIVersions",
        "versions": ["v1"],
        "serverAddressByClientCIDRs": [{"clientCIDR": "0.0.0.0/0", "serverAddress": address}],
    }


def group_list(registry: Registry) -> dict[str, Any]:
    found = [
        {k: v for k, v in api_group(registry, name).items() if k not in ("kind", "apiVersion")}
        for name in groups(registry)
    ]
    return {"kind": "APIGroupList", "apiVersion": "v1", "groups": found}


def api_group(registry: Registry, group: str) -> dict[str, Any]:
    served = [{"groupVersion": f"{group}/{version}", "version": version} for version in versions(registry, group)]
    return {"kind": "APIGroup", "apiVersion": "v1", "name": group, "versions": served, "preferredVersion": served[0]}


def resource_list(registry: Registry, group: str, version: str) -> dict[str, Any]:
    entries: list[dict[str, Any]] = []
    for resource in registry.served(group, version):
        entries.append(_entry(resource))
        entries += [_subresource_entry(resource, name) for name in subresources(resource)]
    for plural, review in REVIEWS.get((group, version), {}).items():
        entries.append(
            {
                "name": plural,
                "singularName": review.kind.lower(),
                "namespaced": review.namespaced,
                "kind": review.kind,
                "verbs": ["create"],
            }
        )
    return {
        "kind": "APIResourceList",
        "apiVersion": "v1",
        "groupVersion": f"{group}/{version}" if group else version,
        "resources": entries,
    }


def subresources(resource: ServedResource) -> tuple[str, ...]:
    """Names of the served subresources."""
    return (*(("finalize",) if resource.stored_as == "namespaces" else ()), *resource.subresources)


def _resource_verbs(resource: ServedResource) -> list[str]:
    """CRDs list their verbs in another order than built-in kinds."""
    return sorted(resource.verbs, key=_CUSTOM_ORDER.index) if resource.custom else list(resource.verbs)


def _subresource_verbs(subresource: str) -> list[str]:
    return ["update"] if subresource == "finalize" else ["get", "patch", "update"]


def _entry(resource: ServedResource) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": resource.plural,
        "singularName": resource.singular,
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _resource_verbs(resource),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    entry["storageVersionHash"] = _storage_hash(resource)
    return entry


def _subresource_entry(resource: ServedResource, name: str) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "name": f"{resource.plural}/{name}",
        "singularName": "",
        "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": _subresource_verbs(name),
    }
    if name == "scale":
        entry |= {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    return entry


def _storage_hash(resource: ServedResource) -> str:
    text = f"{resource.group}/{resource.storage_version}/{resource.kind}"
    return base64.b64encode(hashlib.sha256(text.encode()).digest()[:8]).decode()


def aggregated(registry: Registry, names: list[str], version: str) -> dict[str, Any]:
    """An APIGroupDiscoveryList of the named groups ('' is the core group)."""
    items = []
    for name in names:
        served = [_aggregated_version(registry, name, v) for v in versions(registry, name)]
        metadata = {"name": name} if name else {}
        items.append({"metadata": metadata | {"creationTimestamp": None}, "versions": served})
    return {
        "kind": "APIGroupDiscoveryList",
        "apiVersion": f"apidiscovery.k8s.io/{version}",
        "metadata": {},
        "items": items,
    }


def _aggregated_version(registry: Registry, group: str, version: str) -> dict[str, Any]:
    resources = [_aggregated_resource(resource) for resource in registry.served(group, version)]
    for plural, review in REVIEWS.get((group, version), {}).items():
        resources.append(
            {
                "resource": plural,
                "responseKind": {"group": group, "version": version, "kind": review.kind},
                "scope": "Namespaced" if review.namespaced else "Cluster",
                "singularResource": review.kind.lower(),
                "verbs": ["create"],
            }
        )
    return {"version": version, "resources": resources, "freshness": "Current"}


def _aggregated_resource(resource: ServedResource) -> dict[str, Any]:
    kind = {"group": resource.group, "version": resource.version, "kind": resource.kind}
    entry: dict[str, Any] = {
        "resource": resource.plural,
        "responseKind": kind,
        "scope": "Namespaced" if resource.namespaced else "Cluster",
        "singularResource": resource.singular,
        "verbs": _resource_verbs(resource),
    }
    if resource.short_names:
        entry["shortNames"] = list(resource.short_names)
    if resource.categories:
        entry["categories"] = list(resource.categories)
    scale = {"group": "autoscaling", "version": "v1", "kind": "Scale"}
    parts = [
        {"subresource": name, "responseKind": scale if name == "scale" else kind, "verbs": _subresource_verbs(name)}
        for name in subresources(resource)
    ]
    if parts:
        entry["subresources"] = parts
    return entry


def etag(document: dict[str, Any]) -> str:
    return f'"{hashlib.sha256(orjson.dumps(document)).hexdigest().upper()}"'
