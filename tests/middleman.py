"""A server in between, which lets a request reach the other server and keeps the answer back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

from trickling import trickle


@dataclass
class Middleman:
    """Forwards all that is said to the server at `target`, and what it answers, until somebody says `word`: that
    reaches the server too, but the connection is then lost, or (`silent`) nothing more ever comes, or (`instead`)
    that, and then a byte at a time."""

    target: int
    word: bytes
    silent: bool = False
    instead: bytes = b""
    port: int = 0
    kept_back: int = 0
    """How many answers were."""
    waiting: int = 0
    """How many there are whose answer is kept back."""

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
        """Wait until nobody waits for an answer that is kept back."""
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
    """On a port of 127.0.0.1 that was free, in front of the server at `target`."""
    middleman = Middleman(target, word, silent, instead)
    server = await asyncio.start_server(middleman.carry, "127.0.0.1", 0)
    middleman.port = server.sockets[0].getsockname()[1]
    async with server:
        yield middleman


@dataclass
class Gate:
    """Forwards all that is said, both ways, while it is open. Shut, it keeps connections open and takes new ones, and
    nothing comes through: requests hang. What was said meanwhile comes through when it is opened again."""

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
    """An open one, on a port of 127.0.0.1 that was free, in front of the server at `target`."""
    found = Gate(target)
    found.open.set()
    server = await asyncio.start_server(found.carry, "127.0.0.1", 0)
    found.port = server.sockets[0].getsockname()[1]
    try:
        yield found
    finally:
        server.close()
