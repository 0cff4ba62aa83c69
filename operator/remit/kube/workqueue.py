"""A work queue as controllers know it: deduplicating, delaying, with backoff for what fails.

A key is worked on by one worker at a time; a key added while it is being worked on is worked on once more.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

log = structlog.get_logger(__name__)

FIRST_RETRY, LONGEST_RETRY = 0.05, 60.0
"""Seconds between tries of a key whose reconciliation fails."""


@dataclass
class WorkQueue:
    """Calls `reconcile(key)` for every key added. What it returns is seconds until the key wants to be seen again."""

    reconcile: Callable[[str], Awaitable[float | None]]
    workers: int = 16
    on_error: Callable[[str, Exception], None] | None = None
    _ready: deque[str] = field(default_factory=deque)
    _queued: set[str] = field(default_factory=set)
    _busy: set[str] = field(default_factory=set)
    _again: set[str] = field(default_factory=set)
    _failures: dict[str, int] = field(default_factory=dict)
    _delayed: list[tuple[float, int, str]] = field(default_factory=list)
    _due: dict[str, float] = field(default_factory=dict)
    _order: itertools.count[int] = field(default_factory=itertools.count)
    _wake: asyncio.Event = field(default_factory=asyncio.Event)
    _timer: asyncio.Event = field(default_factory=asyncio.Event)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)

    def __len__(self) -> int:
        return len(self._ready)

    def add(self, key: str) -> None:
        """Work on `key` soon. Call it on the event loop."""
        self._due.pop(key, None)
        if key in self._busy:
            self._again.add(key)
        elif key not in self._queued:
            self._queued.add(key)
            self._ready.append(key)
            self._wake.set()

    def add_after(self, key: str, seconds: float) -> None:
        """Work on `key` in a while; sooner if it is added sooner."""
        due = asyncio.get_running_loop().time() + max(0.0, seconds)
        if due >= self._due.get(key, float("inf")):
            return
        self._due[key] = due
        heapq.heappush(self._delayed, (due, next(self._order), key))
        self._timer.set()

    async def drain(self) -> None:
        """Wait until there is nothing that could be done at once."""
        while self._ready or self._busy:
            self._idle.clear()
            await self._idle.wait()

    async def run(self) -> None:
        """Work until cancelled."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._tick())
            for _ in range(self.workers):
                group.create_task(self._work())

    async def _tick(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            while self._delayed and self._delayed[0][0] <= loop.time():
                due, _, key = heapq.heappop(self._delayed)
                if self._due.get(key) == due:
                    self.add(key)
            self._timer.clear()
            wait = self._delayed[0][0] - loop.time() if self._delayed else None
            try:
                async with asyncio.timeout(wait):
                    await self._timer.wait()
            except TimeoutError:
                pass

    async def _work(self) -> None:
        while True:
            while not self._ready:
                self._wake.clear()
                await self._wake.wait()
            key = self._ready.popleft()
            self._queued.discard(key)
            self._busy.add(key)
            try:
                await self._handle(key)
            finally:
                self._busy.discard(key)
                if key in self._again:
                    self._again.discard(key)
                    self.add(key)
                if not self._ready and not self._busy:
                    self._idle.set()

    async def _handle(self, key: str) -> None:
        try:
            after = await self._reconciled(key)
        except Exception as error:
            failures = self._failures[key] = self._failures.get(key, 0) + 1
            if self.on_error is not None:
                self.on_error(key, error)
            self.add_after(key, min(FIRST_RETRY * 2 ** min(failures - 1, 16), LONGEST_RETRY))
            return
        self._failures.pop(key, None)
        if after is not None:
            self.add_after(key, after)

    async def _reconciled(self, key: str) -> float | None:
        try:
            return await self.reconcile(key)
        except asyncio.CancelledError:
            worker = asyncio.current_task()
            if worker is None or worker.cancelling():
                raise
            # Not this worker was cancelled, but something that the key waited for: the worker must not end of that.
            raise RuntimeError("what it waited for was cancelled") from None
