"""Tests patches. The expected results are those of kube-apiserver 1.36."""

from __future__ import annotations

import copy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.controlplane.schema.patches import apply_json_patch, apply_merge_patch, apply_strategic
from remit.errors import ApiError

PLAIN = st.recursive(
    st.booleans() | st.integers(-9, 9) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.sampled_from("abc"), inner, max_size=3),
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), PLAIN, max_size=3)
PATCHES = st.dictionaries(
    st.sampled_from("abc"), st.none() | PLAIN | st.dictionaries(st.sampled_from("abc"), st.none() | PLAIN), max_size=3
)


@given(OBJECTS, PATCHES)
def test_a_merge_patch_twice_is_a_merge_patch_once(obj: Any, patch: Any) -> None:
    before = copy.deepcopy(obj)
    once = apply_merge_patch(obj, patch)
    assert obj == before
    assert apply_merge_patch(once, patch) == once


@given(OBJECTS, OBJECTS)
def test_a_merge_patch_sets_what_it_holds(obj: Any, patch: Any) -> None:
    merged = apply_merge_patch(obj, patch)
    assert apply_merge_patch({}, patch) == patch
    assert {key: merged[key] for key in patch if not isinstance(patch[key], dict)} == {
        key: value for key, value in patch.items() if not isinstance(value, dict)
    }
    assert {key: obj[key] for key in obj if key not in patch}.items() <= merged.items()


@given(OBJECTS)
def test_an_empty_patch_changes_nothing(obj: Any) -> None:
    assert apply_merge_patch(obj, {}) == apply_strategic(obj, {}, "ConfigMap") == apply_json_patch(obj, []) == obj


def test_null_removes() -> None:
    assert apply_merge_patch({"a": 1, "b": {"c": 1, "d": 2}}, {"a": None, "b": {"c": None}, "e": {"f": None}}) == {
        "b": {"d": 2},
        "e": {},
    }


@pytest.mark.parametrize("patch", [[], "x", 5, None])
def test_a_patch_of_an_object_is_an_object(patch: Any) -> None:
    text = r"json: cannot unmarshal \w+ into Go value of type map\[string\]interface \{\}$"
    with pytest.raises(ApiError, match="^error decoding patch: " + text) as caught:
        apply_merge_patch({}, patch)
    assert caught.value.status == 400
    with pytest.raises(ApiError, match="^" + text):
        apply_strategic({}, patch, "ConfigMap")


@pytest.mark.parametrize(
    ("ops", "expected"),
    [
        ([{"op": "test", "path": "/data/a", "value": "1"}, {"op": "remove", "path": "/data/a"}], {}),
        ([{"op": "replace", "path": "/data/z", "value": "1"}], {"a": "1", "z": "1"}),
        ([{"op": "test", "path": "/data/z", "value": None}], {"a": "1"}),
        ([{"op": "add", "path": "/data/x~1y", "value": "2"}], {"a": "1", "x/y": "2"}),
    ],
)
def test_json_patch(ops: Any, expected: Any) -> None:
    obj = {"data": {"a": "1"}}
    assert apply_json_patch(obj, ops) == {"data": expected}
    assert obj == {"data": {"a": "1"}}


@pytest.mark.parametrize(
    "op",
    [
        {"op": "test", "path": "/data/a", "value": "2"},
        {"op": "test", "path": "/data/a/b", "value": "2"},
        {"op": "remove", "path": "/data/zz"},
        {"op": "add", "path": "/nope/zz", "value": "1"},
        {"op": "add", "path": "/list/3", "value": "1"},
        {"op": "replace", "path": "/list/3", "value": "1"},
        {"op": "move", "from": "/data/q", "path": "/data/z"},
        {"op": "frob", "path": "/data/a"},
        {"path": "/data/a"},
    ],
)
def test_a_json_patch_that_does_not_fit(op: Any) -> None:
    with pytest.raises(ApiError) as caught:
        apply_json_patch({"data": {"a": "1"}, "list": []}, [op])
    assert (caught.value.status, caught.value.reason) == (422, "Invalid")
    assert str(caught.value) == "the server rejected our request due to an error in our request"


@pytest.mark.parametrize(
    "ops",
    [
        pytest.param(
            [{"op": "copy", "from": "/data", "path": f"/data/b{number}"} for number in range(25)], id="nested copies"
        ),
        pytest.param([{"op": "copy", "from": "/list", "path": "/list/-"}] * 40, id="a list into itself"),
        pytest.param([{"op": "copy", "from": "", "path": "/data/x"}] * 400, id="the whole into itself"),
        pytest.param(
            [{"op": "add", "path": "/list", "value": [0] * 300_000}, *[{"op": "remove", "path": "/list/0"}] * 9_000],
            id="the first of many",
        ),
        pytest.param(
            [{"op": "add", "path": "/list", "value": [0] * 300_000}]
            + [{"op": "move", "from": "/list/0", "path": "/list/-"}] * 9_000,
            id="round and round",
        ),
    ],
)
def test_a_json_patch_that_costs_too_much_is_refused(ops: Any) -> None:
    with pytest.raises(ApiError) as refused:
        apply_json_patch({"data": {"a": "x" * 1_000}, "list": ["x" * 1_000]}, ops)
    assert refused.value.status == 422


