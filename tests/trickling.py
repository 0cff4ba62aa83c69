"""Servers whose response never ends: it arrives piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from typing import Any

Begin = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[bytes]]


@dataclass
class Trickling:
    """The server. `begun` counts all connections, `going` those that a client keeps open."""

    port: int = 0
    begun: int = 0
    going: int = 0

    async def left(self) -> None:
        """Waits until no client is connected."""
        while self.going:
            await asyncio.sleep(0.01)


async def trickle(writer: asyncio.StreamWriter, piece: bytes, pace: float) -> None:
    """Sends pieces until the other side disconnects or this is cancelled."""
    while True:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(pace)


@contextlib.asynccontextmanager
async def trickling(begin: Begin, pace: float = 0.02) -> AsyncIterator[Trickling]:
    """Starts a server on a free port of 127.0.0.1. `begin` speaks the protocol's start and returns the piece that is
    then sent repeatedly."""
    server, tasks = Trickling(), set[asyncio.Task[Any]]()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        server.begun += 1
        server.going += 1
        try:
            with contextlib.suppress(OSError, EOFError, asyncio.CancelledError):
                await trickle(writer, await begin(reader, writer), pace)
        finally:
            server.going -= 1
            writer.close()

    listening = await asyncio.start_server(serve, "127.0.0.1", 0)
    server.port = listening.sockets[0].getsockname()[1]
    try:
        yield server
    finally:
        listening.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def answering(start: bytes, piece: bytes = b"1") -> Begin:
    """Returns a `begin` for a web server whose response starts like this."""

    async def begin(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bytes:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(start)
        return piece

    return begin


def chunk(piece: bytes) -> bytes:
    """Returns the piece as a chunk of a chunked body."""
    return b"%x\r\n%s\r\n" % (len(piece), piece)


CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
BODIES = {
    "the first line": answering(b"HTTP/1.1 200 O"),
    "headers": answering(b"HTTP/1.1 200 OK\r\nX-Some: "),
    "body": answering(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"),
    "body without a length": answering(b"HTTP/1.0 200 OK\r\n\r\n"),
    "chunks": answering(CHUNKED, chunk(b"1")),
    "a refusal": answering(b"HTTP/1.1 500 Internal Server Error\r\nContent-Length: 1000000\r\n\r\n"),
}
"""Web servers, by the part of their response that never ends."""
