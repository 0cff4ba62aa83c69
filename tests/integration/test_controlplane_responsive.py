"""Tests that no request blocks others: slow work is done outside the event loop, which is measured here.

The test's client runs on the same loop, so its share is counted too.
"""

from __future__ import annotations

import asyncio
import copy
import gc
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import orjson
import pytest

from controlplanes import CONFIGMAPS, CRDS, PATIENCE, WIDGETS, WIDGETS_CRD, Client, client_of, configmap, widget
from crdcorpus import small_crd
from loopwatch import watch_loop
from remit.controlplane.http.dispatch import LONG_BYTES
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.server import ControlPlane
from remit.controlplane.verbs import write
from remit.controlplane.verbs.cluster import RequestInfo, Writer

pytestmark = pytest.mark.no_cover

NESTED = "self.l.all(a, self.l.all(b, self.l.all(c, a + b + c >= 0)))"
JOINED = f"size({' + '.join(['self.s'] * 400)}) >= 0"
MANY = 1_000


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path) as server:
        yield server


@pytest.fixture
async def client(server: ControlPlane) -> AsyncIterator[Client]:
    async with client_of(server.kubeconfig) as client:
        await client.create(CRDS, crd_with_rules(NESTED, JOINED))
        yield client


def crd_with_rules(*rules: str) -> dict[str, Any]:
    crd = copy.deepcopy(WIDGETS_CRD)
    spec = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    spec["properties"] |= {"l": {"type": "array", "items": {"type": "integer"}, "default": []}}
    spec["properties"] |= {"s": {"type": "string", "default": ""}}
    spec["x-kubernetes-validations"] = [{"rule": rule} for rule in rules]
    return crd


def costly(**spec: Any) -> dict[str, Any]:
    made = widget("costly")
    return {**made, "spec": {**made["spec"], **spec}}


async def test_costly_rules_refuse_the_write_and_do_not_delay_others(client: Client) -> None:
    for spec, rule in (({"l": list(range(300))}, NESTED), ({"s": "x" * 1_000_000}, JOINED)):
        answered = asyncio.create_task(client.call("POST", WIDGETS, costly(**spec)))
        with watch_loop() as watch:
            while not (await asyncio.wait([answered], timeout=0.1))[0]:
                await client.get("/readyz")
            status, answer = await answered
        assert status == 422 and rule in answer["message"] and "cost limit exceeded" in answer["message"]
        watch.assert_no_stall()
    await client.create(WIDGETS, widget("ordinary"))


async def test_a_write_that_is_decided_aside_meets_the_writes_of_others(client: Client) -> None:
    await client.create(CONFIGMAPS, {**configmap("a"), "data": {"large": "x" * 100_000}})
    await asyncio.gather(
        *(client.merge(f"{CONFIGMAPS}/a", {"data": {f"key{number}": "y"}}) for number in range(8)),
        *(client.merge(f"{CONFIGMAPS}/a", {"data": {f"long{number}": "z" * 70_000}}) for number in range(4)),
    )
    data = (await client.get(f"{CONFIGMAPS}/a"))["data"]
    assert len(data) == 13, sorted(data)


