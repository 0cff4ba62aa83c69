"""Tests server-side apply and managedFields."""

from __future__ import annotations

from typing import Any

from conformance.harness import points
from conformance.harness.client import Api, Object
from conformance.harness.play import conformance
from conformance.harness.widget import configmap, widget


def owners(body: Object) -> dict[str, Object]:
    """Returns the field sets of an object by manager, operation and subresource."""
    return {
        "/".join(filter(None, (e["manager"], e["operation"], e.get("subresource")))): e["fieldsV1"]
        for e in body["metadata"]["managedFields"]
    }


def config(**spec: Any) -> Object:
    return widget(spec=spec)


@conformance(points.APPLY)
async def test_apply_creates_and_changes(api: Api) -> None:
    path = f"{api.widgets}/a"
    created = (await api.apply(path, config(size=1, color="blue"))).ok(201)
    assert owners(created)["applier/Apply"] == {"f:spec": {"f:color": {}, "f:size": {}}}
    again = (await api.apply(path, config(size=1, color="blue"))).ok()
    assert again["metadata"]["resourceVersion"] == created["metadata"]["resourceVersion"]
    changed = (await api.apply(path, config(size=2, color="blue"))).ok()
    assert changed["spec"]["size"] == 2 and changed["metadata"]["generation"] == 2
    removed = (await api.apply(path, config(size=2))).ok()
    assert removed["spec"] == {"size": 2, "color": "red"}, "what is no longer applied goes, and its default comes back"
    in_yaml = "apiVersion: conformance.example.com/v1\nkind: Widget\nmetadata: {name: a}\nspec: {size: 3}\n"
    assert (await api.apply(path, in_yaml)).ok()["spec"]["size"] == 3


@conformance(points.APPLY)
async def test_apply_conflicts(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.apply(path, config(size=1, code="a"), "one")).ok(201)
    refused = await api.apply(path, config(size=2), "two")
    refused.refused(409, "Conflict", 'conflict with "one"', ".spec.size")
    assert refused.causes(409) == {(".spec.size", "FieldManagerConflict")}
    shared = (await api.apply(path, config(size=1), "two")).ok()
    assert "f:size" in owners(shared)["one/Apply"]["f:spec"] and "f:size" in owners(shared)["two/Apply"]["f:spec"]
    both = await api.apply(path, config(size=3, code="b"), "three")
    assert both.causes(409) == {(".spec.size", "FieldManagerConflict"), (".spec.code", "FieldManagerConflict")}
    forced = (await api.apply(path, config(size=3), "three", force=True)).ok()
    assert forced["spec"]["size"] == 3
    assert owners(forced).keys() == {"one/Apply", "three/Apply"}, "a manager that owns nothing is forgotten"
    left = (await api.apply(path, config(), "one")).ok()
    assert "code" not in left["spec"] and left["spec"]["size"] == 3


@conformance(points.APPLY)
async def test_shared_ownership(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.apply(path, config(size=1), "one")).ok(201)
    (await api.apply(path, config(size=1), "two")).ok()
    kept = (await api.apply(path, config(), "one")).ok()
    assert kept["spec"]["size"] == 1, "the other still wants it"
    gone = (await api.apply(path, config(), "two")).ok()
    assert "size" not in gone["spec"]


@conformance(points.APPLY)
async def test_updates_and_applies(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.apply(path, config(size=1, code="a"), "one")).ok(201)
    (await api.merge(path, {"spec": {"size": 2}}, fieldManager="hand")).ok()
    body = (await api.get(path)).ok()
    assert "f:size" not in owners(body)["one/Apply"]["f:spec"], "an update takes what it changes"
    refused = await api.apply(path, config(size=3, code="a"), "one")
    refused.refused(409, "Conflict", 'conflict with "hand" using conformance.example.com/v1')
    (await api.apply(path, config(size=2, code="a"), "one")).ok()
    body = (await api.get(path)).ok()
    replaced = {**body, "spec": {"size": 9, "color": "red"}}
    (await api.put(path, replaced, fieldManager="hand")).ok()
    final = (await api.apply(path, config(size=4), "one", force=True)).ok()
    assert final["spec"]["size"] == 4


@conformance(points.APPLY)
async def test_apply_over_a_created_object(api: Api) -> None:
    """Tests `kubectl apply --server-side` for an object that `kubectl create` created."""
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, config(size=1, code="a"), fieldManager="creator")).ok(201)
    same = (await api.apply(path, config(size=1), "one")).ok()
    assert owners(same).keys() == {"creator/Update", "one/Apply"}
    (await api.apply(path, config(size=2), "one")).refused(409, "Conflict", 'conflict with "creator"')
    removed = (await api.apply(path, config(), "one")).ok()
    assert removed["spec"]["size"] == 1


