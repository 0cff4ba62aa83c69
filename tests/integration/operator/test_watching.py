"""Tests the watches of an operator: what they need of the machine, and how their end is noticed."""

from __future__ import annotations

import getpass
from typing import Any

import kopf
import pytest

from remit.controllers import operator
from remit.errors import ApiError
from remit.kube.client import Kube

from .conftest import World


async def test_a_user_without_a_name_can_watch(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """This is the case in a container with `--user 65532`."""

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


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_an_operator_that_starts_waits_for_the_api_server(
    world: World, monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    """The operator waits longer for the API server than for CRDs that are not installed."""
    monkeypatch.setattr(operator, "_LOOK_SECONDS", 0.0)
    request, refused = Kube.request, 0

    async def refusing(self: Kube, method: str, path: str, **more: Any) -> Any:
        nonlocal refused
        if refused < 2 * operator._LOOKS_FOR_KINDS:
            refused += 1
            raise ApiError("not now", status=status)
        return await request(self, method, path, **more)

    monkeypatch.setattr(Kube, "request", refusing)
    async with world.operator():
        assert refused == 2 * operator._LOOKS_FOR_KINDS
