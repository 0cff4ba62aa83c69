"""Tests that unknown fields are pruned, known fields are kept, and defaults are set."""

from __future__ import annotations

from typing import Any

import pytest

from remit.controlplane.schema import Schema

Raw = dict[str, Any]

SCHEMA = Schema.compile(
    {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "integer", "default": 3},
                    "note": {"type": "string", "nullable": True, "default": "none"},
                    "map": {"type": "object", "additionalProperties": {"type": "string"}},
                    "any": {"type": "object", "additionalProperties": True},
                    "open": {
                        "type": "object",
                        "x-kubernetes-preserve-unknown-fields": True,
                        "properties": {"shut": {"type": "object", "properties": {"in": {"type": "string"}}}},
                    },
                    "rows": {
                        "type": "array",
                        "items": {"type": "object", "properties": {"cells": {"type": "integer", "default": 1}}},
                    },
                    "template": {
                        "type": "object",
                        "x-kubernetes-embedded-resource": True,
                        "properties": {"spec": {"type": "object", "default": {}}},
                    },
                },
            }
        },
    }
)


@pytest.mark.parametrize(
    ("spec", "left", "gone"),
    [
        ({"size": 1, "siez": {"deep": 1}}, {"size": 1}, ["spec.siez"]),
        ({"map": {"any": "key"}}, {"map": {"any": "key"}}, []),
        (
            {"any": {"a": [{"b": 1}], "c": {"d": 2}, "e": 3}},
            {"any": {"a": [{}], "c": {}, "e": 3}},
            ["spec.any.a[0].b", "spec.any.c.d"],
        ),
        (
            {"open": {"free": {"a": 1}, "shut": {"in": "x", "out": 1}}},
            {"open": {"free": {"a": 1}, "shut": {"in": "x"}}},
            ["spec.open.shut.out"],
        ),
        ({"rows": [{"cells": 1}, {"cels": 2}, None, "text"]}, {"rows": [{"cells": 1}, {}, None, "text"]},
         ["spec.rows[1].cels"]),
        (
            {"template": {"kind": "T", "apiVersion": "v1", "metadata": {"name": "x", "nam": 1}, "data": 1}},
            {"template": {"kind": "T", "apiVersion": "v1", "metadata": {"name": "x"}}},
            ["spec.template.metadata.nam", "spec.template.data"],
        ),
        ({"template": {"metadata": "odd"}}, {"template": {"metadata": "odd"}}, []),
    ],
)  # fmt: skip
def test_prune(spec: Raw, left: Raw, gone: list[str]) -> None:
    obj = {"apiVersion": "v1", "kind": "K", "metadata": {"name": "a"}, "spec": spec}
    assert SCHEMA.prune(obj) == gone
    assert obj == {"apiVersion": "v1", "kind": "K", "metadata": {"name": "a"}, "spec": left}


def test_the_root_is_pruned_as_a_resource() -> None:
    obj = {"kind": "K", "metadata": {"name": "a", "nam": "b"}, "extra": 1}
    assert SCHEMA.prune(obj) == ["metadata.nam", "extra"]
    assert obj == {"kind": "K", "metadata": {"name": "a"}}


@pytest.mark.parametrize(
    ("spec", "filled"),
    [
        ({}, {"size": 3, "note": "none"}),
        ({"size": 0, "note": ""}, {"size": 0, "note": ""}),
        ({"size": None}, {"size": 3, "note": "none"}),
        ({"note": None}, {"size": 3, "note": None}),
        ({"map": None}, {"size": 3, "note": "none"}),
        ({"rows": [{}, {"cells": 5}]}, {"size": 3, "note": "none", "rows": [{"cells": 1}, {"cells": 5}]}),
        ({"template": {}}, {"size": 3, "note": "none", "template": {"spec": {}}}),
    ],
)
def test_default(spec: Raw, filled: Raw) -> None:
    obj = {"spec": spec}
    SCHEMA.default(obj)
    assert obj == {"spec": filled}


def test_a_default_is_not_shared_between_objects() -> None:
    first: Raw = {"spec": {"template": {}}}
    SCHEMA.default(first)
    first["spec"]["template"]["spec"]["x"] = 1
    second: Raw = {"spec": {"template": {}}}
    SCHEMA.default(second)
    assert second["spec"]["template"]["spec"] == {}