@conformance(points.APPLY)
async def test_sets_and_maps(api: Api) -> None:
    path = f"{api.widgets}/a"
    one = config(tags=["a", "b"], ports=[{"name": "x", "port": 1}], list=["p", "q"], labels={"k": "v"}, atom={"m": "n"})
    (await api.apply(path, one, "one")).ok(201)
    two = config(tags=["b", "c"], ports=[{"name": "y", "port": 2}], labels={"l": "w"})
    merged = (await api.apply(path, two, "two")).ok()["spec"]
    assert merged["tags"] == ["a", "b", "c"] and [p["name"] for p in merged["ports"]] == ["x", "y"]
    assert merged["labels"] == {"k": "v", "l": "w"}
    (await api.apply(path, config(list=["p"]), "two")).refused(409, "Conflict", ".spec.list")
    (await api.apply(path, config(atom={"m": "o"}), "two")).refused(409, "Conflict", ".spec.atom")
    (await api.apply(path, config(ports=[{"name": "x", "port": 5}]), "two")).refused(
        409, "Conflict", "spec.ports[name="
    )
    less = (await api.apply(path, config(tags=["b"]), "one")).ok()["spec"]
    assert less["tags"] == ["b", "c"] and [p["name"] for p in less["ports"]] == ["y"]
    assert "list" not in less and "atom" not in less and less["labels"] == {"l": "w"}


@conformance(points.APPLY)
async def test_map_items(api: Api) -> None:
    """An item of a list-map is deleted with its keys, and a part of it without them."""
    path = f"{api.widgets}/a"
    (await api.apply(path, config(ports=[{"name": "x", "port": 1}, {"name": "z", "protocol": "UDP", "port": 3}]))).ok(
        201
    )
    partly = (await api.apply(path, config(ports=[{"name": "x"}, {"name": "z", "protocol": "UDP", "port": 3}]))).ok()
    assert partly["spec"]["ports"][0] == {"name": "x", "protocol": "TCP"}
    reordered = (await api.apply(path, config(ports=[{"name": "z", "protocol": "UDP", "port": 4}, {"name": "x"}]))).ok()
    assert {p["name"] for p in reordered["spec"]["ports"]} == {"x", "z"}
    removed = (await api.apply(path, config(ports=[{"name": "x"}]))).ok()
    assert removed["spec"]["ports"] == [{"name": "x", "protocol": "TCP"}]
    added = (await api.apply(path, config(ports=[{"name": "x"}, {"name": "n"}, {"name": "m"}]))).ok()
    assert [p["name"] for p in added["spec"]["ports"]] == ["x", "n", "m"]
    assert (await api.apply(path, config(ports=[{"name": "x"}, {"name": "x"}]))).status in {422, 500}
    assert (await api.apply(path, config(tags=["a", "a"]))).status in {422, 500}
    empty = (await api.apply(path, config(size=1, ports=[]))).ok()
    assert not empty["spec"].get("ports")


@conformance(points.APPLY)
async def test_apply_metadata_and_status(api: Api) -> None:
    path = f"{api.widgets}/a"
    body = widget(spec={"size": 1}, labels={"a": "b"}, annotations={"c": "d"}, finalizers=["example.com/f"])
    (await api.apply(path, body, "one")).ok(201)
    less = (await api.apply(path, widget(spec={"size": 1}, labels={"x": "y"}), "one")).ok()
    assert less["metadata"]["labels"] == {"x": "y"} and "annotations" not in less["metadata"]
    assert "finalizers" not in less["metadata"]
    status = {
        "apiVersion": body["apiVersion"],
        "kind": "Widget",
        "metadata": {"name": "a"},
        "status": {"phase": "Ready"},
    }
    applied = (await api.apply(f"{path}/status", status, "controller")).ok()
    assert applied["status"] == {"phase": "Ready"}
    assert owners(applied)["controller/Apply/status"] == {"f:status": {"f:phase": {}}}
    (await api.apply(f"{path}/status", {**status, "status": {"phase": "Done"}}, "other")).refused(409, "Conflict")
    (await api.merge(f"{path}/status", {"status": {"phase": "Done"}}, fieldManager="hand")).ok()
    taken = owners((await api.get(path)).ok())
    assert "hand/Update/status" in taken
    ignored = (await api.apply(path, {**body, "status": {"phase": "Lost"}}, "one")).ok()
    assert ignored["status"] == {"phase": "Done"}


