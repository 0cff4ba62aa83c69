"""Tests the locks of proxies: one for each Deployment, for as long as it is needed."""

from __future__ import annotations

import asyncio
import gc
from pathlib import Path

from remit.release.traffic.traffic import Traffic


async def test_a_lock_is_shared_and_then_forgotten(tmp_path: Path) -> None:
    traffic = Traffic(tmp_path)
    inside: list[str] = []

    async def use(name: str) -> None:
        async with traffic._lock("a/b"):
            inside.append(name)
            await asyncio.sleep(0)
            assert inside == [name]
            inside.remove(name)

    await asyncio.gather(*(use(name) for name in "xyz"))
    gc.collect()
    assert not traffic._locks
