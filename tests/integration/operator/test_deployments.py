"""A kind that this version does not act on says so."""

from __future__ import annotations

from remit.reconcilers.kube import DEPLOYMENTS

from .conftest import World, truth


async def test_a_deployment_is_answered_once_and_nothing_more(world: World) -> None:
    body = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {"artifact": {"path": "/srv/shop"}, "target": {"process": {"command": ["python3", "app.py"]}}},
    }
    async with world.operator():
        await world.kube.create(DEPLOYMENTS, "default", body)
        status = await world.until("shop", lambda status: truth(status, "Stalled") == "True", DEPLOYMENTS)
        before = await world.get("shop", DEPLOYMENTS)
        await world.finished(await world.task("true"))
        assert await world.get("shop", DEPLOYMENTS) == before
    assert status["observedGeneration"] == 1
    assert "releases nothing" in status["message"]


async def test_ceilings_count_where_only_some_namespaces_are_served(world: World) -> None:
    async with world.operator(namespaces=("default",)):
        await world.policy("sh", "true")
        await world.policy("true", namespace="remit-system")
        denied = await world.finished(await world.task("sh", "-c", "true"))
        assert denied["conditions"][0]["reason"] == "CeilingExceeded"
        assert (await world.finished(await world.task("true")))["phase"] == "Succeeded"
        await world.policy("true", namespace="kube-system")
        there = await world.task("true", namespace="kube-system")
        elsewhere = await world.task("true", namespace="remit-system")
        await world.finished(await world.task("true"))
        for name, namespace in ((there, "kube-system"), (elsewhere, "remit-system")):
            assert (await world.get(name, namespace=namespace))["status"]["phase"] == "Pending"
