"""Mutates JSON documents at random, mostly so that a server processes much of them before it refuses them."""

from __future__ import annotations

import copy
import random
from typing import Any

JUNK: list[Any] = [
    None,
    True,
    False,
    0,
    -1,
    5,
    1.5,
    -0.0,
    1e308,
    2**31,
    2**63,
    2**64,
    "",
    "x",
    "X Y",
    "\x00",
    "a\r\nb",
    "é",
    "x" * 300,
    [],
    {},
    [None],
    [5],
    [{}],
    [[]],
    {"": None},
    {"a": 5},
    {"a": {"b": []}},
    "2026-01-01T00:00:00Z",
    "{",
    "$",
    "(",
    "/",
    "../..",
    "self",
    "self.a",
    "size(self) >",
    ".spec",
    ".spec[",
    "[*]",
    "object",
    "array",
    "string",
    "integer",
    "map",
    "set",
    "atomic",
    "true",
    "1",
    "f:a",
    {"f:a": {}},
    {"k:{": {}},
    {"rule": "self"},
    {"type": "string"},
    "foregroundDeletion",
    "orphan",
    "kubernetes",
    "example.dev/f",
    "default",
    "v1",
    "v2",
    "Established",
    "a.b.c",
    {"$patch": "replace"},
    {"$patch": "delete"},
    {"$retainKeys": ["a"]},
]
KEYS = [
    "", "a", "spec", "status", "metadata", "name", "labels", "finalizers", "ownerReferences", "managedFields", "uid",
    "resourceVersion", "generation", "deletionTimestamp", "items", "properties", "type", "enum", "default", "required",
    "nullable", "$ref", "x-kubernetes-validations", "x-kubernetes-list-type", "x-kubernetes-embedded-resource",
    "x-kubernetes-preserve-unknown-fields", "x-kubernetes-int-or-string", "additionalProperties", "pattern", "format",
    "conditions", "kind", "apiVersion", "data", "binaryData", "stringData", "immutable", "$patch", "$retainKeys",
    "$setElementOrder/finalizers", "$deleteFromPrimitiveList/finalizers", "multipleOf", "allOf", "not",
]  # fmt: skip


def places(value: Any) -> list[tuple[Any, Any]]:
    """Returns each container in `value` with each of its keys or indices."""
    found: list[tuple[Any, Any]] = []
    left = [value]
    while left:
        part = left.pop()
        keys = list(part) if isinstance(part, dict) else range(len(part)) if isinstance(part, list) else ()
        for key in keys:
            found.append((part, key))
            left.append(part[key])
    return found


def mutate(rng: random.Random, document: Any, times: int) -> Any:
    document = copy.deepcopy(document)
    for _ in range(times):
        choices = places(document)
        if not choices:
            return document
        holder, key = rng.choice(choices)
        match rng.randrange(7):
            case 0:
                holder[key] = copy.deepcopy(rng.choice(JUNK))
            case 1 | 2:  # of the same type, which passes more of the validation
                same = [junk for junk in JUNK if type(junk) is type(holder[key])]
                holder[key] = copy.deepcopy(rng.choice(same or JUNK))
            case 3:
                del holder[key]
            case 4:
                holder[key] = [copy.deepcopy(holder[key])] * rng.choice([1, 2])
            case 5:
                other, source = rng.choice(choices)
                if source in (range(len(other)) if isinstance(other, list) else other):
                    holder[key] = copy.deepcopy(other[source])
            case 6 if isinstance(holder, dict):
                holder[rng.choice(KEYS)] = copy.deepcopy(rng.choice(JUNK))
    return document
