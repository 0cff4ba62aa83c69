"""The promise of every target: nobody's request is lost, in whatever release, on kept and on new connections."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from httpload import load
from shops import Ground, Shop, on_every_ground, open_shop

from .conftest import World

SWITCHES = 20
ROLLBACKS = 5


@pytest.fixture
async def shop(ground: Ground, world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(ground, world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


@on_every_ground
async def test_no_request_is_lost_in_twenty_switches_and_five_rollbacks(world: World, shop: Shop) -> None:
    async with world.operator(), AsyncExitStack() as stack:
        await shop.create("v0")
        await shop.live("v0")
        loads = [await stack.enter_async_context(load(shop.port, kind, 300)) for kind in ("keep", "new")]
        for number in range(1, SWITCHES + 1):
            await shop.change(f"v{number}")
            await shop.live(f"v{number}")
        for number in range(ROLLBACKS):
            await shop.ask(f'{{"rollback": {{"revision": {SWITCHES - number}}}}}')
            await shop.live(f"v{SWITCHES - number - 1}")
    for each in loads:
        assert each.failed == []
        assert {answer.body for answer in each.answers} == {f"v{number}" for number in range(SWITCHES + 1)}
