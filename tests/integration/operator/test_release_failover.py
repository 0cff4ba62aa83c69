"""Tests what clients of both sides get during a release: from a side that dies or fails during the bake, and from one
that drains."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ports import free_port
from remit.release.traffic.probe import Probe
from remit.release.traffic.traffic import Traffic
from shops import PATIENCE, Ground, Shop, on_every_ground, open_shop

from .conftest import World

pytestmark = [pytest.mark.no_cover, on_every_ground, pytest.mark.timeout(300)]


@pytest.fixture
async def shop(ground: Ground, world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(ground, world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


async def test_a_new_side_that_fails_requests_goes_back_whatever_probes_hear(world: World, shop: Shop) -> None:
    async with world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", "broken", stages={"bakeSeconds": 600})
        await shop.until(lambda status: status.get("stage") == "Bake" and status.get("activeRevision") == 2)
        token = Traffic(world.settings.state_dir / "traffic").probe_token("default/shop")
        async with Probe(f"http://127.0.0.1:{shop.port}/healthz", token=token, rate=200) as probe:
            while len(probe.requests) < 200:
                await asyncio.sleep(0.02)
            for count in range(5):
                await shop.answer(f"Remit-Probe: {count}\r\n")  # the header does not make a client the probe
            status = await shop.until(lambda status: status["history"][0]["outcome"] == "RolledBack", "as to go back")
        assert status["pipeline"]["release"]["reason"] == "RequestsFailed"
        assert status["pipeline"]["release"]["message"].startswith("5 of 5 requests since the switch failed; 5 % may")
        assert await shop.answer() == "v1"


async def test_a_connection_goes_on_at_the_old_side_for_as_long_as_it_may(world: World, shop: Shop) -> None:
    async with world.operator():
        await shop.create("v1", drainSeconds=600)
        await shop.live("v1")
        reader, writer = await shop.upgraded()
        # Another port starts another proxy.
        preview = {"blueGreen": {"scaleDownDelaySeconds": 0, "previewPort": free_port()}}
        await shop.change("v2", drainSeconds=600, strategy=preview)
        await shop.until(lambda status: any(slot.get("draining") for slot in status["slots"]), "as to drain")
        assert await shop.answer() == "v2"
        writer.write(b"still here")
        assert await reader.readexactly(10) == b"still here"
        await shop.change("v2", drainSeconds=0, strategy=preview)
        async with asyncio.timeout(PATIENCE):
            assert await reader.read() == b""
        writer.close()
        await shop.tidy()


async def test_a_new_side_that_dies_in_the_bake_costs_only_the_requests_that_were_in_it(
    world: World, shop: Shop
) -> None:
    async with world.operator():
        await shop.create("v1", replicas=2)
        await shop.live("v1")
        await shop.change("v2", replicas=2, stages={"bakeSeconds": 600})
        await shop.until(lambda status: status.get("stage") == "Bake" and status.get("activeRevision") == 2)
        assert await shop.answer() == "v2"
        async with Probe(f"http://127.0.0.1:{shop.port}/", rate=100) as clients:
            await shop.crash(world.settings.state_dir, "green")
            status = await shop.until(lambda status: status["history"][0]["outcome"] == "RolledBack", "as to go back")
            assert status["pipeline"]["release"]["reason"] in {"InstanceFailed", "InstanceRestarted"}
            assert await shop.answer() == "v1"
            done = len(clients.requests) + 100
            while len(clients.requests) < done:
                await asyncio.sleep(0.02)
        failed = [request for request in clients.requests if request.error]
        assert len(failed) <= 10, failed
