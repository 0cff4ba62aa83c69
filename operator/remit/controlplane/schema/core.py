"""The built-in kinds: their schemas, as structural as a CRD's, and the rules that no schema can say."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any, Final

from remit.controlplane.schema.causes import Cause
from remit.controlplane.schema.celcost import Budget
from remit.controlplane.schema.decoding import decode
from remit.controlplane.schema.schema import Schema
from remit.controlplane.schema.schemaprops import decode_schemas
from remit.controlplane.schema.structural import compile_node

Raw = dict[str, Any]

MAX_DATA: Final = 1 << 20
"""Bytes that a ConfigMap or a Secret may hold."""
_KEY: Final = re.compile(r"[-._a-zA-Z0-9]+", re.ASCII)

STRING: Final[Raw] = {"type": "string"}
_INT32: Final[Raw] = {"type": "integer", "format": "int32"}
_INT64: Final[Raw] = {"type": "integer", "format": "int64"}
_BOOLEAN: Final[Raw] = {"type": "boolean"}
_TIME: Final[Raw] = {"type": "string", "format": "date-time", "nullable": True}
_BYTES: Final[Raw] = {"type": "string", "format": "byte", "nullable": True}
_ANYTHING: Final[Raw] = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


def _object(about: str = "", *, required: tuple[str, ...] = (), **properties: Raw) -> Raw:
    schema: Raw = {"type": "object", "properties": properties}
    if about:
        schema["description"] = about
    return schema | ({"required": list(required)} if required else {})


def _list(items: Raw, **more: Any) -> Raw:
    return {"type": "array", "items": items, **more}


def _map(values: Raw, description: str = "") -> Raw:
    return {"type": "object", "additionalProperties": values, **({"description": description} if description else {})}


_REFERENCE: Final = _object(
    kind=STRING, namespace=STRING, name=STRING, uid=STRING, apiVersion=STRING, resourceVersion=STRING, fieldPath=STRING
) | {"x-kubernetes-map-type": "atomic"}
_SOURCE: Final = _object(component=STRING, host=STRING)
_SERIES: Final = _object(count=_INT32, lastObservedTime=_TIME)
_CONDITION: Final = _object(
    type={**STRING, "default": ""},
    status=STRING,
    reason=STRING,
    message=STRING,
    lastTransitionTime=_TIME,
    observedGeneration=_INT64,
)
_CONDITIONS: Final = _list(
    _CONDITION, **{"nullable": True, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["type"]}
)
_NAMES: Final = _object(
    plural=STRING,
    singular=STRING,
    kind=STRING,
    listKind=STRING,
    shortNames=_list(STRING, **{"x-kubernetes-list-type": "atomic"}),
    categories=_list(STRING, **{"x-kubernetes-list-type": "atomic"}),
)
_COLUMN: Final = _object(name=STRING, type=STRING, format=STRING, description=STRING, priority=_INT32, jsonPath=STRING)
_VERSION: Final = _object(
    required=("name", "served", "storage"),
    name=STRING,
    served=_BOOLEAN,
    storage=_BOOLEAN,
    deprecated=_BOOLEAN,
    deprecationWarning=STRING,
    schema=_object(openAPIV3Schema=_ANYTHING),
    subresources=_object(
        status=_ANYTHING,
        scale=_object(specReplicasPath=STRING, statusReplicasPath=STRING, labelSelectorPath=STRING),
    ),
    additionalPrinterColumns=_list(_COLUMN),
    selectableFields=_list(_object(jsonPath=STRING)),
)

SCHEMAS: Final[dict[str, Raw]] = {
    "Namespace": _object(
        "Namespace provides a scope for Names. Use of multiple namespaces is optional.",
        spec=_object(finalizers=_list(STRING)),
        status=_object(phase=STRING, conditions=_CONDITIONS),
    ),
    "ConfigMap": _object(
        "ConfigMap holds configuration data for pods to consume.",
        data=_map(STRING, "Data contains the configuration data."),
        binaryData=_map(_BYTES, "BinaryData contains the binary data."),
        immutable={**_BOOLEAN, "description": "If true, the data cannot be updated."},
    ),
    "Secret": _object(
        "Secret holds secret data of a certain type.",
        data=_map(_BYTES, "Data contains the secret data, in base64."),
        stringData=_map(STRING, "A write-only convenience: plain strings that are merged into data."),
        type={**STRING, "description": "Used to facilitate programmatic handling of secret data.", "default": "Opaque"},
        immutable={**_BOOLEAN, "description": "If true, the data cannot be updated."},
    ),
    "Event": _object(
        "Event is a report of an event somewhere in the cluster.",
        involvedObject=_REFERENCE,
        reason=STRING,
        message=STRING,
        source=_SOURCE,
        firstTimestamp=_TIME,
        lastTimestamp=_TIME,
        count=_INT32,
        type=STRING,
        eventTime=_TIME,
        series=_SERIES,
        action=STRING,
        related=_REFERENCE,
        reportingComponent=STRING,
        reportingInstance=STRING,
    ),
    "events.k8s.io/Event": _object(
        "Event is a report of an event somewhere in the cluster.",
        eventTime=_TIME,
        series=_SERIES,
        reportingController=STRING,
        reportingInstance=STRING,
        action=STRING,
        reason=STRING,
        regarding=_REFERENCE,
        related=_REFERENCE,
        note=STRING,
        type=STRING,
        deprecatedSource=_SOURCE,
        deprecatedFirstTimestamp=_TIME,
        deprecatedLastTimestamp=_TIME,
        deprecatedCount=_INT32,
    ),
    "Lease": _object(
        "Lease defines a lease concept.",
        spec=_object(
            holderIdentity=STRING,
            leaseDurationSeconds=_INT32,
            acquireTime=_TIME,
            renewTime=_TIME,
            leaseTransitions=_INT32,
            strategy=STRING,
            preferredHolder=STRING,
        ),
    ),
    "ControllerRevision": _object(
        "ControllerRevision implements an immutable snapshot of state data.",
        required=("revision",),
        data=_ANYTHING,
        revision=_INT64,
    ),
    "CustomResourceDefinition": _object(
        "CustomResourceDefinition represents a resource that should be exposed on the API server.",
        required=("spec",),
        spec=_object(
            required=("group", "names", "scope", "versions"),
            group=STRING,
            names=_NAMES,
            scope=STRING,
            versions=_list(_VERSION, **{"x-kubernetes-list-type": "atomic"}),
            conversion=_object(strategy=STRING, webhook=_ANYTHING),
            preserveUnknownFields=_BOOLEAN,
        ),
        status=_object(
            conditions=_CONDITIONS,
            acceptedNames=_NAMES,
            storedVersions=_list(STRING, **{"x-kubernetes-list-type": "atomic"}),
            observedGeneration=_INT64,
        ),
    ),
}


class CoreSchema(Schema):
    """A schema with rules beside it."""

    def __init__(self, raw: Raw, rules: Callable[[Raw, Raw | None], list[Cause]] | None) -> None:
        super().__init__(raw, compile_node(raw, "", resource=True))
        self._rules = rules
        self._of_crds = raw is SCHEMAS["CustomResourceDefinition"]

    def decode(self, obj: Raw) -> None:
        decode(self.raw, obj)
        if self._of_crds:
            decode_schemas(obj)

    def prune(self, obj: Raw) -> list[str]:
        unknown = super().prune(obj)
        if self._of_crds:
            decode_schemas(obj, unknown)
        return unknown

    def validate(self, obj: Raw, old: Raw | None = None, budget: Budget | None = None) -> list[Cause]:
        causes = super().validate(obj, old, budget)
        if self._of_crds:  # Go takes a missing field as empty, and the rules for CRDs report it at a deeper path
            causes = [cause for cause in causes if cause.reason != "FieldValueRequired"]
        return causes if causes or self._rules is None else self._rules(obj, old)


def core_schema(kind: str) -> CoreSchema:
    """The schema of a built-in kind, by its name; `events.k8s.io/Event` for the newer view of events."""
    rules = {"ConfigMap": _data_rules, "Secret": _data_rules}.get(kind)
    return CoreSchema(SCHEMAS[kind], rules)


def _data_rules(obj: Raw, old: Raw | None) -> list[Cause]:
    """The rules of ConfigMaps and Secrets: their keys, their size, and that immutable ones stay as they are."""
    causes = []
    total = 0.0
    for field in ("data", "binaryData"):
        for key, value in (obj.get(field) or {}).items():
            total += len(value or "") * (3 / 4 if obj.get("kind") == "Secret" or field == "binaryData" else 1)
            if not _KEY.fullmatch(key) or len(key) > 253 or key in {".", ".."} or key.startswith(".."):
                message = (
                    f"Invalid value: \"{key}\": a valid config key must consist of alphanumeric characters, '-', '_' or"
                    " '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is"
                    " '[-._a-zA-Z0-9]+')"
                )
                causes.append(Cause("FieldValueInvalid", message, f"{field}[{key}]"))
    if total > MAX_DATA:
        field = "data" if obj.get("kind") == "Secret" else ""
        causes.append(Cause("FieldValueTooLong", f"Too long: may not be more than {MAX_DATA} bytes", field))
    if old is not None and old.get("immutable"):
        if not obj.get("immutable"):
            causes.append(_frozen("immutable"))
        causes += [_frozen(field) for field in ("data", "binaryData") if obj.get(field) != old.get(field)]
    if old is not None and obj.get("kind") == "Secret" and obj.get("type") != old.get("type"):
        message = f'Invalid value: "{obj.get("type")}": field is immutable'
        causes.append(Cause("FieldValueInvalid", message, "type"))
    return causes


def _frozen(field: str) -> Cause:
    return Cause("FieldValueForbidden", "Forbidden: field is immutable when `immutable` is set", field)
