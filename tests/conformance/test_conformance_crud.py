"""Tests creating, reading and replacing single objects."""

from __future__ import annotations

from typing import Any

from conformance.harness import points
from conformance.harness.client import Api
from conformance.harness.play import conformance
from conformance.harness.widget import configmap, widget


@conformance(points.GENERATE_NAME)
async def test_generate_name(api: Api) -> None:
    first = (await api.post(api.widgets, widget(None, generateName="made-"))).ok(201)
    second = (await api.post(api.widgets, widget(None, generateName="made-"))).ok(201)
    assert first["metadata"]["name"] != second["metadata"]["name"]
    suffix = first["metadata"]["name"].removeprefix("made-")
    assert len(suffix) == 5 and set(suffix) <= set("bcdfghjklmnpqrstvwxz2456789")
    both = (await api.post(api.widgets, widget("given", generateName="made-"))).ok(201)
    assert both["metadata"]["name"] == "given"
    (await api.post(api.widgets, widget(None))).refused(422, "Invalid", "name or generateName is required")
    long = (await api.post(api.widgets, widget(None, generateName="x" * 80))).ok(201)
    assert len(long["metadata"]["name"]) == 63
    (await api.post(api.widgets, widget(None, generateName="Bad_"), view=None)).refused(422, "Invalid")


@conformance(points.NAMES)
async def test_names(api: Api) -> None:
    for name in ("Upper", "under_score", "-dash", "dash-", "a..b", "a/b", "x" * 254, "ü", "a b"):
        answer = await api.post(api.widgets, widget(name))
        assert answer.causes() == {("metadata.name", "FieldValueInvalid")}, name
    for name in ("a.b-c.1", "0", "x" * 253):
        (await api.post(api.widgets, widget(name))).ok(201)
    namespace = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "dotted.name"}}
    (await api.post("/api/v1/namespaces", namespace)).refused(422, "Invalid", "must not contain dots")


@conformance(points.NAMES)
async def test_labels_and_annotations(api: Api) -> None:
    bad_labels = [
        {"a b": "x"},
        {"a/b/c": "x"},
        {"UPPER.example/a": "x"},
        {"": "x"},
        {"x" * 64: "x"},
        {"a": "x" * 64},
        {"a": "-x"},
        {"a": "x y"},
    ]
    for labels in bad_labels:
        answer = await api.post(api.widgets, widget(labels=labels))
        assert answer.causes() == {("metadata.labels", "FieldValueInvalid")}, labels
    (await api.post(api.widgets, widget(annotations={"a b": "x"}))).refused(422, "Invalid", "metadata.annotations")
    (await api.post(api.widgets, widget(annotations={"a": "x" * 262145}))).refused(
        422, "Invalid", "may not be more than"
    )
    (await api.post(api.widgets, widget(finalizers=["a b"]))).refused(422, "Invalid", "metadata.finalizers")
    (await api.post(api.configmaps, configmap("a", finalizers=["a"]))).refused(422, "Invalid", "fully qualified")
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "a", "uid": ""}
    (await api.post(api.widgets, widget(ownerReferences=[owner]))).refused(422, "Invalid", "ownerReferences")
    (await api.post(api.widgets, widget(labels={"a": ""}, annotations={"b": "any thing"}))).ok(201)


@conformance(points.NAMES)
async def test_types_in_metadata(api: Api) -> None:
    wrong: list[dict[str, Any]] = [
        {"labels": {"a": 1}},
        {"labels": ["a"]},
        {"annotations": {"a": True}},
        {"finalizers": "a"},
    ]
    for metadata in wrong:
        (await api.post(api.widgets, widget(**metadata))).refused(400, "BadRequest")
    (await api.post(api.widgets, widget() | {"metadata": "a"})).refused(400, "BadRequest")
    nulls = (await api.post(api.widgets, widget(labels=None, annotations=None))).ok(201)
    assert "labels" not in nulls["metadata"]


@conformance(points.WRONG_KIND)
async def test_wrong_or_missing_kind(api: Api) -> None:
    (await api.post(api.widgets, widget() | {"kind": "Gadget"})).refused(422, "Invalid", "must be Widget")
    (await api.post(api.widgets, widget() | {"apiVersion": "other.example.com/v1"})).refused(400, "BadRequest")
    (await api.post(api.widgets, widget() | {"apiVersion": "conformance.example.com/v2"})).refused(400, "BadRequest")
    for missing in ("kind", "apiVersion"):
        body = widget("kindless")
        del body[missing]
        (await api.post(api.widgets, body)).refused(400, "BadRequest")
    (await api.post(api.configmaps, configmap("a") | {"kind": "Secret"})).refused(400, "BadRequest")
    (await api.post(api.configmaps, {"metadata": {"name": "kindless"}})).ok(201)
    for broken in ("", "{", "[]", "null", '"text"', '{"kind":'):
        answer = await api.post(api.widgets, broken)
        assert answer.status == 400, broken


