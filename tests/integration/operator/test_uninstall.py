"""Tests what `remit uninstall` releases, and that it waits until no operator would restore it."""

from __future__ import annotations

import asyncio

import pytest

from remit.controllers.deployments import FINALIZER
from remit.controllers.uninstall import Uninstall
from remit.errors import ApiError, RemitError
from remit.kube.client import CRDS, DEPLOYMENTS, LEASES, TASKS
from remit.kube.lease import LEASE_NAME

from .conftest import World

OTHER_FINALIZER = "example.com/mine"


async def deployment(world: World) -> None:
    body = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "shop", "finalizers": [FINALIZER, OTHER_FINALIZER]},
        "spec": {
            "artifact": {"path": "/srv/shop"},
            "target": {"process": {"command": ["python3", "shop.py"]}},
            "ports": [{"name": "http", "containerPort": 8080, "published": 8080}],
        },
    }
    await world.kube.create(DEPLOYMENTS, "default", body)


async def lease(world: World, holder: str) -> None:
    body = {
        "apiVersion": "coordination.k8s.io/v1",
        "kind": "Lease",
        "metadata": {"name": LEASE_NAME, "annotations": {"remit.dev/audit-head": "7:abc"}},
        "spec": {
            "holderIdentity": holder,
            "leaseDurationSeconds": 1,
            "renewTime": "2026-01-01T00:00:00.000000Z",
        },
    }
    await world.kube.create(LEASES, world.settings.operator_namespace, body)


async def test_what_a_lost_operator_held_is_released(world: World) -> None:
    await deployment(world)
    await lease(world, "operator-that-was-killed")
    running = await world.task("sleep", "60")
    await world.kube.patch(TASKS, "default", running, {"status": {"phase": "Running"}}, subresource="status")
    done = await world.task("true")
    await world.kube.patch(TASKS, "default", done, {"status": {"phase": "Succeeded"}}, subresource="status")

    lines: list[str] = []
    uninstall = Uninstall(world.kube, world.settings.operator_namespace, (), lines.append)
    await uninstall.run("remit", timeout_seconds=30)

    assert lines == [
        "the Lease of operator-that-was-killed, which stopped without releasing it, is released",
        "deployment default/shop can be deleted now; what it made on its target stays",
        f"task default/{running} stays Running: an operator that is installed again goes on with it",
    ]
    shop = await world.get("shop", DEPLOYMENTS)
    assert shop["metadata"]["finalizers"] == [OTHER_FINALIZER]
    left = await world.get(LEASE_NAME, LEASES, world.settings.operator_namespace)
    assert left["spec"]["holderIdentity"] == ""
    assert left["spec"]["leaseTransitions"] == 1, "so the next leader does not take it for a release by its holder"
    assert left["metadata"]["annotations"] == {"remit.dev/audit-head": "7:abc"}

    lines.clear()
    await uninstall.run(None, timeout_seconds=30)  # repeating it does no harm
    assert lines == [f"task default/{running} stays Running: an operator that is installed again goes on with it"]


async def test_only_the_lease_of_this_installation_is_released(world: World) -> None:
    await lease(world, "operator-of-another-installation")
    lines: list[str] = []
    uninstall = Uninstall(world.kube, world.settings.operator_namespace, (), lines.append, "remit-b-operator")
    await uninstall.run("statefulset/remit-b", timeout_seconds=30)
    missing = f"there is no Lease {world.settings.operator_namespace}/remit-b-operator: no operator held one there"
    assert lines == [missing]
    other = await world.get(LEASE_NAME, LEASES, world.settings.operator_namespace)
    assert other["spec"]["holderIdentity"] == "operator-of-another-installation"


async def test_nothing_is_released_while_an_operator_is_at_work(world: World) -> None:
    await world.lease()
    async with world.operator(leader_election=True):
        await deployment(world)
        uninstall = Uninstall(world.kube, world.settings.operator_namespace, ("default",), pytest.fail)
        with pytest.raises(RemitError, match=r"is still at work: it renews the Lease .*/remit-operator. Stop it"):
            await uninstall.run(None, timeout_seconds=0.2)
        assert FINALIZER in (await world.get("shop", DEPLOYMENTS))["metadata"]["finalizers"]


async def test_an_installation_whose_crds_are_gone_can_be_removed(world: World) -> None:
    for resource in (DEPLOYMENTS, TASKS):
        await world.kube.delete(CRDS, None, f"{resource.plural}.{resource.group}")
        with pytest.raises(ApiError, match="404 page not found"):
            async with asyncio.timeout(60):
                while True:
                    await world.kube.list(resource)
                    await asyncio.sleep(0.05)
    lines: list[str] = []
    uninstall = Uninstall(world.kube, world.settings.operator_namespace, (), lines.append)
    await uninstall.run("remit", timeout_seconds=30)
    assert lines == [f"there is no Lease {world.settings.operator_namespace}/{LEASE_NAME}: no operator held one there"]
