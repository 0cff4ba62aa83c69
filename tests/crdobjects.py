"""Generates objects for CRDs, with values that mostly match a schema."""

from __future__ import annotations

import random
from typing import Any

Raw = dict[str, Any]

_DEEPEST = 8
_FORMATS: Raw = {
    "date-time": "2026-01-01T00:00:00Z",
    "date": "2026-01-01",
    "duration": "5m",
    "byte": "YQ==",
    "uuid": "123e4567-e89b-12d3-a456-426614174000",
    "ipv4": "10.0.0.1",
    "cidr": "10.0.0.0/8",
    "uri": "https://example.dev",
}


def sample(rng: random.Random, schema: Any, depth: int = 0) -> Any:
    """Returns a value for `schema` with all required fields and half of the others."""
    if not isinstance(schema, dict):
        return "a"
    if isinstance(choices := schema.get("enum"), list) and choices:
        return rng.choice(choices)
    if schema.get("x-kubernetes-int-or-string"):
        return rng.choice([1, "1"])
    match schema.get("type"):
        case "object":
            return _object(rng, schema, depth)
        case "array":
            items = schema.get("items")
            count = rng.choice([0, 1, 1, 2]) if depth < _DEEPEST else 0
            return [sample(rng, items, depth + 1) for _ in range(count)]
        case "string":
            return _FORMATS.get(str(schema.get("format")), rng.choice(["a", "abc", "1"]))
        case "integer" | "number":
            least = schema.get("minimum")
            return least if isinstance(least, int | float) else rng.choice([0, 1, 5])
        case "boolean":
            return rng.random() < 0.5
    return rng.choice([{"a": {"b": 1}}, "a", 1, [1], True])


def _object(rng: random.Random, schema: Raw, depth: int) -> Raw:
    value: Raw = {}
    if schema.get("x-kubernetes-embedded-resource"):
        value = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "a"}, "data": {"a": "b"}}
    required = schema.get("required")
    for name, part in _properties(schema).items():
        wanted = isinstance(required, list) and name in required
        if wanted or (depth < _DEEPEST and rng.random() < 0.5):
            value[name] = sample(rng, part, depth + 1)
    values = schema.get("additionalProperties")
    if isinstance(values, dict) and depth < _DEEPEST:
        value["key"] = sample(rng, values, depth + 1)
    elif values is True or schema.get("x-kubernetes-preserve-unknown-fields"):
        value["more"] = {"a": [{"b": 1}]}
    return value


def _properties(schema: Any) -> Raw:
    properties = schema.get("properties") if isinstance(schema, dict) else None
    return properties if isinstance(properties, dict) else {}


def object_of(rng: random.Random, crd: Raw, version: Raw, name: str) -> Raw:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    parts = {
        key: sample(rng, part)
        for key, part in _properties(schema).items()
        if key not in ("apiVersion", "kind", "metadata")
    }
    spec = crd["spec"]
    meta: Raw = {"name": name, "labels": {"a": "b"}}
    return {
        "apiVersion": f"{spec['group']}/{version['name']}",
        "kind": spec["names"]["kind"],
        "metadata": meta,
        **parts,
    }