def test_a_large_json_patch_is_applied() -> None:
    ops = [{"op": "add", "path": "/list/0", "value": number} for number in range(5_000)]
    ops += [{"op": "copy", "from": "/list/0", "path": f"/data/{number}"} for number in range(4_000)]
    result = apply_json_patch({"data": {}, "list": []}, ops)
    assert result["list"][:2] == [4_999, 4_998] and result["data"]["3999"] == 4_999


@pytest.mark.parametrize("op", [{"op": 5, "path": "/a"}, {"op": "add", "path": []}, {"op": "copy", "from": {}}])
def test_a_json_patch_of_the_wrong_types_cannot_be_decoded(op: Any) -> None:
    with pytest.raises(ApiError, match="cannot unmarshal") as refused:
        apply_json_patch({}, [op])
    assert refused.value.status == 400


def test_a_json_patch_is_a_list_of_objects() -> None:
    with pytest.raises(ApiError, match=r"cannot unmarshal object into Go value of type \[\]handlers\.jsonPatchOp"):
        apply_json_patch({}, {"op": "x"})
    with pytest.raises(ApiError, match=r"cannot unmarshal number into Go value of type handlers\.jsonPatchOp"):
        apply_json_patch({}, [1])


def owner(uid: str, name: str = "x") -> dict[str, Any]:
    return {"kind": "K", "name": name, "uid": uid}


@pytest.mark.parametrize(
    ("patch", "finalizers", "owners"),
    [
        ({"finalizers": ["a/c"]}, ["a/c", "a/a", "a/b"], "u"),
        ({"finalizers": ["a/b", "a/c"]}, ["a/a", "a/b", "a/c"], "u"),
        ({"finalizers": ["a/c"], "$setElementOrder/finalizers": ["a/c", "a/b", "a/a"]}, ["a/c", "a/b", "a/a"], "u"),
        ({"$deleteFromPrimitiveList/finalizers": ["a/a"]}, ["a/b"], "u"),
        ({"$setElementOrder/finalizers": ["a/b", "a/a"]}, ["a/b", "a/a"], "u"),
        ({"finalizers": None}, None, "u"),
        ({"ownerReferences": [owner("v")]}, ["a/a", "a/b"], "vu"),
        ({"ownerReferences": [{"uid": "u", "$patch": "delete"}]}, ["a/a", "a/b"], ""),
        ({"ownerReferences": [{"$patch": "replace"}, owner("w")]}, ["a/a", "a/b"], "w"),
        (
            {"$setElementOrder/ownerReferences": [{"uid": "u"}, {"uid": "v"}], "ownerReferences": [owner("v")]},
            ["a/a", "a/b"],
            "uv",
        ),
    ],
)
def test_strategic_lists(patch: Any, finalizers: list[str] | None, owners: str) -> None:
    obj = {"metadata": {"finalizers": ["a/a", "a/b"], "ownerReferences": [owner("u")]}}
    before = copy.deepcopy(obj)
    metadata = apply_strategic(obj, {"metadata": patch}, "ConfigMap")["metadata"]
    assert metadata.get("finalizers") == finalizers
    assert "".join(reference["uid"] for reference in metadata["ownerReferences"]) == owners
    assert obj == before


def test_strategic_items_are_merged() -> None:
    obj = {"metadata": {"ownerReferences": [owner("u")]}}
    patched = apply_strategic(obj, {"metadata": {"ownerReferences": [{"uid": "u", "name": "y"}]}}, "Secret")
    assert patched["metadata"]["ownerReferences"] == [owner("u", "y")]


@pytest.mark.parametrize(
    ("patch", "expected"),
    [
        ({"c": "3"}, {"a": "1", "b": "2", "c": "3"}),
        ({"a": None}, {"b": "2"}),
        ({"$patch": "replace", "z": "1"}, {"z": "1"}),
        ({"$patch": "delete"}, {}),
        ({"$retainKeys": ["b", "c"], "c": "1"}, {"b": "2", "c": "1"}),
    ],
)
def test_strategic_maps(patch: Any, expected: Any) -> None:
    assert apply_strategic({"data": {"a": "1", "b": "2"}}, {"data": patch}, "ConfigMap") == {"data": expected}


@pytest.mark.parametrize(
    ("patch", "error"),
    [
        ({"$patch": "frob"}, "unknown patch type: frob in map"),
        ({"data": {"$retainKeys": ["a"], "b": "1"}}, "invalid patch format of retainKeys"),
        ({"data": {"$retainKeys": "a"}}, "must be a list of strings"),
        ({"metadata": {"ownerReferences": [{"name": "x"}]}}, "does not contain declared merge key: uid"),
        ({"metadata": {"ownerReferences": [5]}}, "expected an object with the merge key uid"),
        ({"$setElementOrder/things": []}, "list things has no merge key"),
    ],
)
def test_strategic_mistakes(patch: Any, error: str) -> None:
    with pytest.raises(ApiError, match=error) as caught:
        apply_strategic({"data": {"a": "1"}}, patch, "ConfigMap")
    assert caught.value.status == 400
