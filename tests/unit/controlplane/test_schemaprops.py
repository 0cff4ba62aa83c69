"""Tests that schemas of CRDs are decoded once, with the same changes and refusals each time."""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

import pytest

from remit.api.definitions import crds
from remit.controlplane.schema import schemaprops
from remit.controlplane.schema.decoding import Undecodable
from remit.controlplane.schema.schemaprops import decode_schemas


@pytest.fixture(autouse=True)
def decoded(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Any]]:
    """Provides what was decoded, with an empty cache."""
    found, decode = list[Any](), schemaprops.decode

    def counted(schema: Any, value: Any, *rest: Any) -> None:
        found.append(value)
        decode(schema, value, *rest)

    monkeypatch.setattr(schemaprops, "decode", counted)
    monkeypatch.setattr(schemaprops, "_remembered", {})
    yield found


def crd(schema: Any) -> dict[str, Any]:
    return {"spec": {"versions": [{"schema": {"openAPIV3Schema": copy.deepcopy(schema)}}]}}


def schema(of: dict[str, Any]) -> Any:
    return of["spec"]["versions"][0]["schema"]["openAPIV3Schema"]


def test_what_was_decoded_is_not_decoded_again(decoded: list[Any]) -> None:
    for _ in range(2):
        for each in crds():
            decode_schemas(each)
    assert len(decoded) == len(crds())


def test_nulls_are_made_what_they_are_each_time(decoded: list[Any]) -> None:
    for _ in range(2):
        given = crd({"type": "object", "title": None})
        decode_schemas(given)
        assert schema(given) == {"type": "object"}


def test_unknown_fields_are_taken_out_of_what_was_decoded_with_them(decoded: list[Any]) -> None:
    odd = {"type": "object", "odd": 1}
    decode_schemas(crd(odd))
    for _ in range(2):
        given, unknown = crd(odd), list[str]()
        decode_schemas(given, unknown)
        assert unknown == ["spec.versions[0].schema.openAPIV3Schema.odd"]
        assert schema(given) == {"type": "object"}
    decode_schemas(crd(odd))
    decode_schemas(crd({"type": "object"}), [])
    assert len(decoded) == 3, "the one with the field once, and each time that the field is taken out"


@pytest.mark.parametrize("wrong", [{"type": 1}, {"maximum": 1 << 70, "type": 1}, "text"])
def test_what_is_refused_is_refused_each_time(wrong: Any) -> None:
    for _ in range(2):
        with pytest.raises(Undecodable):
            decode_schemas(crd(wrong))


def test_a_schema_with_a_number_that_is_too_large_is_decoded_each_time(decoded: list[Any]) -> None:
    for _ in range(2):
        decode_schemas(crd({"type": "integer", "maximum": 1 << 70}))
    assert len(decoded) == 2


def test_memory_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schemaprops, "_MOST_REMEMBERED", 10)
    for number in range(100):
        decode_schemas(crd({"type": "integer", "maximum": number}))
        assert len(schemaprops._remembered) <= 10
