"""Tests authentication, and the media types of requests and responses."""

from __future__ import annotations

from typing import Any

import yaml

from conformance.harness import points
from conformance.harness.client import JSON, MERGE_PATCH, PROTOBUF, YAML, Api
from conformance.harness.play import conformance
from conformance.harness.protobuf import envelope, field, metadata
from conformance.harness.widget import configmap, widget


@conformance(points.UNAUTHENTICATED)
async def test_unauthenticated(api: Api) -> None:
    for credentials in (None, "Bearer wrong", "Bearer ", "Basic YTpi", "nonsense"):
        headers = {"Authorization": credentials}
        (await api.get(api.widgets, headers=headers)).refused(401, "Unauthorized", "Unauthorized")
        (await api.post(api.widgets, widget(), headers=headers)).refused(401, "Unauthorized")
    for path in ("/apis", "/openapi/v3", "/version", "/nothing"):
        assert (await api.get(path, headers={"Authorization": None})).status == 401, path


@conformance(points.ACCEPT)
async def test_accept(api: Api) -> None:
    (await api.post(api.widgets, widget())).ok(201)
    path = f"{api.widgets}/a"
    for accept in ("text/html", "application/xml", "image/*", "application/json;as=Chair;g=meta.k8s.io;v=v1"):
        answer = await api.get(path, accept=accept)
        answer.refused(406, "NotAcceptable", "only the following media types are accepted")
    assert (await api.get(path, accept=PROTOBUF, view=None)).status == 406
    for accept in (
        "*/*",
        "application/*",
        f"text/html, {JSON};q=0.5",
        f"{PROTOBUF},{JSON}",
        f"{JSON};charset=utf-8",
        "",
    ):
        assert (await api.get(path, accept=accept)).media_type == JSON, accept
    assert (await api.get(path, headers={"Accept": None})).media_type in {JSON}
    in_yaml = await api.get(path, accept=YAML, view=yaml.safe_load)
    assert in_yaml.media_type == YAML and yaml.safe_load(in_yaml.body)["kind"] == "Widget"
    missing = await api.get(f"{api.widgets}/none", accept=YAML, view=yaml.safe_load)
    assert missing.status == 404 and yaml.safe_load(missing.body)["reason"] == "NotFound"


@conformance(points.CONTENT_TYPES)
async def test_content_types(api: Api) -> None:
    for content_type in ("text/plain", "application/xml", "application/x-www-form-urlencoded", "nonsense"):
        (await api.post(api.widgets, widget(), content_type=content_type)).refused(415, "UnsupportedMediaType")
    (await api.post(api.widgets, widget("json"), content_type=f"{JSON}; charset=utf-8")).ok(201)
    (await api.post(api.widgets, yaml.safe_dump(widget("yaml")), content_type=YAML)).ok(201)
    (await api.post(api.widgets, "a: [", content_type=YAML)).refused(400, "BadRequest")
    assert (await api.post(api.widgets, widget("none"), headers={"Content-Type": ""})).status in {201, 415}


@conformance(points.PROTOBUF, needs="protobuf-refusals")
async def test_protobuf_of_a_custom_resource(api: Api) -> None:
    (await api.post(api.widgets, b"k8s\x00", content_type=PROTOBUF)).refused(415, "UnsupportedMediaType")


@conformance(points.PROTOBUF)
async def test_protobuf_bodies(api: Api) -> None:
    """kubectl sends these for create namespace, configmap, secret and access reviews, and does not fall back."""

    async def post(path: str, kind: str, message: bytes, version: str = "v1") -> Any:
        body = envelope(version, kind, message)
        return (await api.post(path, body, content_type=PROTOBUF, accept=f"{PROTOBUF},{JSON}", view=None)).status

    name = f"{api.namespace}-made"
    assert await post("/api/v1/namespaces", "Namespace", field(1, metadata(name, labels={"a": "b"}))) == 201
    assert (await api.get(f"/api/v1/namespaces/{name}")).ok()["metadata"]["labels"]["a"] == "b"
    data = [field(1, "key") + field(2, "value"), field(1, "empty") + field(2, "")]
    assert await post(api.configmaps, "ConfigMap", field(1, metadata("c", api.namespace)) + field(2, data)) == 201
    assert (await api.get(f"{api.configmaps}/c")).ok()["data"] == {"key": "value", "empty": ""}
    secrets = f"/api/v1/namespaces/{api.namespace}/secrets"
    secret = field(1, metadata("s")) + field(2, [field(1, "k") + field(2, b"\xff\x00")]) + field(3, "Opaque")
    assert await post(secrets, "Secret", secret) == 201
    assert (await api.get(f"{secrets}/s")).ok()["data"] == {"k": "/wA="}
    assert await post(api.configmaps, "ConfigMap", b"\x0a\xff") == 400
    garbled = await api.post(api.configmaps, b"not protobuf", content_type=PROTOBUF, accept=JSON)
    assert garbled.status == 400