@conformance(points.MISSING_NAMESPACE)
async def test_missing_namespace(api: Api) -> None:
    nowhere = "/apis/conformance.example.com/v1/namespaces/nowhere/widgets"
    (await api.post(nowhere, widget())).refused(404, "NotFound", 'namespaces "nowhere" not found')
    (await api.post("/api/v1/namespaces/nowhere/configmaps", configmap("a"))).refused(404, "NotFound")
    assert (await api.get(nowhere)).ok()["items"] == []
    (await api.get(f"{nowhere}/a")).refused(404, "NotFound", 'widgets.conformance.example.com "a" not found')
    (await api.post(api.widgets, widget(namespace="other"))).refused(400, "BadRequest", "does not match the namespace")
    everywhere = "/apis/conformance.example.com/v1/widgets"
    assert (await api.post(everywhere, widget("everywhere"))).status in {404, 405}
    assert (await api.apply(f"{nowhere}/a", widget(), view=None)).status == 404


@conformance(points.MISSING_NAMESPACE)
async def test_namespace_defaults(api: Api) -> None:
    created = (await api.post(api.widgets, widget())).ok(201)
    assert created["metadata"]["namespace"] == api.namespace
    space = (await api.get(f"/api/v1/namespaces/{api.namespace}")).ok()
    assert space["status"]["phase"] == "Active"
    assert space["metadata"]["labels"]["kubernetes.io/metadata.name"] == api.namespace
    assert space["spec"]["finalizers"] == ["kubernetes"]


@conformance(points.VERSION_ON_CREATE)
async def test_resource_version_on_create(api: Api) -> None:
    answer = await api.post(api.widgets, widget(resourceVersion="1"))
    answer.refused(500, "", "resourceVersion should not be set on objects to be created")
    (await api.post(api.widgets, widget(resourceVersion=""))).ok(201)
    owned = await api.post(api.widgets, widget("b", uid="mine", creationTimestamp="2001-01-01T00:00:00Z", generation=9))
    created = owned.ok(201)["metadata"]
    assert (
        created["uid"] != "mine" and created["generation"] == 1 and not created["creationTimestamp"].startswith("2001")
    )


@conformance(points.INVALID_FIRST)
async def test_invalid_before_conflict(api: Api) -> None:
    created = (await api.post(api.widgets, widget())).ok(201)
    (await api.post(api.widgets, widget())).refused(409, "AlreadyExists", '"a" already exists')
    (await api.post(api.widgets, widget(spec={"size": 1000}))).refused(422, "Invalid", "spec.size")
    stale = {**created, "spec": {"size": 1000}, "metadata": {**created["metadata"], "resourceVersion": "1"}}
    assert (await api.put(f"{api.widgets}/a", stale)).status in {409, 422}


@conformance(points.STATUS_ON_CREATE)
async def test_status_is_dropped_on_create(api: Api) -> None:
    created = (await api.post(api.widgets, widget() | {"status": {"phase": "Ready"}})).ok(201)
    assert "status" not in created
    invalid = widget("b") | {"status": {"phase": 7}}
    assert (await api.post(api.widgets, invalid, view=None)).status in {201, 422}


@conformance(points.GENERATION, points.NO_OP)
async def test_generation(api: Api) -> None:
    path = f"{api.widgets}/a"
    seen = (await api.post(api.widgets, widget())).ok(201)["metadata"]
    assert seen["generation"] == 1

    async def step(answer: Any, generation: int, *, changed: bool) -> None:
        nonlocal seen
        now = answer.ok()["metadata"]
        assert now["generation"] == generation, answer.request
        assert (now["resourceVersion"] != seen["resourceVersion"]) is changed, answer.request
        seen = now

    await step(await api.merge(path, {"spec": {"size": 2}}), 2, changed=True)
    await step(await api.merge(path, {"spec": {"size": 2}}), 2, changed=False)
    await step(await api.merge(path, {}), 2, changed=False)
    await step(await api.merge(path, {"metadata": {"labels": {"a": "b"}}}), 2, changed=True)
    await step(await api.merge(path, {"metadata": {"labels": {"a": "b"}}}), 2, changed=False)
    await step(await api.merge(f"{path}/status", {"status": {"phase": "Ready"}}), 2, changed=True)
    await step(await api.merge(f"{path}/status", {"status": {"phase": "Ready"}}), 2, changed=False)
    await step(await api.json_patch(path, {"op": "replace", "path": "/spec/size", "value": 3}), 3, changed=True)
    await step(await api.put(path, (await api.get(path)).body), 3, changed=False)
    await step(await api.merge(path, {"metadata": {"generation": 50}}), 3, changed=False)
    await step(await api.merge(path, {"metadata": {"finalizers": ["example.com/a"]}}), 3, changed=True)
    (await api.delete(path)).ok()
    deleting = (await api.get(path)).ok()["metadata"]
    assert deleting["generation"] == 4 and deleting["deletionGracePeriodSeconds"] == 0
    (await api.merge(path, {"metadata": {"finalizers": None}})).ok()
    plain = (await api.post(api.configmaps, configmap("c"))).ok(201)
    assert "generation" not in plain["metadata"]


