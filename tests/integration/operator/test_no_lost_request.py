"""Tests for every target that no request is lost, on kept and new connections, whatever happens to a release and to the
operator."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from httpload import load
from mortaloperator import HOOKS, killed_at_every_stage, mortals
from remit.kube.client import POLICIES, TASKS
from shops import GROUNDS, Ground, Shop, on_every_ground, open_shop
from support import repetitions

from .conftest import World

SWITCHES = repetitions(3, soak=20)
ROLLBACKS = repetitions(3, soak=5)
BACK = (SWITCHES, SWITCHES + 1, SWITCHES - 1, SWITCHES + 1, SWITCHES - 1)[:ROLLBACKS]
"""The revisions to roll back to. All but the third are within the scale-down delay, and so only switch requests."""

RATE = repetitions(80, soak=600)
"""Requests per second. They use more CPU than what they are sent through."""

pytestmark = [pytest.mark.no_cover, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
async def shop(ground: Ground, world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(ground, world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


@asynccontextmanager
async def nobody_loses_a_request(shop: Shop, rate: int, *versions: str) -> AsyncIterator[None]:
    """Sends half of the requests on kept connections. Asserts that all are answered, and that exactly these versions
    answer."""
    async with AsyncExitStack() as stack:
        loads = [await stack.enter_async_context(load(shop.port, kind, rate // 2)) for kind in ("keep", "new")]
        yield
    for each in loads:
        assert each.failed == []
        assert {answer.body for answer in each.answers} == set(versions)


@on_every_ground
async def test_in_switches_and_rollbacks(world: World, shop: Shop) -> None:
    shop.defaults = {"strategy": {"blueGreen": {"scaleDownDelaySeconds": 600}}}
    async with world.operator():
        await shop.create("v1")
        await shop.live("v1")
        versions = [f"v{number}" for number in range(1, SWITCHES + 2)]
        async with nobody_loses_a_request(shop, RATE, *versions):
            for version in versions[1:]:
                await shop.change(version)
                await shop.live(version)
            for revision in BACK:
                await shop.ask(f'{{"rollback": {{"revision": {revision}}}}}')
                await shop.live(f"v{revision}")


@pytest.mark.parametrize("ground", GROUNDS[: repetitions(1, soak=len(GROUNDS))], ids=lambda ground: ground.name)
async def test_while_the_operator_is_killed_at_every_stage(world: World, shop: Shop) -> None:
    """A good version is released, and a faulty one is rolled back. The operator does the same on every target, so one
    target is enough without REMIT_SOAK=1."""
    body = {"apiVersion": "remit.dev/v1alpha1", "kind": "CommandPolicy", "metadata": {"name": "hooks"}, "spec": HOOKS}
    await world.kube.create(POLICIES, "default", body)

    async def settled() -> dict[str, Any]:
        async with world.operator():
            await shop.live("v2")
            return await shop.tidy()

    async with world.operator():
        await shop.create("v1")
        await shop.live("v1")
    async with (
        nobody_loses_a_request(shop, RATE, "v1", "v2", "v3"),
        mortals(world.control_plane.kubeconfig, world.settings.state_dir) as operators,
    ):
        forward, back = await killed_at_every_stage(operators, shop, settled)
    assert forward == ["Promoted", "Promoted"]
    assert back == ["RolledBack", "Promoted", "Promoted"]
    trail = (world.settings.state_dir / "audit" / "audit.jsonl").read_text().splitlines()
    verdicts = [record["verdict"] for record in map(json.loads, trail) if record["kind"] == "release"]
    assert verdicts.count("Promoted") >= 2, "the end of a release is not on record"
    assert verdicts.count("RolledBack") >= 1
    attempts = {task["metadata"]["name"]: len(task["status"]["attempts"]) for task in await world.kube.list(TASKS)}
    assert attempts == {f"shop-{revision}-{name}-{name}": 1 for revision in (2, 3) for name in ("pre", "post")}
