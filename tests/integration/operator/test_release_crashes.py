"""Tests instances that were healthy and crash before the release has ended, on real targets."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shops import Ground, Shop, on_every_ground, open_shop

from .conftest import World
from .edges import hook

pytestmark = [pytest.mark.no_cover, on_every_ground, pytest.mark.timeout(300)]

CANARY = {"strategy": {"type": "Canary", "blueGreen": None, "canary": {"steps": [{"weight": 20}]}}}
HOOK = {"stages": hook("sleep", "600")}


@pytest.fixture
async def shop(ground: Ground, world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(ground, world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


@pytest.mark.parametrize(("release", "waits"), [(CANARY, "waits for somebody"), (HOOK, "hook gate runs")])
async def test_a_crash_before_the_switch_fails_the_release_although_the_instance_is_restarted(
    world: World, shop: Shop, release: dict[str, Any], waits: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The crash is reported although it happens between two observations."""
    monkeypatch.setattr("remit.release.clock.LOOK_SECONDS", 3600.0)
    await world.policy("sleep")
    async with world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", replicas=2, **release)
        await shop.until(lambda status: waits in status["message"], "as to have the new side healthy")
        await shop.crash(world.settings.state_dir, "green")
        status = await shop.until(lambda status: status["history"][0]["outcome"] == "Failed", "as to fail")
        assert status["pipeline"]["release"]["reason"] in {"InstanceFailed", "InstanceRestarted"}
        assert "crashed after being healthy" in status["message"]
        assert "exit code 3" in status["message"]
        assert await shop.answer() == "v1"
