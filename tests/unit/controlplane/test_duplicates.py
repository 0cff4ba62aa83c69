from __future__ import annotations

from typing import Any

import orjson
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema.duplicates import duplicate_keys

JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-9, 9) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
)


@given(JSON)
def test_a_document_made_from_dicts_has_none(value: Any) -> None:
    assert duplicate_keys(orjson.dumps(value)) == []


def test_paths() -> None:
    raw = b'{"a":1,"spec":{"b":[{"c":1,"c":2,"c":3}],"d":1,"d":2},"a":{"e":1,"e":1}}'
    assert duplicate_keys(raw) == ["a", "a.e", "spec.d", "spec.b[0].c"]
