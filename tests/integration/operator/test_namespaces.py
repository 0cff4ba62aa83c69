"""Tests which namespaces an operator serves."""

from __future__ import annotations

from .conftest import World


async def test_ceilings_count_where_only_some_namespaces_are_served(world: World) -> None:
    async with world.operator(namespaces=("default",)):
        await world.policy("sh", "true")
        await world.ceiling("true")
        denied = await world.finished(await world.task("sh", "-c", "true"))
        assert denied["conditions"][0]["reason"] == "CeilingExceeded"
        assert (await world.finished(await world.task("true")))["phase"] == "Succeeded"
        await world.policy("true", namespace="kube-system")
        there = await world.task("true", namespace="kube-system")
        elsewhere = await world.task("true", namespace="remit-system")
        await world.finished(await world.task("true"))
        for name, namespace in ((there, "kube-system"), (elsewhere, "remit-system")):
            assert (await world.get(name, namespace=namespace))["status"]["phase"] == "Pending"
