"""An event loop with virtual time: when everything waits, the clock jumps to the next timer."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any


class _Selector(selectors.SelectSelector):
    now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "everything waits for something that no timer brings"
        self.now += max(timeout, 0.0)
        return super().select(0)


class VirtualTimeLoop(asyncio.SelectorEventLoop):
    """The event loop. `time()` begins at 0. Only for code that waits for timers, not for threads, processes or
    sockets."""

    def __init__(self) -> None:
        self._virtual = _Selector()
        super().__init__(self._virtual)

    def time(self) -> float:
        return self._virtual.now

    def settle(self) -> None:
        """Runs everything that can run without advancing the time."""
        self.run_until_complete(self._turn(30))

    async def _turn(self, times: int) -> None:
        for _ in range(times):
            await asyncio.sleep(0)

    def advance(self, seconds: float) -> None:
        """Advances the time by `seconds`, and runs what is due meanwhile."""
        self.run_until_complete(asyncio.sleep(seconds))


@contextmanager
def virtual_time() -> Iterator[VirtualTimeLoop]:
    loop = VirtualTimeLoop()
    asyncio.set_event_loop(loop)
    try:
        yield loop
    finally:
        asyncio.set_event_loop(None)
        loop.close()
