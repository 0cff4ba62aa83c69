"""Tests every strategy on real targets under load, forward and back, with one failure after another."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from httpload import load
from shops import Ground, Shop, on_every_ground, open_shop
from support import repetitions

from .conftest import World

pytestmark = [pytest.mark.no_cover, on_every_ground, pytest.mark.slow, pytest.mark.timeout(600)]

ROLLING = {"type": "Rolling", "rolling": {"maxSurge": 1}}
RATE = repetitions(50, soak=300)
"""Requests per second of each client. They use more CPU than the release."""
CANARY = {"type": "Canary", "canary": {"steps": [{"weight": 20}, {"weight": 50, "pauseSeconds": 1}]}}


@pytest.fixture
async def shop(ground: Ground, world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(ground, world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


async def test_rolling_and_canary_lose_no_request(world: World, shop: Shop) -> None:
    async with world.operator():
        await shop.create("v1", replicas=3, strategy=ROLLING)
        await shop.live("v1")
        async with load(shop.port, "keep", RATE) as kept, load(shop.port, "new", RATE) as new:
            await shop.change("v2", replicas=3, strategy=ROLLING)
            await shop.live("v2")
            await shop.tidy()
            await shop.change("v3", "sick", replicas=3, strategy=ROLLING)
            await shop.stuck("answered 500")
            status = await shop.until(lambda status: status["ready"] == "3/3", "as to be whole again")
            assert "v2 (2)" in status["active"]
            canary = {**CANARY, "rolling": None}
            await shop.change("v4", replicas=3, strategy=canary)
            await shop.until(lambda status: status.get("phase") == "AwaitingPromotion", "as to wait at 20 %")
            await shop.ask("promote")
            status = await shop.live("v4")
        for each in (kept, new):
            assert each.failed == []
            assert {answer.body for answer in each.answers} == {"v1", "v2", "v4"}
        outcomes = [each["outcome"] for each in status["history"]]
        assert outcomes == ["Promoted", "Failed", "Promoted", "Promoted"]


async def test_recreate_never_runs_both_and_comes_back_from_what_is_sick(world: World, shop: Shop) -> None:
    strategy = {"type": "Recreate", "blueGreen": None}
    async with world.operator():
        await shop.create("v1", strategy=strategy)
        await shop.live("v1")
        await shop.change("v2", strategy=strategy)
        await shop.live("v2")
        assert await shop.answer() == "v2"
        await shop.change("v3", "sick", strategy=strategy)
        await shop.stuck("answered 500")
        await shop.until(lambda status: status["ready"] == "1/1", "as to be whole again")
        assert await shop.answer() == "v2"
        status = await shop.tidy()
        assert [slot["revision"] for slot in status["slots"]] == [2]
