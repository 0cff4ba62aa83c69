"""Connection pools, one for each connection Secret: few, bounded, and closed when the Secret says something else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from typing import Generic, TypeVar

from remit.errors import RemitError
from remit.operations.base import OVERDUE
from remit.operations.database.connection import Target

MOST_POOLS = 16
MOST_CONNECTIONS = 4
"""Of one pool."""
IDLE_SECONDS = 300.0

P = TypeVar("P")


@dataclass(slots=True)
class _Pool(Generic[P]):
    pool: P
    digest: bytes
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_CONNECTIONS))
    users: int = 0
    """With those that wait for a slot."""
    used_at: float = 0.0
    retired: bool = False


@dataclass
class Pools(Generic[P]):
    """Pools by namespace and Secret. `make` opens one, `close_one` closes it; the URL is not kept here."""

    make: Callable[[Target], Awaitable[P]]
    close_one: Callable[[P], Awaitable[None]]
    _pools: dict[str, _Pool[P]] = field(default_factory=dict)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def lease(self, target: Target) -> AsyncIterator[P]:
        """The pool of `target`, with a connection to spare, for as long as the block lasts.

        Waits for its turn, in the order of the calls and without a limit of its own: that a pool is in use says nothing
        of its server.
        """
        held = await self._take(target)
        try:
            await _acquire(held.slots)
            try:
                yield held.pool
            finally:
                held.slots.release()
        finally:
            held.users -= 1
            held.used_at = time.monotonic()
            if held.retired and not held.users:
                await self.close_one(held.pool)

    async def _take(self, target: Target) -> _Pool[P]:
        name, digest = target.name, target.digest
        async with self._lock:
            held = self._pools.get(name)
            if held is not None and held.digest != digest:  # a Secret was changed
                await self._retire(name)
                held = None
            if held is None:
                await self._make_room()
                held = self._pools[name] = _Pool(await self.make(target), digest)
            held.users += 1
            return held

    async def _make_room(self) -> None:
        now = time.monotonic()
        idle = sorted((held.used_at, name) for name, held in self._pools.items() if not held.users)
        for used_at, name in idle:
            if now - used_at > IDLE_SECONDS or len(self._pools) >= MOST_POOLS:
                await self._retire(name)

    async def _retire(self, name: str) -> None:
        """Out of the list; closed once nobody uses it."""
        held = self._pools.pop(name)
        held.retired = True
        if not held.users:
            await self.close_one(held.pool)

    async def close(self) -> None:
        for name in list(self._pools):
            await self._retire(name)


async def _acquire(slots: asyncio.Semaphore) -> None:
    try:
        await slots.acquire()
    except asyncio.CancelledError as cancelled:
        if OVERDUE not in cancelled.args:
            raise
        message = f"all {MOST_CONNECTIONS} connections for this Secret were in use by other tasks"
        raise RemitError(message) from None
