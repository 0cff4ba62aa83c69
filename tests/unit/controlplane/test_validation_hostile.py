"""Tests objects and schemas that try to bypass validation, or to stop the server."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema import Invalid, Schema

ONE_FIELD_IS_READ_IN_PASSING = [
    pytest.param("self.a == 1 // don't\n && !has(self.b) // it's\n", id="apostrophes in comments"),
    pytest.param(
        r"!self.s.contains(r'\') && !has(self.b) && self.s != 'q'", id="a raw string that ends in a backslash"
    ),
    pytest.param('self.s != """a"b""" && !has(self.b) && self.s != "q"', id="a quote in triple quotes"),
    pytest.param("self.s != 'it\\'s' && !has(self.b) && self.s != 'q'", id="an escaped quote"),
    pytest.param("self.s != '//' && !has(self.b)", id="slashes in a string"),
]


def _schema(*rules: str, **properties: Any) -> Schema:
    spec = {
        "type": "object",
        "properties": properties,
        "x-kubernetes-validations": [{"rule": rule, "message": "refused"} for rule in rules],
    }
    return Schema.compile({"type": "object", "properties": {"spec": spec}})


def _messages(schema: Schema, spec: Any, old: Any = None) -> list[str]:
    before = None if old is None else {"spec": old}
    return [cause.message for cause in schema.validate({"spec": spec}, before)]


@pytest.mark.parametrize("rule", ONE_FIELD_IS_READ_IN_PASSING)
def test_a_rule_sees_every_field_that_it_reads(rule: str) -> None:
    string = {"type": "string"}
    schema = _schema(rule, a={"type": "integer"}, b=string, s=string)
    assert _messages(schema, {"a": 1, "s": "z"}) == []
    assert _messages(schema, {"a": 1, "s": "z", "b": "set"}) == ["Invalid value: refused"]


literals = st.sampled_from(
    ["'x'", '"x"', "'\\''", '"\\""', r"r'\'", r'R"\"', "'''a'b'''", '"""a"b"""', "r'''\\'''", "'self.b'", "'//'"]
)


@given(st.lists(literals, max_size=6), st.lists(literals, max_size=6))
def test_no_mix_of_literals_hides_a_field(before: list[str], after: list[str]) -> None:
    def list_of(items: list[str]) -> str:
        return f"size([{', '.join(items)}]) == {len(items)}"

    schema = _schema(f"{list_of(before)} && !has(self.b) && {list_of(after)}", b={"type": "string"})
    assert _messages(schema, {}) == []
    assert _messages(schema, {"b": "set"}) == ["Invalid value: refused"]


@pytest.mark.parametrize(
    ("declared", "old", "new"),
    [("integer", 1, True), ("integer", 0, False), ("boolean", True, 1), ("boolean", False, 0), ("number", 1.0, True)],
)
def test_a_value_of_another_type_is_not_taken_for_the_old_one(declared: str, old: Any, new: Any) -> None:
    schema = _schema(v={"type": declared}, deep={"type": "array", "items": {"type": declared}})
    assert _messages(schema, {"v": old, "deep": [old]}, {"v": old, "deep": [old]}) == []
    found = _messages(schema, {"v": new, "deep": [new]}, {"v": old, "deep": [old]})
    assert len(found) == 2
    assert all(f"must be of type {declared}" in message for message in found)


def test_an_enum_keeps_true_and_one_apart() -> None:
    schema = _schema(v={"x-kubernetes-preserve-unknown-fields": True, "enum": [1, "a"]})
    assert _messages(schema, {"v": 1}) == []
    assert _messages(schema, {"v": True}) == ['Unsupported value: true: supported values: 1, "a"']


@pytest.mark.parametrize("rule", ["self.a" + " + 1" * 20_000 + " > 0", "self" + ".a" * 20_000])
def test_a_rule_long_enough_to_overflow_the_stack_is_refused_with_its_schema(rule: str) -> None:
    with pytest.raises(Invalid, match=r"at most 4000"):
        _schema(rule, a={"type": "integer"})
