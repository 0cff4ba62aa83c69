"""The suite's own custom resource, which uses every feature of a CRD."""

from __future__ import annotations

from typing import Any

GROUP = "conformance.example.com"


def crd(kind: str, schema: dict[str, Any], group: str = "", **version: Any) -> dict[str, Any]:
    """Returns a namespaced CRD of `kind` with the plural `{kind}s` and one version, v1; `version` adds to that
    version."""
    plural = kind.lower() + "s"
    v1 = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
    names = {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{group}"},
        "spec": {"group": group, "scope": "Namespaced", "names": names, "versions": [v1]},
    }


def in_group(crd: dict[str, Any], group: str) -> dict[str, Any]:
    """Returns `crd` moved to `group`."""
    plural = crd["spec"]["names"]["plural"]
    return crd | {"metadata": {"name": f"{plural}.{group}"}, "spec": crd["spec"] | {"group": group}}


def spec_schema(rules: list[dict[str, Any]] | None = None, **properties: Any) -> dict[str, Any]:
    """Returns an object schema whose `spec` has `properties` and the CEL `rules`."""
    spec: dict[str, Any] = {"type": "object", "properties": properties}
    spec |= {"x-kubernetes-validations": rules} if rules else {}
    return {"type": "object", "properties": {"spec": spec}}


def widget(name: str | None = "a", *, spec: Any = None, **metadata: Any) -> dict[str, Any]:
    named = {"name": name} if name else {}
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Widget",
        "metadata": {**named, **metadata},
        "spec": {"size": 1} if spec is None else spec,
    }


def configmap(name: str, data: dict[str, str] | None = None, **metadata: Any) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name, **metadata}, "data": data or {}}


_PORT = {
    "type": "object",
    "required": ["name"],
    "properties": {
        "name": {"type": "string"},
        "protocol": {"type": "string", "default": "TCP"},
        "port": {"type": "integer", "format": "int32"},
    },
}

WIDGET = crd(
    "Widget",
    {
        "type": "object",
        "description": "A widget.",
        "required": ["spec"],
        "properties": {
            "spec": {
                "type": "object",
                "description": "What is wished.",
                "properties": {
                    "size": {"type": "integer", "minimum": 0, "maximum": 100},
                    "color": {"type": "string", "default": "red", "enum": ["red", "green", "blue"]},
                    "code": {"type": "string", "maxLength": 8, "pattern": "^[a-z]*$"},
                    "ratio": {"type": "number"},
                    "on": {"type": "boolean"},
                    "share": {"x-kubernetes-int-or-string": True},
                    "replicas": {"type": "integer", "format": "int32"},
                    "labels": {"type": "object", "additionalProperties": {"type": "string"}},
                    "tags": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"},
                    "list": {"type": "array", "items": {"type": "string"}, "maxItems": 5},
                    "ports": {
                        "type": "array",
                        "items": _PORT,
                        "x-kubernetes-list-type": "map",
                        "x-kubernetes-list-map-keys": ["name", "protocol"],
                    },
                    "inner": {
                        "type": "object",
                        "properties": {
                            "level": {"type": "integer", "default": 3},
                            "note": {"type": "string", "nullable": True},
                        },
                    },
                    "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
                    "atom": {
                        "type": "object",
                        "x-kubernetes-map-type": "atomic",
                        "additionalProperties": {"type": "string"},
                    },
                },
            },
            "status": {
                "type": "object",
                "properties": {
                    "phase": {"type": "string"},
                    "replicas": {"type": "integer", "format": "int32"},
                    "selector": {"type": "string"},
                    "observedGeneration": {"type": "integer"},
                },
            },
        },
    },
    group=GROUP,
    subresources={
        "status": {},
        "scale": {
            "specReplicasPath": ".spec.replicas",
            "statusReplicasPath": ".status.replicas",
            "labelSelectorPath": ".status.selector",
        },
    },
    selectableFields=[{"jsonPath": ".spec.color"}],
    additionalPrinterColumns=[
        {"name": "Size", "type": "integer", "jsonPath": ".spec.size", "description": "How big."},
        {"name": "Color", "type": "string", "jsonPath": ".spec.color", "priority": 1},
        {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    ],
)
WIDGET["spec"]["names"] |= {"shortNames": ["wi"], "categories": ["conformance"]}
