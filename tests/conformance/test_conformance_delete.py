"""Tests deletion: finalizers, preconditions, propagation, owners, namespaces."""

from __future__ import annotations

from typing import Any

from conformance.harness import points
from conformance.harness.client import Api, Object
from conformance.harness.play import conformance
from conformance.harness.widget import configmap, widget


def options(**given: Any) -> Object:
    return {"kind": "DeleteOptions", "apiVersion": "v1", **given}


def owned_by(owner: Object, *, block: bool | None = None) -> Object:
    reference = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "name": owner["metadata"]["name"],
        "uid": owner["metadata"]["uid"],
    }
    return reference if block is None else {**reference, "blockOwnerDeletion": block}


@conformance(points.FINALIZERS)
async def test_delete(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget())).ok(201)
    answer = (await api.delete(path)).ok()
    assert (answer["kind"], answer["status"]) == ("Status", "Success")
    assert answer["details"]["name"] == "a" and answer["details"]["uid"]
    (await api.delete(path)).refused(404, "NotFound")
    (await api.post(api.widgets, widget())).ok(201)
    (await api.delete(path, options(gracePeriodSeconds=0))).ok()
    (await api.post(api.widgets, widget())).ok(201)
    (await api.delete(path, gracePeriodSeconds=30)).ok()
    (await api.post(api.configmaps, configmap("c"))).ok(201)
    (await api.delete(f"{api.configmaps}/c", {"propagationPolicy": "Background"})).ok()
    (await api.post(api.widgets, widget())).ok(201)
    assert (await api.delete(path, "{")).status == 400
    assert (await api.delete(path, options(propagationPolicy="Sideways"))).status in {400, 422}
    assert (await api.delete(path, propagationPolicy="Sideways")).status in {400, 422}
    assert (await api.delete(path, options(orphanDependents=True, propagationPolicy="Orphan"))).status in {400, 422}


@conformance(points.FINALIZERS)
async def test_finalizers(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget(finalizers=["example.com/a", "example.com/b"]))).ok(201)
    marked = (await api.delete(path)).ok()
    assert marked["kind"] == "Widget" and marked["metadata"]["deletionTimestamp"]
    again = (await api.delete(path)).ok()
    assert again["metadata"]["deletionTimestamp"] == marked["metadata"]["deletionTimestamp"]
    (await api.post(api.widgets, widget())).refused(409, "AlreadyExists", "object is being deleted")
    added = await api.merge(path, {"metadata": {"finalizers": ["example.com/a", "example.com/b", "example.com/c"]}})
    added.refused(422, "Invalid", "no new finalizers can be added if the object is being deleted")
    (await api.merge(path, {"metadata": {"deletionTimestamp": None}})).ok()
    assert (await api.get(path)).ok()["metadata"]["deletionTimestamp"]
    (await api.merge(path, {"spec": {"size": 7}})).ok()
    (await api.merge(f"{path}/status", {"status": {"phase": "Ending"}})).ok()
    (await api.merge(path, {"metadata": {"finalizers": ["example.com/b"]}})).ok()
    async with api.watch(api.widgets, fieldSelector="metadata.name=a") as watch:
        assert (await watch.next())["type"] == "ADDED"
        last = (await api.json_patch(path, {"op": "remove", "path": "/metadata/finalizers"})).ok()
        gone = await watch.next()
    assert last["metadata"]["deletionTimestamp"] and gone["type"] == "DELETED"
    (await api.get(path)).refused(404, "NotFound")


@conformance(points.FINALIZERS)
async def test_preconditions(api: Api) -> None:
    path = f"{api.widgets}/a"
    created = (await api.post(api.widgets, widget())).ok(201)["metadata"]
    (await api.delete(path, options(preconditions={"uid": "other"}))).refused(409, "Conflict", "precondition")
    (await api.delete(path, options(preconditions={"resourceVersion": "1"}))).refused(409, "Conflict", "precondition")
    right = {"uid": created["uid"], "resourceVersion": created["resourceVersion"]}
    (await api.delete(path, options(preconditions=right))).ok()


@conformance(points.DELETION)
async def test_deletecollection(api: Api) -> None:
    for name, label in (("a", "x"), ("b", "x"), ("c", "y"), ("d", "y")):
        held = {"finalizers": ["example.com/f"]} if name == "d" else {}
        (await api.post(api.widgets, widget(name, labels={"l": label}, **held))).ok(201)
    deleted = (await api.delete(api.widgets, labelSelector="l=x")).ok()
    assert deleted["kind"] == "WidgetList" and len(deleted["items"]) == 2
    assert [i["metadata"]["name"] for i in (await api.get(api.widgets)).body["items"]] == ["c", "d"]
    (await api.delete(api.widgets, fieldSelector="metadata.name=c")).ok()
    (await api.delete(api.widgets)).ok()
    left = (await api.get(api.widgets)).ok()["items"]
    assert [i["metadata"]["name"] for i in left] == ["d"] and left[0]["metadata"]["deletionTimestamp"]
    (await api.merge(f"{api.widgets}/d", {"metadata": {"finalizers": None}})).ok()
    (await api.delete(api.widgets)).ok()
    assert (await api.delete("/apis/conformance.example.com/v1/widgets")).status in {404, 405}


