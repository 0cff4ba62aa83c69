"""Tests what a release contacts: nothing before a policy allows it, and for no longer than its deletion may take."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from dockers import LEAKING, sdk_leaves_sockets  # noqa: F401
from remit.kube.client import DEPLOYMENTS, EVENTS, POLICIES, Object

from .conftest import World
from .edges import eventually


@asynccontextmanager
async def listening(path: Path) -> AsyncIterator[list[str]]:
    """Listens on a socket that could belong to an engine, and yields the connections to it."""
    connections: list[str] = []

    async def accept(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connections.append("connected")
        writer.close()

    async with await asyncio.start_unix_server(accept, path):
        yield connections


async def create(world: World, target: dict[str, Any], **spec: Any) -> Object:
    body = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "Deployment",
        "metadata": {"name": "shop"},
        "spec": {"artifact": {"image": "shop:v1"}, "target": target, **spec},
    }
    return await world.kube.create(DEPLOYMENTS, "default", body)


async def says(world: World, words: str) -> dict[str, Any]:
    return await world.until("shop", lambda status: words in status.get("message", ""), DEPLOYMENTS)


async def told(world: World, reason: str) -> str:
    messages: list[str] = []

    async def found() -> bool:
        events = await world.kube.list(EVENTS, "default", field_selector="involvedObject.name=shop")
        messages[:] = [each["message"] for each in events if each["reason"] == reason]
        return bool(messages)

    await eventually(found, f"the Event {reason}")
    return messages[0]


async def delete(world: World) -> None:
    await world.kube.delete(DEPLOYMENTS, "default", "shop")
    await world.gone("shop", DEPLOYMENTS)


@LEAKING
async def test_an_engine_that_no_policy_allows_is_never_contacted(world: World, tmp_path: Path) -> None:
    async with listening(tmp_path / "engine.sock") as connections, world.operator():
        engine = f"unix://{tmp_path}/engine.sock"
        await create(world, {"docker": {"host": engine}})
        await says(world, "no CommandPolicy")
        name = await world.policy(containers={"operations": ["run"]}, images={"allow": ["shop:*"]})
        await says(world, "releases.engines")
        generation = (await world.kube.patch(DEPLOYMENTS, "default", "shop", {"spec": {"replicas": 2}}))["metadata"]
        await world.until("shop", lambda s: s["observedGeneration"] == generation["generation"], DEPLOYMENTS)
        await world.kube.patch(
            DEPLOYMENTS, "default", "shop", {"metadata": {"annotations": {"remit.dev/request": "rollback"}}}
        )
        await world.until("shop", lambda status: status.get("request"), DEPLOYMENTS)
        assert connections == []
        await world.kube.patch(POLICIES, "default", name, {"spec": {"releases": {"engines": [engine]}}})
        await says(world, "cannot be reached")
        assert connections != []
        await delete(world)


async def test_one_that_was_never_allowed_is_deleted_without_contact(world: World, tmp_path: Path) -> None:
    async with listening(tmp_path / "engine.sock") as connections, world.operator():
        await create(world, {"docker": {"host": f"unix://{tmp_path}/engine.sock"}})
        await says(world, "no CommandPolicy")
        await delete(world)
        assert connections == []


@LEAKING
async def test_one_that_was_never_released_is_deleted_while_its_engine_is_away(world: World, tmp_path: Path) -> None:
    engine = f"unix://{tmp_path}/none.sock"
    await world.policy(containers={"operations": ["run"]}, images={"allow": ["shop:*"]}, releases={"engines": [engine]})
    async with world.operator():
        await create(world, {"docker": {"host": engine}})
        await says(world, "cannot be reached")
        await delete(world)


class _Untouched:
    """A cluster that must not be contacted."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def __getattr__(self, name: str) -> Any:
        self.asked.append(name)
        raise AssertionError(f"the cluster was asked to {name}")


async def test_another_namespace_that_no_policy_allows_is_never_read(world: World) -> None:
    await world.policy(containers={"operations": ["run"]}, images={"allow": ["shop:*"]})
    async with world.operator() as operator:
        operator.deployments.places.cluster = cluster = _Untouched()  # type: ignore[assignment]
        await create(world, {"kubernetes": {"namespace": "elsewhere"}})
        await says(world, "releases.namespaces")
        await delete(world)
        assert cluster.asked == []


@LEAKING
async def test_a_deletion_while_the_engine_is_away_reports_it_and_ends(world: World, tmp_path: Path) -> None:
    engine = f"unix://{tmp_path}/none.sock"
    made = await create(world, {"docker": {"host": engine}}, progressDeadlineSeconds=86400)
    status = {"pipeline": {"latest": 1}}  # a revision was released there
    await world.kube.patch(DEPLOYMENTS, "default", "shop", {"status": status}, subresource="status")
    async with world.operator():
        await says(world, "cannot be reached")
        await world.kube.delete(DEPLOYMENTS, "default", "shop")
        await says(world, "is being deleted")
        assert "no longer be waited for" in (await says(world, "cannot be reached"))["message"]
        assert "cannot be reached" in await told(world, "TargetUnreachable")
        await world.kube.patch(DEPLOYMENTS, "default", "shop", {"spec": {"progressDeadlineSeconds": 1}})
        await world.gone("shop", DEPLOYMENTS)
        left = await told(world, "Abandoned")
    assert f"remit.dev/deployment-uid={made['metadata']['uid']}" in left
    assert engine in left
    assert not (world.settings.state_dir / "releases" / "default" / "shop").exists()
