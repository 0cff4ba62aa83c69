"""Tests merge patch, JSON patch, and bodies that are not patches."""

from __future__ import annotations

from conformance.harness import points
from conformance.harness.client import APPLY_PATCH, JSON, MERGE_PATCH, STRATEGIC_MERGE_PATCH, Api
from conformance.harness.play import conformance
from conformance.harness.widget import configmap, widget


@conformance(points.MERGE_PATCH)
async def test_merge_patch(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget(spec={"size": 1, "labels": {"a": "1", "b": "2"}, "list": ["x", "y"]}))).ok(201)
    patched = (await api.merge(path, {"spec": {"labels": {"a": None, "c": "3"}, "list": ["z"]}})).ok()
    assert patched["spec"]["labels"] == {"b": "2", "c": "3"} and patched["spec"]["list"] == ["z"]
    patched = (await api.merge(path, {"spec": {"labels": None}})).ok()
    assert "labels" not in patched["spec"]
    patched = (await api.merge(path, {"spec": {"inner": {"note": None, "level": 4}}})).ok()
    assert patched["spec"]["inner"] == {"level": 4}
    (await api.merge(path, {"spec": {"nothing": None}})).ok()
    (await api.merge(path, {"metadata": {"labels": {"x": "y"}}})).ok()
    (await api.merge(path, {"metadata": {"labels": {"x": None}}})).ok()


@conformance(points.MERGE_PATCH)
async def test_merge_patch_of_no_object(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget())).ok(201)
    for patch in ("text", 7, True, ["a"]):
        assert (await api.merge(path, patch)).status == 400, patch
    assert (await api.merge(path, None)).status in {200, 400}
    for raw in ("", "{", "{'a': 1}"):
        assert (await api.send("PATCH", path, raw, content_type=MERGE_PATCH)).status == 400, raw
    (await api.merge(path, {"spec": None})).refused(422, "Invalid", "spec")
    (await api.merge(path, {"spec": "text"})).refused(422, "Invalid", "spec")
    (await api.merge(path, {"spec": {"size": "big"}})).refused(422, "Invalid", "spec.size")
    (await api.merge(path, {"kind": "Gadget"})).refused(422, "Invalid", "must be Widget")
    (await api.merge(path, {"apiVersion": "v9"})).refused(422, "Invalid")
    (await api.merge(f"{api.widgets}/none", {"spec": {}})).refused(404, "NotFound")


@conformance(points.JSON_PATCH)
async def test_json_patch(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget(spec={"size": 1, "list": ["x", "y"]}, labels={"a/b": "c"}))).ok(201)

    async def patched(*operations: dict[str, object]) -> dict[str, object]:
        return dict((await api.json_patch(path, *operations)).ok()["spec"])

    assert (await patched({"op": "add", "path": "/spec/list/-", "value": "z"}))["list"] == ["x", "y", "z"]
    assert (await patched({"op": "add", "path": "/spec/list/0", "value": "w"}))["list"] == ["w", "x", "y", "z"]
    assert (await patched({"op": "remove", "path": "/spec/list/0"}))["list"] == ["x", "y", "z"]
    moved = await patched({"op": "move", "from": "/spec/list/0", "path": "/spec/list/2"})
    assert moved["list"] == ["y", "z", "x"]
    await patched({"op": "copy", "from": "/spec/list/0", "path": "/spec/code"})
    await patched({"op": "test", "path": "/spec/size", "value": 1}, {"op": "replace", "path": "/spec/size", "value": 2})
    await patched({"op": "test", "path": "/metadata/labels/a~1b", "value": "c"})
    await patched()


@conformance(points.JSON_PATCH)
async def test_json_patch_that_fails(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget(spec={"size": 1, "list": ["x"]}))).ok(201)
    failing: list[list[dict[str, object]]] = [
        [{"op": "test", "path": "/spec/size", "value": 2}],
        [{"op": "test", "path": "/spec/nothing", "value": 2}],
        [{"op": "remove", "path": "/spec/nothing"}],
        [{"op": "add", "path": "/spec/no/where", "value": 1}],
        [{"op": "add", "path": "/spec/list/9", "value": "a"}],
        [{"op": "remove", "path": "/spec/list/9"}],
        [{"op": "replace", "path": "/spec/size", "value": 2}, {"op": "test", "path": "/spec/size", "value": 1}],
    ]
    for operations in failing:
        (await api.json_patch(path, *operations)).refused(422, "Invalid")
    assert (await api.get(path)).ok()["spec"]["size"] == 1
    for raw in ("", "{}", '{"op": "add"}', "[", '[{"op": "fly", "path": "/a"}]', '["a"]', "null"):
        answer = await api.send("PATCH", path, raw, content_type="application/json-patch+json")
        assert answer.status in {400, 422} or raw == "null", raw
    many = [{"op": "test", "path": "/spec/size", "value": 1}] * 10001
    assert (await api.json_patch(path, *many)).status == 413
    (await api.json_patch(path, {"op": "replace", "path": "/spec/size", "value": 500})).refused(
        422, "Invalid", "spec.size"
    )


@conformance(points.JSON_PATCH)
async def test_json_patch_with_a_missing_source(api: Api) -> None:
    """RFC 6902 refuses both; the library in kube-apiserver accepts them."""
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget())).ok(201)
    (await api.json_patch(path, {"op": "replace", "path": "/spec/code", "value": "a"})).ok()
    await api.json_patch(path, {"op": "copy", "from": "/spec/list", "path": "/spec/tags"})


@conformance(points.CONTENT_TYPES)
async def test_patch_content_types(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget())).ok(201)
    for content_type in (JSON, "text/plain", STRATEGIC_MERGE_PATCH, "application/yaml"):
        (await api.send("PATCH", path, "{}", content_type=content_type)).refused(415, "UnsupportedMediaType")
    (await api.send("PATCH", path, "{}", content_type=f"{MERGE_PATCH}; charset=utf-8")).ok()
    (await api.send("PATCH", path, "{}", content_type=APPLY_PATCH)).refused(422, "Invalid", "fieldManager")
    (await api.post(api.configmaps, configmap("c", {"a": "b"}))).ok(201)
    strategic = await api.send(
        "PATCH", f"{api.configmaps}/c", '{"data": {"a": null, "d": "e"}}', content_type=STRATEGIC_MERGE_PATCH
    )
    assert strategic.ok()["data"] == {"d": "e"}
    replaced = '{"data": {"$patch": "replace", "only": "this"}}'
    answer = await api.send("PATCH", f"{api.configmaps}/c", replaced, content_type=STRATEGIC_MERGE_PATCH)
    assert answer.ok()["data"] == {"only": "this"}
