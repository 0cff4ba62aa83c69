"""Connection pools, one for each connection Secret: few, bounded, and closed when the Secret says something else."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import structlog

from remit.errors import RemitError
from remit.operations.base import OVERDUE
from remit.operations.database.connection import DatabaseServer

MOST_POOLS = 16
MOST_CONNECTIONS = 4
"""Limit of one pool."""
IDLE_SECONDS = 300.0
CLOSE_SECONDS = 20.0
"""How long a pool may take to close its connections in order. A server that does not answer prevents it."""

log = structlog.get_logger(__name__)
P = TypeVar("P")


@dataclass(slots=True)
class _Pool(Generic[P]):
    pool: P
    digest: bytes
    slots: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(MOST_CONNECTIONS))
    users: int = 0
    """Users of the pool, with those that wait for a connection."""
    used_at: float = 0.0
    retired: bool = False


@dataclass
class Pools(Generic[P]):
    """Pools by namespace and Secret. `make` opens one, `close_one` closes it; the URL is not kept here.

    Pools are closed on the side, so that nobody waits for the server of another.
    """

    make: Callable[[DatabaseServer], Awaitable[P]]
    close_one: Callable[[P], Coroutine[Any, Any, None]]
    _pools: dict[str, _Pool[P]] = field(default_factory=dict)
    _closing: set[asyncio.Task[None]] = field(default_factory=set)
    _lock: asyncio.Lock = field(default_factory=asyncio.Lock)

    @contextlib.asynccontextmanager
    async def lease(self, target: DatabaseServer) -> AsyncIterator[P]:
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
                self._close(held)

    async def _take(self, target: DatabaseServer) -> _Pool[P]:
        name, digest = target.name, target.digest
        async with self._lock:
            held = self._pools.get(name)
            if held is not None and held.digest != digest:  # a Secret was changed
                self._retire(name)
                held = None
            if held is None:
                self._make_room()
                held = self._pools[name] = _Pool(await self.make(target), digest)
            held.users += 1
            return held

    def _make_room(self) -> None:
        now = time.monotonic()
        idle = sorted((held.used_at, name) for name, held in self._pools.items() if not held.users)
        for used_at, name in idle:
            if now - used_at > IDLE_SECONDS or len(self._pools) >= MOST_POOLS:
                self._retire(name)

    def _retire(self, name: str) -> None:
        """Out of the list; closed once nobody uses it."""
        held = self._pools.pop(name)
        held.retired = True
        if not held.users:
            self._close(held)

    def _close(self, held: _Pool[P]) -> None:
        closing = asyncio.create_task(self._close_in_time(held.pool))
        self._closing.add(closing)
        closing.add_done_callback(self._closing.discard)

    async def _close_in_time(self, pool: P) -> None:
        try:
            async with asyncio.timeout(CLOSE_SECONDS):
                await self.close_one(pool)
        except Exception as error:  # its result is not awaited; its sockets are closed when it is garbage-collected
            log.warning("connections to a database were not closed in order", reason=type(error).__name__)

    async def close(self) -> None:
        """Close all that nobody uses, and wait for them, but not for a server that does not answer."""
        for name in list(self._pools):
            self._retire(name)
        await asyncio.gather(*self._closing)


async def _acquire(slots: asyncio.Semaphore) -> None:
    try:
        await slots.acquire()
    except asyncio.CancelledError as cancelled:
        if OVERDUE not in cancelled.args:
            raise
        message = f"all {MOST_CONNECTIONS} connections for this Secret were in use by other tasks"
        raise RemitError(message) from None
