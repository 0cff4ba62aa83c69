from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from remit.kube.status import difference

leaves = st.integers() | st.text(max_size=3) | st.lists(st.integers(), max_size=2)
documents = st.dictionaries(
    st.sampled_from("abcd"), leaves | st.dictionaries(st.sampled_from("xyz"), leaves, max_size=3), max_size=4
)


def merged(target: dict[str, Any], patch: dict[str, Any]) -> dict[str, Any]:
    """Applies a merge patch, as in RFC 7386."""
    result = dict(target)
    for name, value in patch.items():
        if value is None:
            result.pop(name, None)
        elif isinstance(value, dict):
            old = result.get(name)
            result[name] = merged(old if isinstance(old, dict) else {}, value)
        else:
            result[name] = value
    return result


@given(documents, documents)
def test_the_patch_gives_exactly_the_new_status(old: dict[str, Any], new: dict[str, Any]) -> None:
    assert merged(old, difference(old, new)) == new


@given(documents)
def test_no_change_no_patch(document: dict[str, Any]) -> None:
    assert difference(document, document) == {}
