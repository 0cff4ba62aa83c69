"""Tests the informer with a server that forgets, deletes and replaces objects while no watch is open."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remit.errors import ApiError
from remit.kube.client import CONFIG_MAPS
from remit.kube.informer import Change, Informer

from .conftest import PATIENCE, World


async def make(world: World, name: str, **data: str) -> None:
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": data}
    await world.kube.create(CONFIG_MAPS, "default", body)


def told(change: Change | None) -> tuple[str, str, Any]:
    assert change is not None
    return change.type, change.object["metadata"]["name"], change.object.get("data")


async def test_what_happened_while_no_watch_was_open_is_reported(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The version has expired: the server does not report what was deleted, but it is missing in the new list."""
    for name in ("kept", "gone", "replaced", "changed"):
        await make(world, name)
    watch, gap = world.kube.watch, asyncio.Event()

    async def expired(*args: Any, **options: Any) -> Any:
        await gap.wait()
        monkeypatch.setattr(world.kube, "watch", watch)
        raise ApiError("too old resource version", status=410, reason="Expired")
        yield

    monkeypatch.setattr(world.kube, "watch", expired)
    async with asyncio.timeout(PATIENCE), Informer(world.kube, CONFIG_MAPS, "default") as informer:
        with informer.subscribe() as news, informer.subscribe("never") as nothing:
            first = {told(await news.next())[:2] for _ in range(4)}
            assert first == {("ADDED", name) for name in ("kept", "gone", "replaced", "changed")}
            assert await nothing.next() is None
            for name in ("gone", "replaced"):
                await world.kube.delete(CONFIG_MAPS, "default", name)
            await make(world, "replaced", new="yes")
            await world.kube.patch(CONFIG_MAPS, "default", "changed", {"data": {"a": "1"}})
            gap.set()
            after = [told(await news.next()) for _ in range(4)]
            assert sorted(map(str, after)) == sorted(
                map(
                    str,
                    [
                        ("DELETED", "gone", None),
                        ("DELETED", "replaced", None),
                        ("ADDED", "replaced", {"new": "yes"}),
                        ("MODIFIED", "changed", {"a": "1"}),
                    ],
                )
            )
            assert await nothing.next() is None
            await make(world, "later")
            assert told(await news.next())[:2] == ("ADDED", "later")


async def test_a_slow_reader_gets_the_newest_state_only(world: World) -> None:
    await make(world, "busy")
    async with asyncio.timeout(PATIENCE), Informer(world.kube, CONFIG_MAPS, "default") as informer:
        with informer.subscribe("busy") as slow, informer.subscribe() as quick:
            assert told(await quick.next())[0] == "ADDED"
            for number in range(5):
                await world.kube.patch(CONFIG_MAPS, "default", "busy", {"data": {"n": str(number)}})
            while told(await quick.next())[2] != {"n": "4"}:
                pass
            assert told(await slow.next()) == ("ADDED", "busy", {"n": "4"})
        with informer.subscribe("busy") as late, informer.subscribe("none") as nothing:
            assert told(await late.next()) == ("ADDED", "busy", {"n": "4"})
            assert await nothing.next() is None
