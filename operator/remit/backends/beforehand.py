"""Does what has to be done before an attempt can start, within its time."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def in_time(work: Coroutine[Any, Any, T], cancel: asyncio.Event, seconds: float) -> T | None:
    """Return the result of `work`, unless `cancel` is set or `seconds` are over before: then None, and `work` is
    cancelled. Raises what it raises."""
    doing, cancelled = asyncio.ensure_future(work), asyncio.ensure_future(cancel.wait())
    try:
        ends: set[asyncio.Future[Any]] = {doing, cancelled}
        await asyncio.wait(ends, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        return doing.result() if doing.done() else None
    finally:
        for task in (doing, cancelled):
            task.cancel()
        await asyncio.gather(doing, cancelled, return_exceptions=True)
