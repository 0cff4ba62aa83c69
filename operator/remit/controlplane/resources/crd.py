"""Turns a CustomResourceDefinition into the resources that it declares, and its own status."""

from __future__ import annotations

from typing import Any

from remit.controlplane import schema
from remit.controlplane.resources.resource import ALL_VERBS, Registry, ScalePaths, ServedResource
from remit.controlplane.storage import Object

CRDS = "customresourcedefinitions.apiextensions.k8s.io"


def resources_of(crd: Object) -> list[ServedResource]:
    """One per served version. Raises `schema.Invalid` when a schema does not compile."""
    versions = crd["spec"]["versions"]
    stored = next(version for version in versions if version.get("storage"))
    schema_of_stored = schema.Schema.compile(_openapi(stored))
    return [
        _resource(
            crd,
            version,
            schema_of_stored if version is stored else schema.Schema.compile(_openapi(version)),
            schema_of_stored,
        )
        for version in versions
        if version.get("served")
    ]


def _openapi(version: dict[str, Any]) -> dict[str, Any]:
    return (version.get("schema") or {}).get("openAPIV3Schema") or {}


def _resource(crd: Object, version: dict[str, Any], own: schema.Schema, stored: schema.Schema) -> ServedResource:
    spec, names = crd["spec"], crd["spec"]["names"]
    subresources = version.get("subresources") or {}
    scale = subresources.get("scale")
    openapi = _openapi(version)
    status = "status" in subresources
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    warning = ""
    if version.get("deprecated"):
        api_version = f"{spec['group']}/{version['name']}"
        warning = version.get("deprecationWarning") or f"{api_version} {names['kind']} is deprecated"
    terminating = bool(crd["metadata"].get("deletionTimestamp"))
    return ServedResource(
        group=spec["group"],
        version=version["name"],
        plural=names["plural"],
        kind=names["kind"],
        singular=names.get("singular") or names["kind"].lower(),
        list_kind=names.get("listKind") or f"{names['kind']}List",
        schema=own,
        stored_schema=stored,
        columns=schema.Columns(version.get("additionalPrinterColumns") or []),
        stored_as=f"{names['plural']}.{spec['group']}",
        storage_version=storage,
        namespaced=spec["scope"] == "Namespaced",
        short_names=tuple(names.get("shortNames") or ()),
        categories=tuple(names.get("categories") or ()),
        custom=True,
        status=status,
        scale=scale and _scale(scale),
        has_generation=True,
        unconditional_update=False,
        selectable_fields=tuple(field["jsonPath"].lstrip(".") for field in version.get("selectableFields") or ()),
        openapi=openapi,
        deprecated=warning,
        verbs=tuple(verb for verb in ALL_VERBS if not (terminating and verb == "create")),
    )


def _scale(scale: dict[str, str]) -> ScalePaths:
    return ScalePaths(
        scale["specReplicasPath"].lstrip("."),
        scale["statusReplicasPath"].lstrip("."),
        scale.get("labelSelectorPath", "").lstrip("."),
    )


def status_of(crd: Object, registry: Registry, now: str) -> dict[str, Any]:
    """The status a CRD should have: names accepted unless another resource of the group holds them."""
    spec, status = crd["spec"], crd.get("status") or {}
    conflict = _name_conflict(crd, registry)
    conditions = {c.get("type", ""): c for c in status.get("conditions") or ()}
    if conflict:
        reason, message = conflict
        _condition(conditions, "NamesAccepted", "False", reason, message, now)
        if "Established" not in conditions:
            _condition(conditions, "Established", "False", "NotAccepted", "not all names are accepted", now)
        names = status.get("acceptedNames") or {"plural": "", "kind": ""}
    else:
        _condition(conditions, "NamesAccepted", "True", "NoConflicts", "no conflicts found", now)
        if conditions.get("Established", {}).get("status") != "True":
            accepted = "the initial names have been accepted"
            _condition(conditions, "Established", "True", "InitialNamesAccepted", accepted, now)
        names = spec["names"]
    if crd["metadata"].get("deletionTimestamp") and "Terminating" not in conditions:
        cleaning = "CustomResource deletion is in progress"
        _condition(conditions, "Terminating", "True", "InstanceDeletionInProgress", cleaning, now)
    stored = list(status.get("storedVersions") or ())
    storage = next(v["name"] for v in spec["versions"] if v.get("storage"))
    if storage not in stored:
        stored.append(storage)
    return {"conditions": list(conditions.values()), "acceptedNames": names, "storedVersions": stored}


def _condition(conditions: dict[str, Any], kind: str, value: str, reason: str, message: str, now: str) -> None:
    before = conditions.get(kind)
    since = before.get("lastTransitionTime") if before is not None and before.get("status") == value else None
    conditions[kind] = {
        "type": kind,
        "status": value,
        "lastTransitionTime": since or now,
        "reason": reason,
        "message": message,
    }


def _name_conflict(crd: Object, registry: Registry) -> tuple[str, str] | None:
    spec, names = crd["spec"], crd["spec"]["names"]
    others = [r for r in registry if r.group == spec["group"] and r.plural != names["plural"]]
    taken = {name for r in others for name in (r.plural, r.singular, *r.short_names)}
    for reason, wanted in (
        ("PluralConflict", [names["plural"]]),
        ("SingularConflict", [names.get("singular") or names["kind"].lower()]),
        ("ShortNamesConflict", names.get("shortNames") or []),
    ):
        for name in wanted:
            if name in taken:
                return reason, f'"{name}" is already in use'
    kinds = {kind for r in others for kind in (r.kind, r.list_kind)}
    if names["kind"] in kinds:
        return "KindConflict", f'"{names["kind"]}" is already in use'
    if (names.get("listKind") or f"{names['kind']}List") in kinds:
        return "ListKindConflict", f'"{names.get("listKind")}" is already in use'
    return None


def is_established(crd: Object) -> bool:
    conditions = (crd.get("status") or {}).get("conditions") or ()
    return any(c.get("type") == "Established" and c.get("status") == "True" for c in conditions)
