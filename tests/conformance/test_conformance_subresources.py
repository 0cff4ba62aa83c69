"""Tests the status and scale subresources."""

from __future__ import annotations

from conformance.harness import points
from conformance.harness.client import Api
from conformance.harness.play import conformance
from conformance.harness.widget import crd, spec_schema, widget


@conformance(points.STATUS)
async def test_status_is_apart(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget())).ok(201)
    through_main = (await api.merge(path, {"status": {"phase": "Ready"}})).ok()
    assert "status" not in through_main
    answer = await api.merge(f"{path}/status", {"status": {"phase": "Ready"}, "spec": {"size": 9}})
    assert answer.ok()["status"] == {"phase": "Ready"} and answer.ok()["spec"]["size"] == 1
    answer = await api.merge(f"{path}/status", {"metadata": {"labels": {"a": "b"}, "annotations": {"a": "b"}}})
    assert "labels" not in answer.ok()["metadata"]
    answer = await api.merge(f"{path}/status", {"metadata": {"finalizers": ["example.com/a"]}})
    assert "finalizers" not in answer.ok()["metadata"]
    got = (await api.get(f"{path}/status")).ok()
    replaced = (await api.put(f"{path}/status", {**got, "spec": {"size": 7}, "status": {"phase": "Done"}})).ok()
    assert replaced["status"] == {"phase": "Done"} and replaced["spec"]["size"] == 1
    replaced = (await api.put(path, {**replaced, "spec": {"size": 7}, "status": {"phase": "Lost"}})).ok()
    assert replaced["status"] == {"phase": "Done"} and replaced["spec"]["size"] == 7
    (await api.merge(f"{path}/status", {"status": {"phase": 7}})).refused(422, "Invalid", "status.phase")
    pruned = (await api.merge(f"{path}/status", {"status": {"unknown": 1}})).ok()
    assert "unknown" not in pruned["status"]
    assert "status" not in (await api.merge(f"{path}/status", {"status": None})).ok()


@conformance(points.STATUS)
async def test_status_refusals(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget())).ok(201)
    (await api.merge(f"{api.widgets}/none/status", {"status": {}})).refused(404, "NotFound")
    assert (await api.post(f"{path}/status", widget())).status == 405
    assert (await api.delete(f"{path}/status")).status == 405
    assert (await api.get(f"{path}/nothing", view=None)).status == 404
    (await api.put(f"{path}/status", widget() | {"status": {}})).refused(422, "Invalid", "resourceVersion")


PLAIN = spec_schema(size={"type": "integer"})
PLAIN["properties"]["status"] = {"type": "object", "properties": {"phase": {"type": "string"}}}


@conformance(points.STATUS, crds=[crd("Plain", PLAIN)])
async def test_a_kind_without_subresources(api: Api) -> None:
    plains = api.collection("plains")
    body = {"apiVersion": f"{api.group}/v1", "kind": "Plain", "metadata": {"name": "a"}, "status": {"phase": "x"}}
    created = (await api.post(plains, body)).ok(201)
    assert created["status"] == {"phase": "x"} and created["metadata"]["generation"] == 1
    changed = (await api.merge(f"{plains}/a", {"status": {"phase": "y"}})).ok()
    assert changed["metadata"]["generation"] == 2
    assert (await api.get(f"{plains}/a/status")).status == 404
    assert (await api.get(f"{plains}/a/scale")).status == 404


@conformance(points.SCALE)
async def test_scale(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget(spec={"size": 1, "replicas": 2}))).ok(201)
    (await api.merge(f"{path}/status", {"status": {"replicas": 1, "selector": "app=a"}})).ok()
    scale = (await api.get(f"{path}/scale")).ok()
    assert (scale["kind"], scale["apiVersion"]) == ("Scale", "autoscaling/v1")
    assert scale["spec"] == {"replicas": 2} and scale["status"] == {"replicas": 1, "selector": "app=a"}
    scaled = (await api.merge(f"{path}/scale", {"spec": {"replicas": 5}})).ok()
    assert scaled["spec"]["replicas"] == 5
    after = (await api.get(path)).ok()
    assert after["spec"]["replicas"] == 5 and after["metadata"]["generation"] == 2
    scaled["spec"]["replicas"] = 0
    (await api.put(f"{path}/scale", scaled)).ok()
    (await api.put(f"{path}/scale", scaled)).refused(409, "Conflict")
    (await api.merge(f"{path}/scale", {"spec": {"replicas": -1}})).refused(422, "Invalid")
    (await api.post(api.widgets, widget("none"))).ok(201)
    (await api.get(f"{api.widgets}/none/scale")).refused(500, "InternalError", "does not exist")
    (await api.get(f"{api.widgets}/missing/scale")).refused(404, "NotFound")
