"""The built-in kinds: the few core types that Remit's users, kopf, Helm and GitOps tools touch."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any

from remit.controlplane import schema
from remit.controlplane.resources.crd import CRDS
from remit.controlplane.resources.events import EVENTS_VIEW, check_event
from remit.controlplane.resources.resource import ALL_VERBS, ServedResource
from remit.controlplane.storage import Object

BUILTIN_GROUPS = frozenset(
    {
        "",
        "apiextensions.k8s.io",
        "apps",
        "authentication.k8s.io",
        "authorization.k8s.io",
        "coordination.k8s.io",
        "events.k8s.io",
    }
)
_EVENT_FIELDS = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)


def builtin_resources() -> list[ServedResource]:
    return [
        _builtin("", "v1", "configmaps", "ConfigMap", short_names=("cm",)),
        _builtin(
            "",
            "v1",
            "events",
            "Event",
            short_names=("ev",),
            selectable_fields=_EVENT_FIELDS,
            create_on_update=True,
            check=check_event,
        ),
        _builtin(
            "",
            "v1",
            "namespaces",
            "Namespace",
            short_names=("ns",),
            namespaced=False,
            status=True,
            selectable_fields=("status.phase",),
            prepare=_prepare_namespace,
            settle=_settle_namespace,
            verbs=tuple(verb for verb in ALL_VERBS if verb != "deletecollection"),
        ),
        _builtin("", "v1", "secrets", "Secret", selectable_fields=("type",), prepare=_prepare_secret),
        _builtin("apps", "v1", "controllerrevisions", "ControllerRevision"),
        _builtin("coordination.k8s.io", "v1", "leases", "Lease", unconditional_update=False, create_on_update=True),
        _builtin(
            "events.k8s.io",
            "v1",
            "events",
            "Event",
            short_names=("ev",),
            stored_as="events",
            selectable_fields=(
                "reason",
                "type",
                *(f.replace("involvedObject", "regarding") for f in _EVENT_FIELDS[:7]),
            ),
            create_on_update=True,
            conversion=EVENTS_VIEW,
        ),
        _builtin(
            "apiextensions.k8s.io",
            "v1",
            "customresourcedefinitions",
            "CustomResourceDefinition",
            short_names=("crd", "crds"),
            categories=("api-extensions",),
            namespaced=False,
            status=True,
            has_generation=True,
            unconditional_update=False,
            prepare=_prepare_crd,
            settle=_settle_crd,
            check=schema.validate_crd,
        ),
    ]


def check_stored(resources: list[ServedResource]) -> Callable[[str, Object], None]:
    """What a stored object must be to be served: of the types without which nothing can be said of it.

    Raises ValueError when it is not. The rest of a custom resource is for its own schema, and of a CRD for its
    controller, to see.
    """
    schemas = {resource.stored_as: resource.schema for resource in resources if resource.stored_as != CRDS}

    def check(stored_as: str, obj: Object) -> None:
        try:
            if not all(obj.get(field) and isinstance(obj[field], str) for field in ("apiVersion", "kind")):
                raise ValueError("it has no apiVersion or kind")
            if not obj["metadata"].get("uid"):
                raise ValueError("it has no uid")
            schema.decode(schema.OBJECT_META, obj["metadata"], schema.Place("metadata", "metadata"))
            if (known := schemas.get(stored_as)) is not None:
                known.decode(obj)
        except schema.Undecodable as error:
            raise ValueError(str(error)) from None

    return check


def _builtin(group: str, version: str, plural: str, kind: str, *, stored_as: str = "", **more: Any) -> ServedResource:
    name = kind if group != "events.k8s.io" else f"{group}/{kind}"
    return ServedResource(
        group=group,
        version=version,
        plural=plural,
        kind=kind,
        singular=kind.lower(),
        list_kind=f"{kind}List",
        schema=schema.core_schema(name),
        columns=schema.Columns(kind),
        stored_as=stored_as or (f"{plural}.{group}" if group else plural),
        storage_version=version,
        **more,
    )


def _prepare_namespace(obj: Object, old: Object | None) -> None:
    """Every namespace can be selected by its name."""
    metadata = obj["metadata"]
    metadata["labels"] = {**(metadata.get("labels") or {}), "kubernetes.io/metadata.name": metadata.get("name", "")}


def _settle_namespace(obj: Object, old: Object | None) -> None:
    if old is None:
        obj["spec"] = {"finalizers": ["kubernetes"]}
        obj["status"] = {"phase": "Active"}
    else:
        obj["spec"] = old.get("spec") or {}


def _prepare_secret(obj: Object, old: Object | None) -> None:
    """`stringData` is for writing only: it is merged into `data`, which is base64."""
    texts = obj.pop("stringData", None)
    if texts:
        encoded = {key: base64.b64encode(text.encode()).decode() for key, text in texts.items()}
        obj["data"] = {**(obj.get("data") or {}), **encoded}


def _prepare_crd(obj: Object, old: Object | None) -> None:
    schema.default_crd(obj)


def _settle_crd(obj: Object, old: Object | None) -> None:
    if old is None:
        versions = [version["name"] for version in obj["spec"].get("versions") or () if version.get("storage")]
        obj["status"] = {
            "conditions": None,
            "acceptedNames": {"plural": "", "kind": ""},
            "storedVersions": versions,
        }
