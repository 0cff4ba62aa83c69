"""Hypothesis strategies for CRDs in the shapes that public ones have. Every API server accepts most of them."""

from __future__ import annotations

import copy
from typing import Any

from hypothesis import strategies as st

Raw = dict[str, Any]

_NAMES = st.sampled_from(
    ["a", "b", "name", "type", "items", "replicas", "x-y", "a.b", "é", "__in__", "namespace", "default"]
)
_TEXTS = st.sampled_from(["", "a", "abc", "1", "5m", "2026-01-01T00:00:00Z", "10.0.0.1", "é" * 20])
_STRINGS = st.one_of(
    st.just({"type": "string"}),
    st.builds(lambda text: {"type": "string", "default": text}, _TEXTS),
    st.builds(lambda text: {"type": "string", "enum": [text, "b"]}, _TEXTS),
    st.builds(lambda most: {"type": "string", "maxLength": most}, st.integers(0, 40)),
    st.sampled_from(["date-time", "duration", "byte", "uuid", "ipv4", "cidr", "uri"]).map(
        lambda name: {"type": "string", "format": name}
    ),
    st.sampled_from(["^[a-z]*$", "^.{0,9}$", "\\d+"]).map(lambda text: {"type": "string", "pattern": text}),
    st.just({"type": "string", "maxLength": 9, "x-kubernetes-validations": [{"rule": "self != 'abc'"}]}),
)
_NUMBERS = st.one_of(
    st.builds(lambda least: {"type": "integer", "minimum": least}, st.integers(-9, 9)),
    st.sampled_from(["int32", "int64"]).map(lambda name: {"type": "integer", "format": name}),
    st.sampled_from([{"type": "integer", "default": 3}, {"type": "number"}, {"type": "boolean", "default": True}]),
    st.just({"type": "integer", "x-kubernetes-validations": [{"rule": "self >= oldSelf", "message": "never less"}]}),
)
_FREE = st.sampled_from(
    [
        {"x-kubernetes-int-or-string": True},
        {
            "x-kubernetes-int-or-string": True,
            "anyOf": [{"type": "integer"}, {"type": "string"}],
            "pattern": "^[0-9]+m?$",
        },
        {"x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "x-kubernetes-embedded-resource": True, "x-kubernetes-preserve-unknown-fields": True},
        {"type": "object", "additionalProperties": True},
    ]
)
_LEAVES = st.one_of(_STRINGS, _NUMBERS, _FREE).map(copy.deepcopy)


def _objects(parts: st.SearchStrategy[Raw]) -> st.SearchStrategy[Raw]:
    def build(properties: Raw, required: int, extra: Raw) -> Raw:
        schema = {"type": "object", "properties": properties, **copy.deepcopy(extra)}
        names = sorted(properties)[:required]
        return schema | ({"required": names} if names else {})

    extras = st.sampled_from(
        [
            *[{}] * 5,
            {"nullable": True},
            {"x-kubernetes-map-type": "atomic"},
            {"x-kubernetes-validations": [{"rule": "size(self) >= 0", "messageExpression": "'no'"}]},
            {"minProperties": 1, "maxProperties": 9},
            {"description": "What is wanted."},
            {"not": {"required": ["no"]}},
        ]
    )  # fmt: skip
    return st.builds(build, st.dictionaries(_NAMES, parts, max_size=4), st.sampled_from([0, 0, 1]), extras)


def _lists(parts: st.SearchStrategy[Raw]) -> st.SearchStrategy[Raw]:
    def keyed(value: Raw) -> Raw:
        key = {"type": "string"}
        items = {"type": "object", "properties": {"name": key, "value": value}, "required": ["name"]}
        listed = {"x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
        return {"type": "array", "items": items, **listed}

    sets = st.sampled_from(["string", "integer"]).map(
        lambda name: {"type": "array", "items": {"type": name}, "x-kubernetes-list-type": "set", "maxItems": 9}
    )
    return st.one_of(parts.map(lambda items: {"type": "array", "items": items}), sets, parts.map(keyed))


def _nested(parts: st.SearchStrategy[Raw]) -> st.SearchStrategy[Raw]:
    maps = parts.map(lambda values: {"type": "object", "additionalProperties": values})
    return st.one_of(_objects(parts), _lists(parts), maps)


schemas = st.recursive(_LEAVES, _nested, max_leaves=8)


def _version(name: str, spec: Raw, status: Raw, extras: list[str]) -> Raw:
    replicas = {"type": "integer", "default": 1}
    spec = {"type": "object", "properties": {"replicas": replicas, "name": {"type": "string"}, "it": spec}}
    status = {"type": "object", "properties": {"replicas": {"type": "integer"}, "it": status}}
    root = {"type": "object", "properties": {"spec": spec, "status": status}}
    version: Raw = {"name": name, "served": True, "storage": False, "schema": {"openAPIV3Schema": root}}
    subresources: Raw = {"status": {}} if "status" in extras else {}
    if "scale" in extras:
        paths = {"specReplicasPath": ".spec.replicas", "statusReplicasPath": ".status.replicas"}
        subresources["scale"] = paths
    if subresources:
        version["subresources"] = subresources
    if "columns" in extras:
        version["additionalPrinterColumns"] = [
            {"name": "It", "type": "string", "jsonPath": ".spec.it"},
            {"name": "Replicas", "type": "integer", "jsonPath": ".spec.replicas", "priority": 1},
            {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
        ]
    if "selectable" in extras:
        version["selectableFields"] = [{"jsonPath": ".spec.name"}]
    return version


class Seed:
    """A CRD that a test starts from. Its repr is short, because public CRDs have megabytes, which would flood a failure
    message."""

    def __init__(self, crd: Raw) -> None:
        self.crd = crd

    def __repr__(self) -> str:
        return f"<{self.crd['metadata']['name']}>"


def seeds(known: list[Raw]) -> st.SearchStrategy[Seed]:
    """Returns a strategy for known or generated CRDs; if many are known, mostly for these."""
    many = len(known) > 10

    @st.composite
    def pick(draw: st.DrawFn) -> Seed:
        return Seed(known[draw(st.integers(0, len(known) - 1))] if draw(st.integers(0, 3)) < 2 + many else draw(crds()))

    return pick()


@st.composite
def crds(draw: st.DrawFn) -> Raw:
    extras = draw(st.lists(st.sampled_from(["status", "scale", "columns", "selectable"]), unique=True))
    names = draw(st.sampled_from([["v1"], ["v1"], ["v1alpha1", "v1"]]))
    versions = [_version(name, draw(schemas), draw(_LEAVES), extras) for name in names]
    versions[-1]["storage"] = True
    plural = draw(st.sampled_from(["things", "parts", "items"]))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.shapes.example.dev"},
        "spec": {
            "group": "shapes.example.dev",
            "scope": draw(st.sampled_from(["Namespaced", "Cluster"])),
            "names": {"plural": plural, "kind": plural.title()},
            "versions": versions,
        },
    }