@conformance(points.APPLY)
async def test_apply_refusals(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.apply(path, config(size=1), None)).refused(422, "Invalid", "fieldManager")
    (await api.apply(path, config(size=1000))).refused(422, "Invalid", "spec.size")
    assert (await api.apply(path, config(size="big"))).status in {422, 500}
    (await api.apply(path, widget("b"))).refused(400, "BadRequest")
    (await api.apply(path, widget())).ok(201)
    (await api.apply(path, widget(managedFields=[]))).refused(400, "BadRequest", "managedFields must be nil")
    (await api.apply(path, config() | {"kind": "Gadget"})).refused(400, "BadRequest")
    (await api.apply(path, "{")).refused(400, "BadRequest")
    (await api.apply(path, "[]")).refused(400, "BadRequest")
    assert (await api.apply(path, config(size=1, unknown=1))).status in {200, 500}
    assert (await api.apply(path, config(unknown=1), fieldValidation="Strict")).status in {400, 422, 500}
    (await api.apply(path, config(size=1), "x" * 129)).refused(422, "Invalid", "fieldManager")
    (await api.apply(f"{path}/status", config())).ok()
    stale = await api.apply(path, widget(resourceVersion="1"))
    stale.refused(409, "Conflict")
    forced_update = await api.merge(path, {"spec": {"size": 3}}, force=True)
    forced_update.refused(422, "Invalid", "force")
    kindless = {"metadata": {"name": "a"}}
    assert (await api.apply(path, kindless)).status == 400


@conformance(points.APPLY)
async def test_managed_fields_of_updates(api: Api) -> None:
    path = f"{api.widgets}/a"
    created = (await api.post(api.widgets, config(size=1, ports=[{"name": "x"}], tags=["t"]), fieldManager="one")).ok(
        201
    )
    assert owners(created).keys() == {"one/Update"}
    (await api.merge(path, {"metadata": {"labels": {"a": "b"}}}, fieldManager="two")).ok()
    (await api.merge(path, {"spec": {"size": 2, "inner": {"note": None}}}, fieldManager="two")).ok()
    (await api.merge(f"{path}/status", {"status": {"phase": "x"}}, fieldManager="three")).ok()
    body = (await api.get(path)).ok()
    assert owners(body).keys() == {"one/Update", "two/Update", "three/Update/status"}
    named = await api.send(
        "PATCH",
        path,
        '{"spec":{"code":"a"}}',
        content_type="application/merge-patch+json",
        headers={"User-Agent": "tool/v1 (linux)"},
    )
    assert "tool/Update" in owners(named.ok())
    cleared = (await api.merge(path, {"metadata": {"managedFields": [{}]}})).ok()
    assert not cleared["metadata"].get("managedFields")
    (await api.apply(path, config(size=7), "later")).refused(409, "Conflict", "before-first-apply")


@conformance(points.APPLY)
async def test_apply_core_kinds(api: Api) -> None:
    path = f"{api.configmaps}/c"
    body = configmap("c", {"a": "b"}, labels={"x": "y"})
    (await api.apply(path, body)).ok(201)
    (await api.apply(path, configmap("c", {"d": "e"}))).ok()
    final = (await api.get(path)).ok()
    assert final["data"] == {"d": "e"} and "labels" not in final["metadata"]
    (await api.apply(path, configmap("c", {"d": "f"}), "other")).refused(409, "Conflict", ".data.d")
    space = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": api.namespace, "labels": {"a": "b"}}}
    (await api.apply(f"/api/v1/namespaces/{api.namespace}", space)).ok()
    (await api.merge(path, {"data": {"d": None}})).ok()
    patch = {"metadata": {"labels": {"q": "r"}}}
    (await api.merge(path, patch, fieldManager="hand")).ok()


@conformance(points.DRY_RUN)
async def test_dry_run(api: Api) -> None:
    path = f"{api.widgets}/a"
    tried = (await api.post(api.widgets, widget(), dryRun="All")).ok(201)
    assert tried["metadata"]["uid"] and "resourceVersion" not in tried["metadata"]
    (await api.get(path)).refused(404, "NotFound")
    (await api.post(api.widgets, widget(spec={"size": 1000}), dryRun="All")).refused(422, "Invalid")
    (await api.apply(path, widget(), dryRun="All")).ok(201)
    kept = (await api.post(api.widgets, widget())).ok(201)
    (await api.post(api.widgets, widget(), dryRun="All")).refused(409, "AlreadyExists")
    changed = (await api.merge(path, {"spec": {"size": 5}}, dryRun="All")).ok()
    assert changed["spec"]["size"] == 5 and changed["metadata"]["generation"] == 2
    assert changed["metadata"]["resourceVersion"] == kept["metadata"]["resourceVersion"]
    (await api.put(path, {**kept, "spec": {"size": 6}}, dryRun="All")).ok()
    (await api.apply(path, config(size=7), force=True, dryRun="All")).ok()
    (await api.merge(f"{path}/status", {"status": {"phase": "x"}}, dryRun="All")).ok()
    (await api.delete(path, dryRun="All")).ok()
    (await api.delete(path, {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["All"]})).ok()
    (await api.delete(api.widgets, dryRun="All", view=None)).ok()
    assert (await api.get(path)).ok() == kept
    (await api.post(api.widgets, widget("b"), dryRun="Some")).refused(422, "Invalid", "dryRun")
    assert (await api.delete(path, {"kind": "DeleteOptions", "apiVersion": "v1", "dryRun": ["Some"]})).status in {
        400,
        422,
    }
