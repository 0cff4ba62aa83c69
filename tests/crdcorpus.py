"""The CRDs that tests start from: Remit's own, one with every keyword, and those of the folder that REMIT_CRD_CORPUS
names.

Public CRDs (cert-manager, Argo CD, the Prometheus operator, …) are not kept here. `REMIT_CRD_CORPUS=folder make test`
adds those of a folder, with one or more documents in each `*.yaml`.
"""

from __future__ import annotations

import copy
import functools
import json
import os
from pathlib import Path
from typing import Any

import yaml

from controlplanes import ROOT, WIDGETS_CRD

CORPUS = "REMIT_CRD_CORPUS"
Raw = dict[str, Any]


def small_crd(name: str) -> Raw:
    crd = copy.deepcopy(WIDGETS_CRD)
    crd["metadata"]["name"] = f"{name}s.example.dev"
    crd["spec"]["names"] = {"plural": f"{name}s", "singular": name, "kind": name.title()}
    return crd


def gadgets_crd() -> Raw:
    """Returns a CRD with every keyword that a schema may have, and with two versions."""
    crd = small_crd("gadget")
    words: Raw = {
        "size": {"type": "integer", "format": "int32", "minimum": 0, "maximum": 9, "multipleOf": 1, "default": 1},
        "share": {"type": "number", "nullable": True},
        "port": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]},
        "when": {"type": "string", "format": "date-time"},
        "name": {"type": "string", "pattern": "^[a-z]+$", "maxLength": 9, "enum": ["a", "b"], "default": "a"},
        "set": {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "maxItems": 5},
        "rows": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["key"],
            "maxItems": 5,
            "items": {
                "type": "object",
                "required": ["key"],
                "properties": {"key": {"type": "string", "maxLength": 9}, "value": {"type": "string", "default": "v"}},
            },
        },
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "atomic": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"a": {"type": "string"}}},
        "anything": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        "template": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        },
    }
    (version,) = crd["spec"]["versions"]
    spec = version["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"] = words
    spec["x-kubernetes-validations"] = [
        {"rule": "self.size < 9 || has(self.name)", "message": "no"},
        {
            "rule": "!has(oldSelf.size) || self.size >= oldSelf.size",
            "messageExpression": "oldSelf.size > 5 ? 'was large' : 'was small'",
        },
        {"rule": "!has(self.rows) || self.rows.all(r, self.rows.exists(o, o.key == r.key))"},
    ]
    other = copy.deepcopy(version) | {"name": "v2", "storage": False, "deprecated": True}
    other["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["more"] = {"type": "string", "default": "m"}
    version["selectableFields"] = [{"jsonPath": ".spec.name"}]
    crd["spec"]["versions"].append(other)
    return crd


def remit_crds() -> list[Raw]:
    return [_load(path)[0] for path in sorted((ROOT / "crds").glob("*.yaml"))]


def public_crds() -> list[Raw]:
    """Returns the CRDs of the folder that REMIT_CRD_CORPUS names, as JSON, without the fields that a cluster sets."""
    folder = os.environ.get(CORPUS)
    return [crd for path in sorted(Path(folder).rglob("*.yaml")) for crd in _load(path)] if folder else []


@functools.cache
def _load(path: Path) -> list[Raw]:
    documents = yaml.load_all(path.read_bytes(), yaml.CSafeLoader)
    crds = [json.loads(json.dumps(crd, default=str)) for crd in documents if isinstance(crd, dict)]
    return [_as_written(crd) for crd in crds if crd.get("kind") == "CustomResourceDefinition" and _has_names(crd)]


def _has_names(crd: Raw) -> bool:
    """Returns whether the CRD has names. Templates of CRDs have none."""
    spec = crd.get("spec")
    names = spec.get("names") if isinstance(spec, dict) else None
    return isinstance(names, dict) and bool(names.get("plural"))


def _as_written(crd: Raw) -> Raw:
    """Returns the CRD with Remit's own conversion strategy, because a webhook is refused whatever else the CRD says."""
    kept = {key: value for key, value in crd.get("metadata", {}).items() if key in ("name", "labels", "annotations")}
    spec = {key: value for key, value in crd["spec"].items() if key != "conversion"}
    return {"apiVersion": "apiextensions.k8s.io/v1", "kind": crd["kind"], "metadata": kept, "spec": spec}
