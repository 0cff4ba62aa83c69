"""Tests validation errors, which have exactly the texts of kube-apiserver."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema import Cause, Schema

Raw = dict[str, Any]

TEXT = {"type": "string"}
NUMBER = {"type": "integer"}


def schema(of_a: Raw, **more: Any) -> Schema:
    """Returns a schema whose one field `a` has the schema under test."""
    return Schema.compile({"type": "object", "properties": {"a": of_a}, **more})


def wrong(of_a: Raw, value: Any) -> list[tuple[str, str]]:
    return [(cause.field, cause.message) for cause in schema(of_a).validate({"a": value})]


@pytest.mark.parametrize(
    ("of_a", "value", "message"),
    [
        (NUMBER, "2", 'Invalid value: "string": a in body must be of type integer: "string"'),
        (NUMBER, True, 'Invalid value: "boolean": a in body must be of type integer: "boolean"'),
        (NUMBER, 2.5, 'Invalid value: "number": a in body must be of type integer: "number"'),
        (NUMBER, None, 'Invalid value: "null": a in body must be of type integer: "null"'),
        (TEXT, [], 'Invalid value: "array": a in body must be of type string: "array"'),
        (TEXT, {}, 'Invalid value: "object": a in body must be of type string: "object"'),
        ({**NUMBER, "minimum": 1}, 0, "Invalid value: 0: a in body should be greater than or equal to 1"),
        ({**NUMBER, "maximum": 1}, 2, "Invalid value: 2: a in body should be less than or equal to 1"),
        ({**NUMBER, "minimum": 1, "exclusiveMinimum": True}, 1, "Invalid value: 1: a in body should be greater than 1"),
        ({**NUMBER, "maximum": 1, "exclusiveMaximum": True}, 1, "Invalid value: 1: a in body should be less than 1"),
        ({"type": "array", "items": NUMBER, "maxItems": 2}, [1, 2, 3], "Too many: 3: must have at most 2 items"),
        ({**NUMBER, "multipleOf": 5}, 7, "Invalid value: 7: a in body should be a multiple of 5"),
        ({**TEXT, "pattern": "^a+$"}, "b", "Invalid value: \"b\": a in body should match '^a+$'"),
        ({**TEXT, "minLength": 2}, "b", 'Invalid value: "b": a in body should be at least 2 chars long'),
        ({**TEXT, "enum": ["x", "y"]}, "z", 'Unsupported value: "z": supported values: "x", "y"'),
        (
            {**TEXT, "format": "ipv4"},
            "10.0.0",
            'Invalid value: "10.0.0": a in body must be of type ipv4: "10.0.0"',
        ),
        ({"type": "array", "items": NUMBER, "maxItems": 1}, [1, 2], "Too many: 2: must have at most 1 item"),
        (
            {"type": "array", "items": NUMBER, "minItems": 1},
            [],
            "Invalid value: 0: a in body should have at least 1 items",
        ),
        (
            {"type": "object", "additionalProperties": NUMBER, "maxProperties": 1},
            {"x": 1, "y": 2},
            "Too many: 2: must have at most 1 item",
        ),
        (
            {"type": "object", "additionalProperties": NUMBER, "minProperties": 1},
            {},
            "Invalid value: 0: a in body should have at least 1 properties",
        ),
        (
            {"x-kubernetes-int-or-string": True},
            [],
            'Invalid value: "array": a in body must be of type integer,string: "array"',
        ),
    ],
)
def test_each_keyword_says_what_it_wants(of_a: Raw, value: Any, message: str) -> None:
    assert wrong(of_a, value) == [("a", message)]


@pytest.mark.parametrize(
    ("of_a", "value"),
    [
        (NUMBER, 2.0),
        ({"type": "number"}, 2),
        ({**NUMBER, "nullable": True}, None),
        ({**NUMBER, "minimum": 1, "maximum": 3, "exclusiveMaximum": True}, 2),
        ({"type": "number", "multipleOf": 0.1}, 0.3),
        ({**TEXT, "minLength": 2, "maxLength": 2}, "öä"),
        ({"x-kubernetes-int-or-string": True}, "50%"),
        ({"x-kubernetes-int-or-string": True}, 5),
        ({"x-kubernetes-preserve-unknown-fields": True}, [{"anything": None}]),
    ],
)
def test_what_fits_is_let_be(of_a: Raw, value: Any) -> None:
    assert wrong(of_a, value) == []


def test_mistakes_are_told_with_where_they_are() -> None:
    item = {"type": "object", "required": ["name"], "properties": {"name": TEXT, "port": NUMBER}}
    found = wrong({"type": "array", "items": item}, [{"name": "x"}, {"port": "y"}])
    assert found == [
        ("a[1].name", "Required value"),
        ("a[1].port", 'Invalid value: "string": a[1].port in body must be of type integer: "string"'),
    ]


@pytest.mark.parametrize(
    ("of_a", "value", "found"),
    [
        (
            {"type": "array", "items": TEXT, "x-kubernetes-list-type": "set"},
            ["x", "y", "x", "x"],
            [("a[2]", 'Duplicate value: "x"')],
        ),
        (
            {
                "type": "array",
                "items": {"type": "object", "required": ["name"], "properties": {"name": TEXT, "port": NUMBER}},
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["name"],
            },
            [{"name": "x", "port": 1}, {"name": "y"}, {"port": 2, "name": "x"}],
            [("a[2]", 'Duplicate value: {"name":"x"}')],
        ),
    ],
)
def test_lists_with_identity_hold_each_item_once(of_a: Raw, value: Any, found: list[tuple[str, str]]) -> None:
    assert wrong(of_a, value) == found


BOTH: Raw = {"type": "object", "properties": {"x": TEXT, "y": TEXT}}


@pytest.mark.parametrize(
    ("logic", "value", "messages"),
    [
        ({"oneOf": [{"required": ["x"]}, {"required": ["y"]}]}, {"x": ""}, []),
        (
            {"oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
            {"x": "", "y": ""},
            ['Invalid value: "": "a" must validate one and only one schema (oneOf). Found 2 valid alternatives'],
        ),
        (
            {"oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
            {},
            [
                'Invalid value: "": "a" must validate one and only one schema (oneOf). Found none valid',
                "Required value",
            ],
        ),
        (
            {"anyOf": [{"required": ["x"]}, {"required": ["y"]}]},
            {},
            ['Invalid value: "": "a" must validate at least one schema (anyOf)', "Required value"],
        ),
        ({"anyOf": [{"required": ["x"]}, {"required": ["y"]}]}, {"y": ""}, []),
        ({"not": {"required": ["x"]}}, {"x": ""}, ['Invalid value: "": "a" must not validate the schema (not)']),
        ({"not": {"required": ["x"]}}, {"y": ""}, []),
        (
            {"allOf": [{"properties": {"x": {"pattern": "^v"}}}, {"required": ["y"]}]},
            {"x": "w"},
            [
                "Invalid value: \"w\": a.x in body should match '^v'",
                "Required value",
                'Invalid value: "": "a" must validate all the schemas (allOf). None validated',
            ],
        ),
        (
            {"allOf": [{"required": ["x"]}, {"required": ["y"]}]},
            {"x": ""},
            ["Required value", 'Invalid value: "": "a" must validate all the schemas (allOf)'],
        ),
    ],
)
def test_logic(logic: Raw, value: Raw, messages: list[str]) -> None:
    assert [message for _, message in wrong({**BOTH, **logic}, value)] == messages


def test_rules_are_not_asked_of_a_broken_shape() -> None:
    broken = schema(NUMBER, **{"x-kubernetes-validations": [{"rule": "self.a > 1"}]}).validate({"a": "x"})
    assert [cause.reason for cause in broken] == ["FieldValueTypeInvalid", "FieldValueInvalid"]
    assert broken[1].field == "<nil>" and "some validation rules were not checked" in broken[1].message


PORTS: Raw = {
    "type": "array",
    "x-kubernetes-list-type": "map",
    "x-kubernetes-list-map-keys": ["name"],
    "items": {
        "type": "object",
        "required": ["name"],
        "properties": {"name": TEXT, "port": {**NUMBER, "maximum": 9}},
    },
}


class TestRatcheting:
    """An object may keep the errors that it was stored with, but must not have new ones."""

    def test_an_old_mistake_is_let_be(self) -> None:
        short = schema({**TEXT, "maxLength": 1})
        assert short.validate({"a": "long"}, {"a": "long"}) == []

    def test_a_new_mistake_is_not(self) -> None:
        short = schema({**TEXT, "minLength": 9})
        assert [cause.field for cause in short.validate({"a": "longer"}, {"a": "long"})] == ["a"]

    def test_an_item_is_known_by_its_key_wherever_it_stands(self) -> None:
        old = {"a": [{"name": "x", "port": 10}, {"name": "y", "port": 1}]}
        moved = {"a": [{"name": "y", "port": 2}, {"name": "x", "port": 10}]}
        assert schema(PORTS).validate(moved, old) == []
        raised = {"a": [{"name": "y", "port": 11}, {"name": "x", "port": 10}]}
        assert [cause.field for cause in schema(PORTS).validate(raised, old)] == ["a[0].port"]

    def test_an_atomic_list_is_new_as_a_whole(self) -> None:
        atomic = schema({"type": "array", "items": {**NUMBER, "maximum": 9}})
        assert [cause.field for cause in atomic.validate({"a": [10, 1]}, {"a": [10]})] == ["a[0]"]

    def test_a_rule_is_asked_again_only_of_what_changed(self) -> None:
        ruled = schema({**NUMBER, "x-kubernetes-validations": [{"rule": "self < 5"}]}, required=["a"])
        assert ruled.validate({"a": 9}, {"a": 9}) == []
        assert ruled.validate({"a": 8}, {"a": 9}) == [
            Cause("FieldValueInvalid", "Invalid value: 8: failed rule: self < 5", "a")
        ]


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abxy"), inner, max_size=3),
    max_leaves=8,
)
MIXED = Schema.compile(
    {
        "type": "object",
        "properties": {
            "a": {**NUMBER, "minimum": 3, "default": 4},
            "b": PORTS,
            "x": {**BOTH, "oneOf": [{"required": ["x"]}, {"required": ["y"]}]},
        },
        "required": ["x"],
    }
)
OBJECTS = st.dictionaries(st.sampled_from(["a", "b", "x", "unknown"]), JSON)


@given(OBJECTS)
def test_an_object_that_has_not_changed_is_never_refused(obj: Raw) -> None:
    assert MIXED.validate(obj, copy.deepcopy(obj)) == []


@given(OBJECTS)
def test_validation_says_something_about_any_object_and_changes_none(obj: Raw) -> None:
    before = copy.deepcopy(obj)
    causes = MIXED.validate(obj)
    assert obj == before
    assert all(cause.message for cause in causes)
    assert ("x" in obj) == (("x", "Required value") not in {(cause.field, cause.message) for cause in causes})


@given(OBJECTS)
def test_pruning_and_defaulting_once_is_enough(obj: Raw) -> None:
    MIXED.prune(obj)
    MIXED.default(obj)
    assert "unknown" not in obj and "a" in obj
    once = copy.deepcopy(obj)
    assert MIXED.prune(obj) == []
    MIXED.default(obj)
    assert obj == once