@conformance(points.PROTOBUF)
async def test_access_reviews(api: Api) -> None:
    """Tests `kubectl auth can-i` and `kubectl auth whoami`, in JSON and in protobuf."""
    reviews = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"
    attributes = {
        "namespace": api.namespace,
        "verb": "create",
        "group": "conformance.example.com",
        "resource": "widgets",
    }
    body = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectAccessReview",
        "spec": {"resourceAttributes": attributes},
    }
    asked = await api.post(reviews, body, view=lambda body: (body["kind"], body["spec"], body["status"]))
    assert asked.ok(201)["status"]["allowed"] is True
    spec = field(1, field(1, field(1, api.namespace) + field(2, "get") + field(5, "pods")))
    raw = envelope("authorization.k8s.io/v1", "SelfSubjectAccessReview", field(2, spec[2:]))
    answer = await api.post(reviews, raw, content_type=PROTOBUF, accept=JSON, view=lambda body: body["status"])
    assert answer.ok(201)["status"]["allowed"] is True
    rules = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SelfSubjectRulesReview",
        "spec": {"namespace": api.namespace},
    }
    listed = await api.post("/apis/authorization.k8s.io/v1/selfsubjectrulesreviews", rules, view=None)
    assert listed.ok(201)["status"]["resourceRules"]
    whoami = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    answer = await api.post("/apis/authentication.k8s.io/v1/selfsubjectreviews", whoami, view=None)
    assert answer.ok(201)["status"]["userInfo"]["username"]


@conformance(points.ACCEPT)
async def test_protobuf_answers_for_core_kinds(api: Api) -> None:
    """Clients that prefer protobuf also accept JSON; the response's content type says which one it is."""
    (await api.post(api.configmaps, configmap("c"))).ok(201)
    answer = await api.get(f"{api.configmaps}/c", accept=f"{PROTOBUF},{JSON}", view=None)
    assert answer.ok() and answer.media_type in {PROTOBUF, JSON}
    assert answer.raw.startswith(b"k8s\x00" if answer.media_type == PROTOBUF else b"{")


@conformance()
async def test_methods_and_sizes(api: Api) -> None:
    (await api.post(api.widgets, widget())).ok(201)
    path = f"{api.widgets}/a"
    for method, target in (("PUT", api.widgets), ("PATCH", api.widgets), ("TRACE", path)):
        body = "{}" if method == "PATCH" else widget()
        content_type = MERGE_PATCH if method == "PATCH" else JSON
        answer = await api.send(method, target, body, content_type=content_type)
        assert answer.status in {400, 405}, (method, target)
    head = await api.send("HEAD", path, view=None)
    assert head.status in {200, 405}
    options = await api.send("OPTIONS", path, view=None)
    assert options.status in {200, 405}
    huge = widget("huge", spec={"free": {"text": "x" * 4_000_000}})
    assert (await api.post(api.widgets, huge)).status == 413
    large = widget("large", spec={"free": {"text": "x" * 1_000_000}})
    assert (await api.post(api.widgets, large, view=None)).status == 201


@conformance()
async def test_namespaces_of_a_name(api: Api) -> None:
    """Names are part of paths: escaped characters stay escaped, and unusual names are refused."""
    for name in ("a%2Fb", "..%2F..", "%00", "a%20b"):
        assert (await api.get(f"{api.widgets}/{name}")).status in {400, 404}, name
    assert (await api.get(f"{api.widgets}/")).status in {200, 404}
    assert (await api.get(f"{api.widgets}//a")).status in {301, 307, 400, 404}
