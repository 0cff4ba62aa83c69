"""Tests objects in the database that no server would write: each is served, or omitted and reported, and can be
deleted."""

from __future__ import annotations

import contextlib
import sqlite3
from pathlib import Path
from typing import Any

import orjson
import pytest
from structlog.testing import capture_logs

from controlplanes import CRDS, WIDGETS_CRD, Client, client_of, configmap
from remit.controlplane.server import ControlPlane

META = {"creationTimestamp": "2026-01-01T00:00:00Z", "uid": "u"}
GOING = {"deletionTimestamp": "2026-01-01T00:00:00Z", "finalizers": ["foregroundDeletion"]}
OWNED = {"ownerReferences": [{"uid": "x"}]}
KINDS = {
    "configmaps": ("/api/v1", "v1", "ConfigMap"),
    "secrets": ("/api/v1", "v1", "Secret"),
    "events": ("/api/v1", "v1", "Event"),
    "leases.coordination.k8s.io": ("/apis/coordination.k8s.io/v1", "coordination.k8s.io/v1", "Lease"),
    "controllerrevisions.apps": ("/apis/apps/v1", "apps/v1", "ControllerRevision"),
    "widgets.example.dev": ("/apis/example.dev/v1", "example.dev/v1", "Widget"),
    "namespaces": ("/api/v1", "v1", "Namespace"),
    "customresourcedefinitions.apiextensions.k8s.io": (
        "/apis/apiextensions.k8s.io/v1",
        "apiextensions.k8s.io/v1",
        "CustomResourceDefinition",
    ),
}
CLUSTERED = ("namespaces", "customresourcedefinitions.apiextensions.k8s.io")
FIELDS: dict[str, dict[str, Any]] = {
    "number": dict.fromkeys(("spec", "status", "data", "series", "involvedObject", "source", "lastTimestamp"), 5),
    "list": {field: [5] for field in ("spec", "status", "data", "series", "involvedObject", "source")},
    "null": dict.fromkeys(("spec", "status", "data", "series"), None),
    "deep": {"spec": {"finalizers": 5, "versions": [5], "names": 5, "size": "x", "replicas": {}}, "status": {"a": []}},
}
METADATA: dict[str, dict[str, Any]] = {
    "plain": {},
    "going": GOING,
    "owned": OWNED,
    "odd": {"creationTimestamp": 5, "finalizers": 5, "managedFields": [5], "annotations": [], "generation": "x"},
    "older": {"finalizers": [5], "deletionTimestamp": 5},
}
FORMS = (
    "application/json",
    "application/json;as=Table;g=meta.k8s.io;v=v1",
    "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1",
    "application/yaml",
)


def bodies(resource: str) -> dict[str, bytes]:
    """Returns the objects by name."""
    _, api_version, kind = KINDS[resource]
    found = {}
    for what, fields in FIELDS.items():
        for state, metadata in METADATA.items():
            name = f"{what}-{state}"
            place = {"name": name} if resource in CLUSTERED else {"name": name, "namespace": "default"}
            found[name] = orjson.dumps(
                {"apiVersion": api_version, "kind": kind, "metadata": {**META, **place, **metadata}, **fields}
            )
    found["untyped"] = orjson.dumps({"metadata": orjson.loads(found["null-plain"])["metadata"] | {"name": "untyped"}})
    found["anonymous"] = found["null-plain"].replace(b'"u"', b'""').replace(b"null-plain", b"anonymous")
    found["empty"], found["none"] = b"", b"{"
    return found


def plant(state: Path, resource: str) -> list[str]:
    namespace = "" if resource in CLUSTERED else "default"
    found = bodies(resource)
    with contextlib.closing(sqlite3.connect(state / "state.db")) as db, db:
        for name, raw in found.items():
            row = (resource, namespace, name, raw)
            db.execute("INSERT INTO journal SELECT max(rv) + 1, ?, ?, ?, 0, ? FROM journal", row)
    return list(found)


async def answers(client: Client, path: str, **query: str) -> None:
    for form in FORMS:
        async with client.session.get(client.url + path, headers={"Accept": form}, params=query) as answer:
            text = await answer.text()
            expected = answer.status in (200, 404) or "spec replicas field" in text  # 500, as kube-apiserver answers
            assert expected, (path, form, query, answer.status, text[:500])
            if answer.status == 200 and "json" in form:
                orjson.loads(text)


@pytest.mark.parametrize("resource", KINDS)
async def test_a_damaged_object_of_any_kind_stops_nothing(tmp_path: Path, resource: str) -> None:
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        await client.create(CRDS, WIDGETS_CRD)
    names = plant(tmp_path, resource)
    prefix = KINDS[resource][0]
    plural = resource.partition(".")[0]
    collection = f"{prefix}/{plural}" if resource in CLUSTERED else f"{prefix}/namespaces/default/{plural}"
    with capture_logs() as logs:
        async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
            assert {entry.get("name") for entry in logs} >= {"empty", "none"}
            await answers(client, collection)
            await answers(client, collection, labelSelector="a=b")
            await answers(client, collection, limit="3")
            await answers(client, collection, fieldSelector="metadata.name=number-plain")
            for name in names:
                await answers(client, f"{collection}/{name}")
                await answers(client, f"{collection}/{name}/status")
                await answers(client, f"{collection}/{name}/scale")
            async with client.watch(collection, timeoutSeconds="1") as events:
                while not await events.ended():
                    pass
            for path in ("/openapi/v3", "/apis", prefix, "/api/v1/namespaces/default/configmaps"):
                await client.get(path)
            for name in names:
                patch = {"metadata": {"labels": {"a": "b"}}}
                status, answer = await client.call(
                    "PATCH", f"{collection}/{name}", patch, type="application/merge-patch+json"
                )
                assert status in (200, 400, 404, 409, 422), (name, status, answer)
                status, answer = await client.call("DELETE", f"{collection}/{name}")
                assert status in (200, 202, 404), (name, status, str(answer), logs[-2:])
            await client.create("/api/v1/namespaces/default/configmaps", configmap("alive"))
            await client.ok("DELETE", "/api/v1/namespaces/default/configmaps/alive")
    assert not [entry for entry in logs if entry["event"] in ("request_failed", "commit_not_applied")], logs[-1]