@conformance(points.BLIND_PUT)
async def test_put_without_resource_version(api: Api) -> None:
    path = f"{api.widgets}/a"
    (await api.post(api.widgets, widget())).ok(201)
    (await api.put(path, widget())).refused(
        422, "Invalid", "metadata.resourceVersion", "must be specified for an update"
    )
    (await api.put(path, widget(resourceVersion=""))).refused(422, "Invalid")
    (await api.put(path, widget(resourceVersion="0"))).refused(422, "Invalid")
    assert (await api.put(path, widget(resourceVersion="abc"))).status >= 400
    (await api.post(api.configmaps, configmap("c"))).ok(201)
    (await api.put(f"{api.configmaps}/c", configmap("c", {"a": "b"}))).ok(200)
    (await api.put(f"{api.widgets}/other", widget("a"))).refused(400, "BadRequest", "does not match the name")
    (await api.put(f"{api.widgets}/gone", widget("gone", resourceVersion="1"))).refused(404, "NotFound")
    (await api.put(f"{api.widgets}/gone", widget("gone"))).refused(404, "NotFound")
    (await api.put(f"{api.configmaps}/made", configmap("made"))).refused(404, "NotFound")


@conformance(points.STALE)
async def test_stale_writes(api: Api) -> None:
    path = f"{api.widgets}/a"
    old = (await api.post(api.widgets, widget())).ok(201)
    (await api.merge(path, {"spec": {"size": 2}})).ok()
    (await api.put(path, old)).refused(409, "Conflict", "the object has been modified")
    version = old["metadata"]["resourceVersion"]
    (await api.merge(path, {"metadata": {"resourceVersion": version}})).refused(409, "Conflict")
    (await api.merge(f"{path}/status", {"metadata": {"resourceVersion": version}})).refused(409, "Conflict")
    tested = {"op": "test", "path": "/metadata/resourceVersion", "value": version}
    (await api.json_patch(path, tested)).refused(422, "Invalid")
    (await api.json_patch(path, {"op": "replace", "path": "/metadata/resourceVersion", "value": version})).refused(
        409, "Conflict"
    )
    current = (await api.get(path)).ok()
    (await api.put(path, current | {"spec": {"size": 5}})).ok()
    (await api.put(path, current | {"spec": {"size": 6}})).refused(409, "Conflict")


@conformance(points.UID_MISMATCH)
async def test_uid_mismatch(api: Api) -> None:
    path = f"{api.widgets}/a"
    created = (await api.post(api.widgets, widget())).ok(201)
    other = {**created, "metadata": {**created["metadata"], "uid": "11111111-2222-3333-4444-555555555555"}}
    (await api.put(path, other)).refused(409, "Conflict")
    (await api.merge(path, {"metadata": {"uid": "11111111-2222-3333-4444-555555555555"}})).refused(422, "Invalid")
    absent = {**created, "metadata": {"name": "a", "resourceVersion": created["metadata"]["resourceVersion"]}}
    kept = (await api.put(path, absent)).ok()["metadata"]
    assert kept["uid"] == created["metadata"]["uid"]
    assert kept["creationTimestamp"] == created["metadata"]["creationTimestamp"]
    answer = await api.merge(path, {"metadata": {"name": "b"}})
    assert answer.status in {400, 422}
    assert (await api.merge(path, {"metadata": {"namespace": "other"}})).status == 400


@conformance()
async def test_immutable_and_special_core_objects(api: Api) -> None:
    """Secrets and ConfigMaps have rules of their own: stringData, immutable, key names, base64."""
    secrets = f"/api/v1/namespaces/{api.namespace}/secrets"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"a": "b"}}
    created = (await api.post(secrets, secret)).ok(201)
    assert created["data"] == {"a": "Yg=="} and created["type"] == "Opaque" and "stringData" not in created
    (await api.merge(f"{secrets}/s", {"type": "other"})).refused(422, "Invalid", "immutable")
    (await api.post(secrets, {**secret, "metadata": {"name": "t"}, "data": {"a": "%%%"}})).refused(400, "BadRequest")
    (await api.post(secrets, {**secret, "metadata": {"name": "t"}, "stringData": {"a/b": "c"}})).refused(422, "Invalid")
    (await api.post(api.configmaps, configmap("k", {"a b": "c"}))).refused(422, "Invalid")
    (await api.post(api.configmaps, {**configmap("f", {"a": "b"}), "immutable": True})).ok(201)
    (await api.merge(f"{api.configmaps}/f", {"data": {"a": "c"}})).refused(422, "Invalid", "immutable")
    (await api.merge(f"{api.configmaps}/f", {"metadata": {"labels": {"a": "b"}}})).ok()
    (await api.post(api.configmaps, configmap("n") | {"data": {"a": 1}})).refused(400, "BadRequest")
