"""The watches of an operator: what they need of the machine, and how their end is seen."""

from __future__ import annotations

import getpass
from typing import Any

import kopf
import pytest

from .conftest import World


async def test_a_user_without_a_name_can_watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container with `--user 65532`."""

    def nameless() -> str:
        raise KeyError("getpwuid(): uid not found: 65532")

    monkeypatch.setattr(getpass, "getuser", nameless)
    async with world.operator():
        await world.policy("true")
        assert (await world.finished(await world.task("true")))["phase"] == "Succeeded"


@pytest.mark.parametrize("wrong", [RuntimeError, MemoryError, SystemExit])
async def test_whatever_ends_a_watch_it_is_begun_again(
    world: World, monkeypatch: pytest.MonkeyPatch, wrong: type[BaseException]
) -> None:
    watching, ended = kopf.operator, 0

    async def failing(**options: Any) -> None:
        nonlocal ended
        if not ended:
            ended += 1
            raise wrong
        await watching(**options)

    monkeypatch.setattr(kopf, "operator", failing)
    async with world.operator():
        await world.policy("true")
        assert (await world.finished(await world.task("true")))["phase"] == "Succeeded"
    assert ended
