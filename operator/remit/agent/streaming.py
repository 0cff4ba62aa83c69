"""Output on its way from the agent's thread to a reader."""

from __future__ import annotations

import asyncio
import collections
from dataclasses import dataclass

from remit.backends.base import Stream


@dataclass(frozen=True, slots=True)
class Chunk:
    """A piece of output. `missed` bytes before it were dropped, because they were not read in time."""

    stream: Stream
    data: bytes
    missed: int = 0

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


class Buffer:
    """Output between the agent's thread and a reader's loop: the oldest is dropped when the reader is far behind."""

    MOST = 8 * 1024 * 1024

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.ready = asyncio.Event()
        self._loop = loop
        self._chunks: collections.deque[Chunk] = collections.deque()
        self._size = 0
        self._missed = 0

    def put(self, stream: Stream, data: bytes) -> None:
        try:
            self._loop.call_soon_threadsafe(self._add, stream, data)
        except RuntimeError:  # the reader's loop is closed
            return

    def take(self) -> list[Chunk]:
        chunks = list(self._chunks)
        if chunks and self._missed:
            chunks[0] = Chunk(chunks[0].stream, chunks[0].data, self._missed)
        self._chunks.clear()
        self._size = self._missed = 0
        return chunks

    def _add(self, stream: Stream, data: bytes) -> None:
        self._chunks.append(Chunk(stream, data))
        self._size += len(data)
        while self._size > self.MOST:
            dropped = self._chunks.popleft()
            self._size -= len(dropped.data)
            self._missed += len(dropped.data)
        self.ready.set()
