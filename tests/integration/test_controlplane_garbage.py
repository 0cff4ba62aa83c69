"""Tests owners and dependents, namespaces, and expired Events."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from controlplanes import (
    CONFIGMAPS,
    CRDS,
    PATIENCE,
    WIDGETS,
    WIDGETS_CRD,
    Client,
    client_of,
    configmap,
    options,
    widget,
)
from remit.controlplane.controllers.expiry import expire_events
from remit.controlplane.resources import Registry
from remit.controlplane.server import ControlPlane
from remit.controlplane.verbs.cluster import Cluster


@pytest.fixture
async def server(tmp_path: Path) -> AsyncIterator[ControlPlane]:
    async with ControlPlane(tmp_path) as server:
        yield server


@pytest.fixture
async def client(server: ControlPlane) -> AsyncIterator[Client]:
    async with client_of(server.kubeconfig) as client:
        await client.create(CRDS, WIDGETS_CRD)
        yield client


def owned_by(owner: dict[str, Any], *, blocks: bool = False) -> dict[str, Any]:
    metadata = owner["metadata"]
    reference = {
        "apiVersion": owner["apiVersion"],
        "kind": owner["kind"],
        "name": metadata["name"],
        "uid": metadata["uid"],
    }
    return reference | ({"blockOwnerDeletion": True} if blocks else {})


async def family(client: Client, *, blocks: bool = False, **metadata: Any) -> dict[str, Any]:
    """Creates an owner with a child and a grandchild."""
    owner: dict[str, Any] = await client.create(WIDGETS, widget("owner"))
    child = await client.create(WIDGETS, widget("child", ownerReferences=[owned_by(owner, blocks=blocks)], **metadata))
    await client.create(CONFIGMAPS, configmap("grandchild", ownerReferences=[owned_by(child, blocks=blocks)]))
    return owner


async def test_dependents_follow_their_owner(client: Client) -> None:
    await family(client)
    await client.ok("DELETE", f"{WIDGETS}/owner")
    await client.gone(f"{WIDGETS}/child")
    await client.gone(f"{CONFIGMAPS}/grandchild")


async def test_foreground_waits_for_blocking_dependents(client: Client) -> None:
    await family(client, blocks=True, finalizers=["example.dev/hold"])
    await client.ok("DELETE", f"{WIDGETS}/owner", options(propagationPolicy="Foreground"))
    await client.gone(f"{CONFIGMAPS}/grandchild")
    waiting = (await client.get(f"{WIDGETS}/owner"))["metadata"]
    assert waiting["finalizers"] == ["foregroundDeletion"] and waiting["deletionTimestamp"]
    await client.merge(f"{WIDGETS}/child", {"metadata": {"finalizers": None}})
    await client.gone(f"{WIDGETS}/child")
    await client.gone(f"{WIDGETS}/owner")


async def test_orphaned_dependents_lose_their_owner_references(client: Client) -> None:
    await family(client)
    await client.ok("DELETE", f"{WIDGETS}/owner", options(propagationPolicy="Orphan"))
    await client.gone(f"{WIDGETS}/owner")
    assert "ownerReferences" not in (await client.get(f"{WIDGETS}/child"))["metadata"]


async def test_one_living_owner_is_enough(client: Client) -> None:
    one, two = [await client.create(WIDGETS, widget(name)) for name in ("one", "two")]
    await client.create(CONFIGMAPS, configmap("c", ownerReferences=[owned_by(one), owned_by(two)]))
    await client.create(CONFIGMAPS, configmap("marker", ownerReferences=[owned_by(one)]))
    await client.ok("DELETE", f"{WIDGETS}/one")
    await client.gone(f"{CONFIGMAPS}/marker")
    kept = await client.get(f"{CONFIGMAPS}/c")
    assert [reference["name"] for reference in kept["metadata"]["ownerReferences"]] == ["two"]


async def test_an_owner_that_never_was_takes_its_dependent_along(client: Client) -> None:
    owner = await client.create(WIDGETS, widget("owner"))
    stranger = owned_by(owner) | {"uid": "00000000-0000-0000-0000-000000000000"}
    await client.create(CONFIGMAPS, configmap("c", ownerReferences=[stranger]))
    await client.gone(f"{CONFIGMAPS}/c")


async def test_a_namespace_takes_everything_in_it_along(client: Client) -> None:
    await client.create("/api/v1/namespaces", {"metadata": {"name": "full"}})
    for name in "abc":
        await client.create("/api/v1/namespaces/full/configmaps", configmap(name))
        await client.create("/apis/example.dev/v1/namespaces/full/widgets", widget(name))
    await client.ok("DELETE", "/api/v1/namespaces/full")
    await client.gone("/api/v1/namespaces/full")
    assert await client.names("/apis/example.dev/v1/widgets") == []
    status, answer = await client.call("DELETE", "/api/v1/namespaces/default")
    assert status == 403 and "may not be deleted" in answer["message"]


async def test_events_expire(client: Client, server: ControlPlane) -> None:
    events = "/api/v1/namespaces/default/events"
    about = {"involvedObject": {"namespace": "default", "name": "x", "kind": "X"}}
    now = datetime.now(UTC)
    for name, seen in (("old", "2020-01-01T00:00:00Z"), ("new", (now + timedelta(hours=2)).isoformat())):
        await client.create(events, {"metadata": {"name": name}, "lastTimestamp": seen, **about})
    assert server._store is not None
    later = Cluster(server._store, Registry(), now=lambda: now + timedelta(minutes=90))
    assert expire_events(later) == 1
    await client.gone(f"{events}/old")
    assert await client.names(events) == ["new"]


async def test_a_terminating_namespace_reports_what_it_waits_for(client: Client) -> None:
    """The conditions are those of kube-controller-manager, which `kubectl describe` shows."""
    await client.create("/api/v1/namespaces", {"metadata": {"name": "going"}})
    for name in ("a", "b"):
        await client.create("/api/v1/namespaces/going/configmaps", configmap(name, finalizers=["example.dev/f"]))
    await client.create("/api/v1/namespaces/going/configmaps", configmap("free"))
    await client.ok("DELETE", "/api/v1/namespaces/going")
    await client.gone("/api/v1/namespaces/going/configmaps/free")
    namespace = await client.get("/api/v1/namespaces/going")
    async with asyncio.timeout(PATIENCE):
        while "configmaps. has 2" not in str(namespace["status"].get("conditions")):
            await asyncio.sleep(0.02)
            namespace = await client.get("/api/v1/namespaces/going")
    conditions = {
        each["type"]: (each["status"], each["reason"], each["message"]) for each in namespace["status"]["conditions"]
    }
    assert conditions["NamespaceContentRemaining"] == (
        "True", "SomeResourcesRemain", "Some resources are remaining: configmaps. has 2 resource instances"
    )  # fmt: skip
    assert conditions["NamespaceFinalizersRemaining"] == (
        "True",
        "SomeFinalizersRemain",
        "Some content in the namespace has finalizers remaining: example.dev/f in 2 resource instances",
    )
    failures = ("DiscoveryFailure", "GroupVersionParsingFailure", "ContentFailure")
    assert all(conditions[f"NamespaceDeletion{name}"][0] == "False" for name in failures)
    for name in ("a", "b"):
        await client.merge(f"/api/v1/namespaces/going/configmaps/{name}", {"metadata": {"finalizers": None}})
    await client.gone("/api/v1/namespaces/going")
