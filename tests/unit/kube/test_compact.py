"""Tests that a cache keeps everything that is read of an object, and little memory for the rest."""

from __future__ import annotations

import copy
import json
import tracemalloc
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.kube import compact
from remit.kube.compact import Compactor, without_field_sets

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


def task(number: int) -> dict[str, Any]:
    sets = {f"f:field{each}": {"f:inner": {}, ".": {}} for each in range(40)}
    manager = {"manager": "kubectl", "operation": "Update", "time": "2026-01-01T00:00:00Z", "fieldsType": "FieldsV1"}
    metadata = {
        "name": f"task-{number}",
        "managedFields": [{**manager, "fieldsV1": {"f:spec": sets, "f:status": sets}}],
    }
    conditions = [{"type": kind, "status": "True", "reason": "Completed"} for kind in ("Succeeded", "Finished")]
    return {"metadata": metadata, "spec": {"command": {"argv": ["echo"]}}, "status": {"conditions": conditions}}


def test_managed_fields_name_top_fields_and_annotations() -> None:
    annotations = {"f:annotations": {"f:a": {"more": {}}, ".": {}}, "f:labels": {"f:b": {}}}
    entry = {"manager": "kubectl", "operation": "Apply", "subresource": "status", "time": "now"}
    fields = {"f:metadata": annotations, "f:spec": {"f:command": {"f:argv": {}}}}
    obj = {"metadata": {"name": "a", "managedFields": [{**entry, "fieldsV1": fields}]}, "spec": {"cancel": True}}
    before = copy.deepcopy(obj)

    kept = without_field_sets(obj)

    outline = {"f:metadata": {"f:annotations": {"f:a": {}, ".": {}}}, "f:spec": {}}
    assert kept == {**obj, "metadata": {"name": "a", "managedFields": [{**entry, "fieldsV1": outline}]}}
    assert obj == before, "the object itself is changed"


@pytest.mark.parametrize(
    ("fields", "outline"),
    [
        (None, {}),
        ("text", {}),
        ({"f:metadata": None}, {"f:metadata": {}}),
        ({"f:metadata": {"f:annotations": 1}}, {"f:metadata": {}}),
    ],
)
def test_odd_field_sets_are_no_trouble(fields: Any, outline: dict[str, Any]) -> None:
    (entry,) = without_field_sets({"metadata": {"managedFields": [{"fieldsV1": fields}]}})["metadata"]["managedFields"]

    assert entry["fieldsV1"] == outline


@given(st.lists(JSON, max_size=5))
def test_final_objects_are_kept_as_they_are(values: list[Any]) -> None:
    compacted = Compactor(lambda obj: True)
    for value in values:
        obj = {"metadata": {"name": "a"}, "status": value}
        assert json.dumps(compacted(obj)) == json.dumps(obj)


def test_an_object_that_is_nested_too_deeply_is_kept() -> None:
    deep: list[Any] = []
    for _ in range(50_000):
        deep = [deep]
    obj = {"metadata": {"name": "a"}, "status": deep}

    assert Compactor(lambda obj: True)(obj)["status"] is deep


def test_strings_are_shared_among_final_objects_only() -> None:
    compacted = Compactor(lambda obj: obj["metadata"]["name"] != "task-3")
    one, other, going = (compacted(json.loads(json.dumps(task(number)))) for number in (1, 2, 3))

    def reason(obj: dict[str, Any]) -> str:
        return str(obj["status"]["conditions"][0]["reason"])

    assert reason(one) is reason(other)
    assert reason(one) is not reason(going)


def test_what_is_shared_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compact, "_MOST_SHARED", 100)
    compacted = Compactor(lambda obj: True)
    for number in range(1_000):
        compacted({"metadata": {"name": f"task-{number}"}})
        assert len(compacted._strings) <= 104


def test_a_final_object_takes_a_third_of_the_memory() -> None:
    texts = [json.dumps(task(number)) for number in range(200)]

    def bytes_of(kept: Any) -> int:
        tracemalloc.start()
        try:
            objects = [kept(json.loads(text)) for text in texts]
            size, _ = tracemalloc.get_traced_memory()
            assert len(objects) == len(texts)
            return size
        finally:
            tracemalloc.stop()

    assert bytes_of(Compactor(lambda obj: True)) < bytes_of(lambda obj: obj) / 3
