"""Tests that no acknowledged write is lost, whatever happens to the process, and that clients continue after the
restart."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import sqlite3
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest
from structlog.testing import capture_logs

from controlplanes import CONFIGMAPS, CRDS, WIDGETS, WIDGETS_CRD, Client, client_of, configmap, serve, served, widget
from remit.controlplane.server import ControlPlane
from remit.errors import InvalidInput

WRITERS = 16


async def write_until_dead(client: Client, writer: int, acknowledged: dict[str, int]) -> None:
    """Creates and then patches objects, recording what the server acknowledged."""
    for number in range(10_000):
        name = f"w{writer}-{number}"
        try:
            await client.create(WIDGETS, widget(name))
            acknowledged[name] = 1
            await client.merge(f"{WIDGETS}/{name}", {"spec": {"size": 2}})
            acknowledged[name] = 2
        except (aiohttp.ClientError, ConnectionError):
            return


async def test_kill_loses_no_acknowledged_write(tmp_path: Path) -> None:
    acknowledged: dict[str, int] = {}
    for cycle in range(3):
        server = await serve(tmp_path)
        async with client_of(server.kubeconfig) as client:
            if cycle == 0:
                await client.create(CRDS, WIDGETS_CRD)
            before = len(acknowledged)
            writers = [
                asyncio.create_task(write_until_dead(client, cycle * WRITERS + n, acknowledged)) for n in range(WRITERS)
            ]
            async with asyncio.timeout(60):
                while len(acknowledged) < before + 200:
                    await asyncio.sleep(0.01)
            await server.kill()
            await asyncio.gather(*writers)
    async with served(tmp_path) as server, client_of(server.kubeconfig) as client:
        listed = await client.get(WIDGETS)
        kept = {item["metadata"]["name"]: item["spec"]["size"] for item in listed["items"]}
    lost = {name: size for name, size in acknowledged.items() if kept.get(name, 0) < size}
    assert len(acknowledged) >= 600 and not lost


async def test_a_watch_goes_on_after_a_restart(tmp_path: Path) -> None:
    async with served(tmp_path) as server, client_of(server.kubeconfig) as client:
        await client.create(CONFIGMAPS, configmap("a"))
        seen = (await client.get(CONFIGMAPS))["metadata"]["resourceVersion"]
        await client.create(CONFIGMAPS, configmap("b"))
        await client.merge(f"{CONFIGMAPS}/a", {"metadata": {"labels": {"x": "y"}}})
        await client.ok("DELETE", f"{CONFIGMAPS}/b")
        await server.kill()
    async with served(tmp_path) as server, client_of(server.kubeconfig) as client:
        async with client.watch(CONFIGMAPS, resourceVersion=seen) as events:
            assert await events.take(3) == [("ADDED", "b"), ("MODIFIED", "a"), ("DELETED", "b")]
            await client.create(CONFIGMAPS, configmap("c"))
            assert await events.take(1) == [("ADDED", "c")]
        assert int((await client.get(CONFIGMAPS))["metadata"]["resourceVersion"]) > int(seen) + 3


async def test_clients_keep_their_credentials_over_a_restart(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path) as first:
        port, config = first.port, first.kubeconfig.read_text()
    async with ControlPlane(tmp_path, port=port) as second:
        assert second.kubeconfig.read_text() == config


async def test_unfinished_deletions_are_resumed_at_boot(tmp_path: Path) -> None:
    """A namespace, a CRD and a foreground deletion are held by a finalizer while the server is killed."""
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        await client.create(CRDS, WIDGETS_CRD)
        await client.create("/api/v1/namespaces", {"metadata": {"name": "going"}})
        held = configmap("held", finalizers=["example.dev/f"])
        await client.create("/api/v1/namespaces/going/configmaps", held)
        await client.create(WIDGETS, widget("held", finalizers=["example.dev/f"]))
        await client.ok("DELETE", "/api/v1/namespaces/going")
        await client.ok("DELETE", f"{CRDS}/widgets.example.dev")
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        namespace = await client.get("/api/v1/namespaces/going")
        assert namespace["status"]["phase"] == "Terminating"
        status, answer = await client.call("POST", WIDGETS, widget("late"))
        assert status in (403, 405), answer
        for path in ("/api/v1/namespaces/going/configmaps/held", f"{WIDGETS}/held"):
            await client.merge(path, {"metadata": {"finalizers": None}})
        await client.gone("/api/v1/namespaces/going")
        await client.gone(f"{CRDS}/widgets.example.dev")
        assert (await client.call("GET", WIDGETS))[0] == 404


async def test_a_failed_disk_fails_requests_and_reports_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        await client.create(CONFIGMAPS, configmap("a"))

        def full(changes: object) -> None:
            raise OSError("no space left on device")

        assert server._store is not None
        monkeypatch.setattr(server._store._journal, "append", full)
        status, answer = await client.call("POST", CONFIGMAPS, configmap("b"))
        assert (status, answer["reason"]) == (500, "InternalError") and "no space left" in answer["message"]
        assert server.failed.done()
        assert (await client.call("GET", "/readyz"))[0] == 500
        assert (await client.call("PUT", f"{CONFIGMAPS}/a", configmap("a")))[0] == 500
        assert await client.names(CONFIGMAPS) == ["a"]


def plant(state: Path, resource: str, namespace: str, name: str, raw: bytes) -> None:
    """Writes a revision into the database that no server would accept."""
    with contextlib.closing(sqlite3.connect(state / "state.db")) as db, db:
        db.execute(
            "INSERT INTO journal SELECT max(rv) + 1, ?, ?, ?, 0, ? FROM journal", (resource, namespace, name, raw)
        )


def broken_crd(name: str, **version: Any) -> bytes:
    """Returns an established CRD named `{name}s.example.dev` with changes to its version."""
    crd = copy.deepcopy(WIDGETS_CRD)
    crd["metadata"] |= {"name": f"{name}s.example.dev", "uid": name, "creationTimestamp": "2026-01-01T00:00:00Z"}
    crd["spec"]["names"] = {"plural": f"{name}s", "singular": name, "kind": name.title(), "listKind": f"{name}List"}
    crd["spec"]["versions"][0] |= version
    established = [{"type": kind, "status": "True"} for kind in ("Established", "NamesAccepted")]
    crd["status"] = {"conditions": [{}, *established], "storedVersions": ["v1"], "acceptedNames": crd["spec"]["names"]}
    return orjson.dumps(crd)


BROKEN = {
    "scale": {"subresources": {"scale": {"specReplicasPath": ".spec.replicas"}}},
    "field": {"selectableFields": [{}]},
    "column": {"additionalPrinterColumns": [5]},
    "enum": {"schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": {"type": "string", "enum": 5}}}}},
    "rule": {"schema": {"openAPIV3Schema": {"type": "object", "x-kubernetes-validations": [5]}}},
    "schema": {"schema": {"openAPIV3Schema": {"type": "object", "properties": {"a": 5}}}},
}


async def test_bad_objects_do_not_keep_the_server_from_starting(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        await client.create(CRDS, WIDGETS_CRD)
        await client.create(WIDGETS, widget("good"))
        await client.create(CONFIGMAPS, configmap("good"))
    for name, version in BROKEN.items():
        plant(
            tmp_path,
            "customresourcedefinitions.apiextensions.k8s.io",
            "",
            f"{name}s.example.dev",
            broken_crd(name, **version),
        )
    owner = {"apiVersion": "v1", "kind": "ConfigMap", "name": "x", "uid": ["u"]}
    plant(
        tmp_path, "configmaps", "default", "owned", orjson.dumps(configmap("owned", ownerReferences=[owner], uid="u"))
    )
    plant(tmp_path, "widgets.example.dev", "default", "none", b"{")
    plant(tmp_path, "customresourcedefinitions.apiextensions.k8s.io", "", "nones.example.dev", b"[]")
    event = {"metadata": {"name": "e", "namespace": "default", "creationTimestamp": "x", "ownerReferences": None}}
    plant(tmp_path, "events", "default", "e", orjson.dumps(event))
    with capture_logs() as logs:
        async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
            named = {entry.get("crd") or entry.get("name") for entry in logs}
            assert named >= {"owned", "e", "none", "nones.example.dev", *(f"{name}s.example.dev" for name in BROKEN)}
            assert await client.names(WIDGETS) == ["good"] and await client.names(CONFIGMAPS) == ["good"]
            await client.create(WIDGETS, widget("new"))
            for path in ("/openapi/v3", "/apis/example.dev/v1", CRDS):
                await client.get(path)
            for name in ("nones", *(f"{name}s" for name in BROKEN)):
                await client.ok("DELETE", f"{CRDS}/{name}.example.dev")
                await client.gone(f"{CRDS}/{name}.example.dev")
            await client.ok("DELETE", f"{WIDGETS}/none")
            await client.ok("DELETE", f"{CONFIGMAPS}/owned")
            await client.ok("DELETE", "/api/v1/namespaces/default/events/e")
            assert (await client.call("DELETE", f"{CONFIGMAPS}/owned"))[0] == 404
    with capture_logs() as logs:
        async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
            assert not [entry for entry in logs if entry["log_level"] in ("error", "warning")]
            assert await client.names(CRDS) == ["widgets.example.dev"]
            assert await client.names(WIDGETS) == ["good", "new"]


async def test_a_state_directory_or_port_in_use_is_refused(tmp_path: Path) -> None:
    async with ControlPlane(tmp_path / "a") as first:
        with pytest.raises(InvalidInput, match="in use by another control plane"):
            await ControlPlane(tmp_path / "a").start()
        with pytest.raises(InvalidInput, match="choose another host or port"):
            await ControlPlane(tmp_path / "b", port=first.port).start()


def with_colour(present: bool) -> dict[str, Any]:
    crd = copy.deepcopy(WIDGETS_CRD)
    properties = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]
    if present:
        properties["colour"] = {"type": "string", "default": "grey"}
    return crd


async def forms(client: Client, name: str, since: str) -> list[Any]:
    """Returns an object as each kind of read shows it."""
    async with client.watch(WIDGETS, resourceVersion=since) as events:
        watched = (await events.next())[1]
    listed = next(item for item in (await client.get(WIDGETS))["items"] if item["metadata"]["name"] == name)
    return [await client.get(f"{WIDGETS}/{name}"), listed, watched]


async def test_a_field_that_leaves_the_crd_and_comes_back_has_its_value(tmp_path: Path) -> None:
    """As in kube-apiserver, which prunes on reading. Only until the object is written; then the value is gone."""

    async def define(client: Client, present: bool) -> None:
        await client.merge(f"{CRDS}/widgets.example.dev", {"spec": with_colour(present)["spec"]})

    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        await client.create(CRDS, with_colour(True))
        since = (await client.get(WIDGETS))["metadata"]["resourceVersion"]
        body = widget("a")
        red = await client.create(WIDGETS, {**body, "spec": {**body["spec"], "colour": "red"}})
        await define(client, False)
        without = await forms(client, "a", since)
        assert all("colour" not in shown["spec"] for shown in without)
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        assert await forms(client, "a", since) == without, "the same after a restart"
        await define(client, True)
        assert await forms(client, "a", since) == [red, red, red]
        await define(client, False)
        await client.merge(f"{WIDGETS}/a", {"spec": {"size": 7}})
        await define(client, True)
        assert (await client.get(f"{WIDGETS}/a"))["spec"]["colour"] == "grey"


async def test_what_another_version_stored_is_shown_alike_before_and_after_a_restart(tmp_path: Path) -> None:
    """A field exists only in the version in which the object was written, and not in the storage version."""
    crd = with_colour(False)
    other = copy.deepcopy(with_colour(True)["spec"]["versions"][0]) | {"name": "v2", "storage": False}
    crd["spec"]["versions"].append(other)
    beta = WIDGETS.replace("/v1/", "/v2/")
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        await client.create(CRDS, crd)
        body = {**widget("a"), "apiVersion": "example.dev/v2"}
        await client.create(beta, {**body, "spec": {**body["spec"], "colour": "red"}})
        before = [await client.get(f"{path}/a") for path in (WIDGETS, beta)]
    async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
        assert [await client.get(f"{path}/a") for path in (WIDGETS, beta)] == before


async def test_the_store_is_identified_in_the_api(tmp_path: Path) -> None:
    async def identity() -> str:
        async with ControlPlane(tmp_path) as server, client_of(server.kubeconfig) as client:
            annotations = (await client.get("/api/v1/namespaces/kube-system"))["metadata"]["annotations"]
            await client.call("POST", CONFIGMAPS, configmap("a"))
            return str(annotations["remit.dev/store"])

    first = await identity()
    assert await identity() == first
    for path in tmp_path.glob("state.db*"):
        path.unlink()
    with capture_logs() as logs:
        assert await identity() != first
    assert [entry["event"] for entry in logs] == ["store_lost_writes"]
