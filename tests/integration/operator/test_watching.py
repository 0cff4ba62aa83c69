"""Tests what the watches report: every change, and that a list is due, but no object that was there already."""

from __future__ import annotations

import asyncio

from remit.controllers.watching import Watcher
from remit.kube.client import POLICIES, TASKS

from .conftest import PATIENCE, World


async def test_a_watch_lists_no_object_itself(world: World) -> None:
    earlier = await world.task("echo")
    reported: asyncio.Queue[tuple[str, str | None, str]] = asyncio.Queue()
    listed: list[str] = []
    began = asyncio.Event()

    def on_listed(plural: str) -> None:
        listed.append(plural)
        if len(set(listed)) == 2:
            began.set()

    watcher = Watcher(
        world.kube.access,
        (TASKS, POLICIES),
        lambda plural, type_, obj: reported.put_nowait((plural, type_, obj["metadata"]["name"])),
        on_listed,
    )
    watcher.start()
    try:
        async with asyncio.timeout(PATIENCE):
            await began.wait()
            later = await world.task("echo")
            assert await reported.get() == (TASKS.plural, "ADDED", later)
            await world.edit(earlier, {"cancel": True})
            assert await reported.get() == (TASKS.plural, "MODIFIED", earlier)
            await world.kube.delete(TASKS, "default", earlier)
            assert await reported.get() == (TASKS.plural, "DELETED", earlier)
    finally:
        await watcher.stop()
    assert reported.empty()
