"""Tests CustomResourceDefinitions: what is refused, what is immutable, and how they are deleted."""

from __future__ import annotations

import copy
from typing import Any

from conformance.harness import points
from conformance.harness.client import CRDS, Api, Object, established
from conformance.harness.play import conformance
from conformance.harness.widget import crd, spec_schema


def gadget(api: Api) -> Object:
    return copy.deepcopy(crd("Gadget", spec_schema(size={"type": "integer"}), group=api.group))


@conformance(points.DELETION)
async def test_crd_life(api: Api) -> None:
    created = (await api.post(CRDS, gadget(api))).ok(201)
    assert created["spec"]["conversion"] == {"strategy": "None"} and created["metadata"]["generation"] == 1
    name = f"gadgets.{api.group}"
    ready = await api.eventually(f"{CRDS}/{name}", established, view=lambda body: body["status"])
    assert {c["type"]: c["status"] for c in ready.body["status"]["conditions"]} == {
        "NamesAccepted": "True",
        "Established": "True",
    }
    assert ready.body["status"]["acceptedNames"]["kind"] == "Gadget"
    assert ready.body["status"]["storedVersions"] == ["v1"]
    (await api.post(CRDS, gadget(api))).refused(409, "AlreadyExists")
    versions = created["spec"]["versions"] + [{**created["spec"]["versions"][0], "name": "v2", "storage": False}]
    grown = await api.merge(f"{CRDS}/{name}", {"spec": {"versions": versions}}, view=lambda body: body["spec"])
    assert grown.ok()["metadata"]["generation"] == 2
    (await api.delete(f"{CRDS}/{name}", view=None)).ok()
    await api.eventually(f"{CRDS}/{name}", lambda answer: answer.status == 404)
    await api.eventually(api.collection("gadgets"), lambda answer: answer.status == 404)


@conformance(points.DELETION)
async def test_crd_immutability(api: Api) -> None:
    name = f"gadgets.{api.group}"
    (await api.post(CRDS, gadget(api), view=None)).ok(201)
    await api.eventually(f"{CRDS}/{name}", established, view=None)
    for change in (
        {"spec": {"group": "other.example.com"}},
        {"spec": {"scope": "Cluster"}},
        {"spec": {"names": {"plural": "others"}}},
        {"spec": {"names": {"kind": "Other"}}},
    ):
        (await api.merge(f"{CRDS}/{name}", change)).refused(422, "Invalid")
    (await api.merge(f"{CRDS}/{name}", {"spec": {"names": {"shortNames": ["ga"]}}}, view=lambda b: b["spec"])).ok()
    (await api.delete(f"{CRDS}/{name}", view=None)).ok()


@conformance()
async def test_crds_refused(api: Api) -> None:
    def changed(**spec: Any) -> Object:
        body = gadget(api)
        return {**body, "spec": {**body["spec"], **spec}}

    version = gadget(api)["spec"]["versions"][0]

    def schema(**properties: Any) -> Object:
        return changed(versions=[{**version, "schema": {"openAPIV3Schema": spec_schema(**properties)}}])

    wrong: dict[str, Object] = {
        "name": {**gadget(api), "metadata": {"name": "wrong.name"}},
        "no storage": changed(versions=[{**version, "storage": False}]),
        "two storages": changed(versions=[version, {**version, "name": "v2"}]),
        "no versions": changed(versions=[]),
        "no schema": changed(versions=[{k: v for k, v in version.items() if k != "schema"}]),
        "bad scope": changed(scope="Galaxy"),
        "untyped": schema(a={"description": "no type"}),
        "unknown type": schema(a={"type": "text"}),
        "array without items": schema(a={"type": "array"}),
        "both properties": schema(
            a={"type": "object", "properties": {"b": {"type": "string"}}, "additionalProperties": {"type": "string"}}
        ),
        "bad default": schema(a={"type": "integer", "default": "x"}),
        "bad pattern": schema(a={"type": "string", "pattern": "("}),
        "set of objects": schema(a={"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "object"}}),
        "map without keys": schema(
            a={"type": "array", "x-kubernetes-list-type": "map", "items": {"type": "object", "properties": {}}}
        ),
        "unique items": schema(a={"type": "array", "uniqueItems": True, "items": {"type": "string"}}),
        "root is no object": changed(versions=[{**version, "schema": {"openAPIV3Schema": {"type": "string"}}}]),
        "bad column": changed(
            versions=[{**version, "additionalPrinterColumns": [{"name": "A", "type": "x", "jsonPath": ".a"}]}]
        ),
        "bad column path": changed(
            versions=[{**version, "additionalPrinterColumns": [{"name": "A", "type": "string", "jsonPath": "a["}]}]
        ),
    }
    for what, body in wrong.items():
        answer = await api.post(CRDS, body)
        assert answer.status == 422, (what, answer.body)


@conformance(points.TERMINATING)
async def test_terminating_crd(api: Api) -> None:
    """A CRD is removed when its last object is removed; until then its status shows what it waits for."""
    name, path = f"gadgets.{api.group}", api.collection("gadgets")
    await api.install(gadget(api))
    body = {
        "apiVersion": f"{api.group}/v1",
        "kind": "Gadget",
        "metadata": {"name": "a", "finalizers": ["example.com/f"]},
    }
    (await api.post(path, body)).ok(201)
    (await api.delete(f"{CRDS}/{name}", view=None)).ok()
    await api.eventually(f"{path}/a", lambda a: "deletionTimestamp" in a.body["metadata"], view=None)
    late = await api.post(path, {**body, "metadata": {"name": "late"}}, view=None)
    assert late.status in {403, 405}
    (await api.apply(f"{path}/late", {**body, "metadata": {"name": "late"}}, view=None)).refused(403, "Forbidden")
    (await api.get(f"{CRDS}/{name}", view=None)).ok()
    (await api.merge(f"{path}/a", {"metadata": {"finalizers": None}}, view=None)).ok()
    await api.eventually(f"{CRDS}/{name}", lambda answer: answer.status == 404)
    await api.eventually(path, lambda answer: answer.status == 404)


@conformance()
async def test_cluster_scope(api: Api) -> None:
    body = gadget(api)
    body["spec"]["scope"] = "Cluster"
    await api.install(body)
    path = f"/apis/{api.group}/v1/gadgets"
    one = {"apiVersion": f"{api.group}/v1", "kind": "Gadget", "metadata": {"name": "a"}, "spec": {"size": 1}}
    created = (await api.post(path, one)).ok(201)
    assert "namespace" not in created["metadata"]
    (await api.get(f"{path}/a")).ok()
    assert (await api.get(f"/apis/{api.group}/v1/namespaces/{api.namespace}/gadgets/a")).status == 404
    elsewhere = (await api.post(path, {**one, "metadata": {"name": "b", "namespace": "default"}})).ok(201)
    assert "namespace" not in elsewhere["metadata"]
    (await api.delete(f"{path}/a")).ok()