async def test_a_write_that_is_decided_aside_does_not_lose_to_small_ones_for_ever(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each time it is evaluated, another write to the object is sent before it can be stored."""
    await client.create(CONFIGMAPS, configmap("a"))
    loop, patch, others = asyncio.get_running_loop(), write.patch, list[asyncio.Task[Any]]()

    async def send_another() -> None:
        others.append(asyncio.create_task(client.merge(f"{CONFIGMAPS}/a", {"data": {f"small{len(others)}": "x"}})))
        for _ in range(3):
            await client.get("/readyz")

    def patched_slowly(
        cluster: Writer, target: RequestInfo, media: str, body: bytes, request: ApiRequest
    ) -> write.Written:
        written = patch(cluster, target, media, body, request)
        if len(body) > LONG_BYTES:
            asyncio.run_coroutine_threadsafe(send_another(), loop).result(PATIENCE)
        return written

    monkeypatch.setattr(write, "patch", patched_slowly)
    await client.merge(f"{CONFIGMAPS}/a", {"data": {"large": "x" * LONG_BYTES}})
    await asyncio.gather(*others)
    assert len((await client.get(f"{CONFIGMAPS}/a"))["data"]) == 2 + len(others)


@pytest.mark.parametrize("deleted", [True, False], ids=["deleted", "changed"])
async def test_a_kind_changes_while_a_write_is_decided_aside(
    client: Client, monkeypatch: pytest.MonkeyPatch, deleted: bool
) -> None:
    """Nothing is stored for a kind that was deleted, or with a schema that is no longer in force."""
    create, decided, changed = write.create, threading.Event(), threading.Event()

    def created_slowly(cluster: Writer, target: RequestInfo, *more: Any) -> write.Written:
        written = create(cluster, target, *more)
        if target.resource.custom:
            decided.set()
            assert changed.wait(PATIENCE)
        return written

    monkeypatch.setattr(write, "create", created_slowly)
    writing = asyncio.create_task(client.call("POST", WIDGETS, widget("late", annotations={"a": "x" * 70_000})))
    assert await asyncio.to_thread(decided.wait, PATIENCE)
    kind = f"{CRDS}/widgets.example.dev"
    if deleted:
        await client.ok("DELETE", kind)
        await client.gone(kind)
    else:
        versions = (await client.get(kind))["spec"]["versions"]
        versions[0]["schema"]["openAPIV3Schema"]["properties"]["spec"]["properties"]["size"]["maximum"] = 0
        await client.merge(kind, {"spec": {"versions": versions}})  # its status may be written meanwhile
    changed.set()
    assert (await writing)[0] == (404 if deleted else 422)
    if deleted:
        await client.create(CRDS, WIDGETS_CRD)
    assert await client.names(WIDGETS) == []


LARGE = {
    "JSON": ("application/json", {f"k{number}": "" for number in range(30_000)}),
    "YAML": ("application/yaml", {f"k{number}": "" for number in range(20_000)}),
}


@pytest.mark.parametrize(("media", "data"), LARGE.values(), ids=LARGE.keys())
async def test_large_objects_do_not_delay_others(client: Client, media: str, data: dict[str, str]) -> None:
    body = {**configmap("large"), "data": data}
    encoded = orjson.dumps(body)
    if media != "application/json":
        encoded = b"# YAML\n" + encoded
    with watch_loop() as watch:
        status, answer = await client.call("POST", CONFIGMAPS, encoded, type=media)
        assert status == 201, answer
        await client.merge(f"{CONFIGMAPS}/large", {"metadata": {"labels": {"a": "b"}}})
        patch = [{"op": "copy", "from": "/data", "path": "/data/x"}]
        await client.call("PATCH", f"{CONFIGMAPS}/large", patch, type="application/json-patch+json")
        await client.ok("DELETE", f"{CONFIGMAPS}/large")
    watch.assert_no_stall()


async def test_many_objects_do_not_delay_others(client: Client, server: ControlPlane) -> None:
    """The objects are shown as a table, selected by a field, shown with a new schema, garbage-collected with their
    owner, and deleted at once."""
    owner = await client.create(CONFIGMAPS, configmap("owner"))
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["metadata"]["uid"]}
    assert server._store is not None
    for number in range(MANY):
        made = widget(f"w{number}", creationTimestamp="2026-01-01T00:00:00Z", uid=f"u{number}", namespace="default")
        if number % 2:
            made["metadata"]["ownerReferences"] = [reference]
        server._store.put("widgets.example.dev", made)
    await server._store.durable()
    crd = await client.get(f"{CRDS}/widgets.example.dev")
    schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    schema["properties"]["more"] = {"type": "string", "default": "x"}
    accept = {"Accept": "application/json;as=Table;g=meta.k8s.io;v=v1"}
    with watch_loop() as watch:
        await client.ok("PUT", f"{CRDS}/widgets.example.dev", crd)
        async with client.session.get(client.url + WIDGETS, headers=accept) as answer:
            assert b'"rows":' in await answer.read()
        await client.ok("DELETE", f"{CONFIGMAPS}/owner")
        await client.gone(f"{WIDGETS}/w{MANY - 1}")
        assert (await client.call("GET", f"{WIDGETS}/w0"))[1]["spec"]["more"] == "x"
        await client.ok("DELETE", WIDGETS)
        await client.gone(f"{WIDGETS}/w0")
    watch.assert_no_stall()


async def test_schemas_are_nothing_to_the_garbage_collector(client: Client) -> None:
    """The garbage collector would traverse them while no request is answered: half a second for some hundred large
    CRDs."""

    def large(index: int) -> dict[str, Any]:
        crd = small_crd(f"large{index}")
        properties = {f"field{number}": {"type": "string", "maxLength": index} for number in range(MANY)}
        schema = crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
        schema["properties"]["spec"]["properties"] |= properties
        return crd

    await client.create(CRDS, large(0))
    gc.collect()
    before = len(gc.get_objects())
    for index in range(1, 11):
        await client.create(CRDS, large(index))
    gc.collect()
    assert len(gc.get_objects()) < before + 5 * MANY
