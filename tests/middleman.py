"""A proxy between client and server that lets a request through and keeps the response back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from trickling import trickle


@dataclass
class Middleman:
    """Forwards all data between a client and the server at `target` until the client sends `word`. That request still
    reaches the server, but then the connection is lost, or (`silent`) no more data arrives, or (`instead`) that text
    arrives and then a byte at a time."""

    target: int
    word: bytes
    silent: bool = False
    instead: bytes = b""
    port: int = 0
    kept_back: int = 0
    """Number of responses that were kept back so far."""
    waiting: int = 0
    """Number of clients that wait for such a response now."""

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, onward = await asyncio.open_connection("127.0.0.1", self.target)
        said = asyncio.Event()
        back = asyncio.create_task(self._back(there, writer, said))
        try:
            with contextlib.suppress(ConnectionError):
                while data := await reader.read(1 << 16):
                    if self.word in data and not said.is_set():
                        said.set()
                        self.waiting += 1
                    onward.write(data)
                    await onward.drain()
        finally:
            self.waiting -= said.is_set()
            back.cancel()
            onward.close()
            writer.close()

    async def left(self) -> None:
        """Waits until no client waits for a response that is kept back."""
        while self.waiting:
            await asyncio.sleep(0.01)

    async def _back(self, there: asyncio.StreamReader, writer: asyncio.StreamWriter, said: asyncio.Event) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await there.read(1 << 16):
                if not said.is_set():
                    writer.write(data)
                    continue
                self.kept_back += 1
                if self.instead:
                    writer.write(self.instead)
                    await trickle(writer, b"1", 0.02)
                if not self.silent:
                    writer.transport.abort()
                    return
            if not said.is_set():
                writer.close()


@contextlib.asynccontextmanager
async def keeping_back(
    target: int, word: bytes, *, silent: bool = False, instead: bytes = b""
) -> AsyncIterator[Middleman]:
    """Starts the proxy in front of the server at `target`, on a free port of 127.0.0.1."""
    middleman = Middleman(target, word, silent, instead)
    server = await asyncio.start_server(middleman.carry, "127.0.0.1", 0)
    middleman.port = server.sockets[0].getsockname()[1]
    async with server:
        yield middleman


@dataclass
class Gate:
    """Forwards data in both directions while it is open. While it is shut, connections stay open and new ones are
    accepted, but no data passes, so requests hang. Data from that time passes when it is opened again."""

    target: int
    port: int = 0
    open: asyncio.Event = field(default_factory=asyncio.Event)

    async def carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            await self.open.wait()
            there, onward = await asyncio.open_connection("127.0.0.1", self.target)
            try:
                await asyncio.gather(self._forward(reader, onward), self._forward(there, writer))
            finally:
                onward.close()
                writer.close()

    async def _forward(self, source: asyncio.StreamReader, to: asyncio.StreamWriter) -> None:
        while data := await source.read(1 << 16):
            await self.open.wait()
            to.write(data)
            await to.drain()
        to.close()


@contextlib.asynccontextmanager
async def gate(target: int) -> AsyncIterator[Gate]:
    """Starts an open gate in front of the server at `target`, on a free port of 127.0.0.1."""
    found = Gate(target)
    found.open.set()
    server = await asyncio.start_server(found.carry, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
