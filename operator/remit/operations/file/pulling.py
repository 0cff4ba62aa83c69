"""Content that arrives on the event loop, for the thread that writes it."""

from __future__ import annotations

import asyncio
import concurrent.futures
import contextlib
import threading
from collections.abc import AsyncIterator, Iterator

from remit.operations.file.errors import Stopped


class Pulled:
    """Iterates in a thread over pieces that come on `loop`, one at a time: there is never more than one in memory.

    `stop` ends it, wherever it waits.
    """

    def __init__(self, pieces: AsyncIterator[bytes], loop: asyncio.AbstractEventLoop) -> None:
        self._pieces = pieces
        self._loop = loop
        self._lock = threading.Lock()
        self._waiting: concurrent.futures.Future[bytes | None] | None = None
        self._stopped = False

    def __iter__(self) -> Iterator[bytes]:
        while (piece := self._wait()) is not None:
            yield piece

    def stop(self) -> None:
        """Stop it, from the event loop or any thread."""
        with self._lock:
            self._stopped = True
            if self._waiting is not None:
                self._waiting.cancel()

    async def close(self) -> None:
        """Let go of the connection. Nobody may be iterating any more."""
        close = getattr(self._pieces, "aclose", None)
        if close is not None:
            with contextlib.suppress(RuntimeError):  # the iterator is still yielding its last piece
                await close()

    def _wait(self) -> bytes | None:
        with self._lock:
            if self._stopped:
                raise Stopped
            self._waiting = asyncio.run_coroutine_threadsafe(self._next(), self._loop)
        try:
            return self._waiting.result()
        except concurrent.futures.CancelledError:
            raise Stopped from None

    async def _next(self) -> bytes | None:
        return await anext(self._pieces, None)