@conformance(points.DELETION)
async def test_propagation(api: Api) -> None:
    """Tests what each policy does to the object itself, before any controller acts."""
    for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
        name = policy.lower()
        held = widget(name, finalizers=["example.com/held"])
        (await api.post(api.widgets, held)).ok(201)
        marked = (await api.delete(f"{api.widgets}/{name}", options(propagationPolicy=policy))).ok()
        assert finalizer in marked["metadata"]["finalizers"] and marked["metadata"]["deletionTimestamp"]
        (await api.merge(f"{api.widgets}/{name}", {"metadata": {"finalizers": None}}, view=None)).ok()
    (await api.post(api.widgets, widget("background"))).ok(201)
    gone = (await api.delete(f"{api.widgets}/background", propagationPolicy="Background")).ok()
    assert gone["kind"] == "Status"


@conformance(points.DELETION, needs="controllers")
async def test_garbage_collection(api: Api) -> None:
    path = api.configmaps
    owner = (await api.post(path, configmap("owner"))).ok(201)
    other = (await api.post(path, configmap("other"))).ok(201)
    child = (await api.post(path, configmap("child", ownerReferences=[owned_by(owner)]))).ok(201)
    (await api.post(path, configmap("grandchild", ownerReferences=[owned_by(child)]))).ok(201)
    (await api.post(path, configmap("shared", ownerReferences=[owned_by(owner), owned_by(other)]))).ok(201)
    (await api.delete(f"{path}/owner", options(propagationPolicy="Background"))).ok()
    for name in ("child", "grandchild"):
        await api.eventually(f"{path}/{name}", lambda answer: answer.status == 404)
    shared = await api.eventually(
        f"{path}/shared", lambda answer: len(answer.body["metadata"]["ownerReferences"]) == 1, view=None
    )
    assert shared.body["metadata"]["ownerReferences"][0]["name"] == "other"
    orphan = configmap("absent", ownerReferences=[{**owned_by(owner), "name": "never", "uid": "0-1-2-3"}])
    (await api.post(path, orphan)).ok(201)
    await api.eventually(f"{path}/absent", lambda answer: answer.status == 404)


@conformance(points.DELETION, needs="controllers")
async def test_foreground_and_orphan(api: Api) -> None:
    path = api.configmaps
    owner = (await api.post(path, configmap("owner"))).ok(201)
    held = configmap("child", ownerReferences=[owned_by(owner, block=True)], finalizers=["example.com/f"])
    (await api.post(path, held)).ok(201)
    waiting = (await api.delete(f"{path}/owner", options(propagationPolicy="Foreground"))).ok()
    assert waiting["metadata"]["finalizers"] == ["foregroundDeletion"]
    await api.eventually(f"{path}/child", lambda a: "deletionTimestamp" in a.body["metadata"], view=None)
    (await api.get(f"{path}/owner", view=None)).ok()
    (await api.merge(f"{path}/child", {"metadata": {"finalizers": None}}, view=None)).ok()
    for name in ("child", "owner"):
        await api.eventually(f"{path}/{name}", lambda answer: answer.status == 404)
    parent = (await api.post(path, configmap("parent"))).ok(201)
    (await api.post(path, configmap("kept", ownerReferences=[owned_by(parent)]))).ok(201)
    (await api.delete(f"{path}/parent", options(propagationPolicy="Orphan"), view=None)).ok()
    await api.eventually(f"{path}/parent", lambda answer: answer.status == 404)
    kept = (await api.get(f"{path}/kept", view=None)).ok()
    assert not kept["metadata"].get("ownerReferences")


@conformance(points.TERMINATING, needs="controllers")
async def test_terminating_namespace(api: Api) -> None:
    space = f"/api/v1/namespaces/{api.namespace}-x"
    things = api.configmaps.replace(api.namespace, f"{api.namespace}-x")
    (await api.post("/api/v1/namespaces", {"metadata": {"name": f"{api.namespace}-x"}})).ok(201)
    (await api.post(things, configmap("free"))).ok(201)
    (await api.post(things, configmap("held", finalizers=["example.com/f"]))).ok(201)
    marked = (await api.delete(space)).ok()
    assert marked["kind"] == "Namespace" and marked["status"]["phase"] == "Terminating"
    refused = await api.post(things, configmap("late"))
    refused.refused(403, "Forbidden", "because it is being terminated")
    assert refused.causes(403) == {("metadata.namespace", "NamespaceTerminating")}
    (await api.merge(f"{things}/held", {"metadata": {"labels": {"a": "b"}}}, view=None)).ok()
    await api.eventually(f"{things}/free", lambda answer: answer.status == 404)
    (await api.get(space, view=None)).ok()
    (await api.merge(f"{things}/held", {"metadata": {"finalizers": None}}, view=None)).ok()
    await api.eventually(space, lambda answer: answer.status == 404)
    (await api.delete("/api/v1/namespaces/none")).refused(404, "NotFound")
    (await api.delete("/api/v1/namespaces/default")).refused(403, "Forbidden", "this namespace may not be deleted")
