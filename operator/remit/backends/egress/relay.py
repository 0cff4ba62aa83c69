"""Moves bytes between a client and a destination: as they are, or one HTTP request and its response."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import h11

from remit.backends.egress.dialing import EgressRefused, Upstream
from remit.backends.egress.targets import backward

_CHUNK: Final = 65536


@dataclass(frozen=True, slots=True)
class Downstream:
    """The client's side. `alive` is called whenever something moves."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    alive: Callable[[], None]

    async def read(self) -> bytes:
        data = await self.reader.read(_CHUNK)
        self.alive()
        return data

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()
        self.alive()


async def tunnel(client: Downstream, upstream: Upstream, first: bytes) -> None:
    """Both directions until both have ended; `first` is what the client sent already."""

    async def up() -> None:
        data = first
        while data or (data := await client.read()):
            await upstream.write(data)
            data = b""
        _end(upstream.writer)

    async def down() -> None:
        while data := await upstream.read():
            await client.write(data)
        _end(client.writer)

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(up())
            group.create_task(down())
    except* ConnectionError:
        pass  # one side closed the connection, which ends the tunnel


async def exchange(client: Downstream, upstream: Upstream, server: h11.Connection, request: h11.Request) -> None:
    """Send `request` on with the body that follows on `server`, and bring the response back. Nothing else goes over.

    Raises:
        Refused: what came back is not HTTP, and the client has had no answer yet.
    """
    origin = h11.Connection(h11.CLIENT)

    async def up() -> None:
        try:
            if server.they_are_waiting_for_100_continue:
                go_on = h11.InformationalResponse(status_code=100, headers=[], reason=b"Continue")
                await client.write(_bytes(server.send(go_on)))
            await upstream.write(_bytes(origin.send(request)))
            while not isinstance(event := server.next_event(), h11.EndOfMessage):
                if event is h11.NEED_DATA:
                    server.receive_data(await client.read())
                elif isinstance(event, h11.Data):
                    await upstream.write(_bytes(origin.send(h11.Data(data=event.data))))
            await upstream.write(_bytes(origin.send(h11.EndOfMessage())))
        except BaseException:
            upstream.close()  # the server must not take half a request for a complete one
            raise

    async def down() -> None:
        while not isinstance(event := origin.next_event(), h11.EndOfMessage):
            if event is h11.NEED_DATA:
                origin.receive_data(await upstream.read())
            elif isinstance(event, h11.Response):
                await client.write(_bytes(server.send(backward(event))))
            elif isinstance(event, h11.Data):
                await client.write(_bytes(server.send(h11.Data(data=event.data))))
        await client.write(_bytes(server.send(h11.EndOfMessage())))

    uploading = asyncio.create_task(up())
    try:
        await down()
    except h11.RemoteProtocolError as error:
        if server.our_state is h11.SEND_RESPONSE:
            raise EgressRefused(502, f"the host's answer is not HTTP: {error}") from None
    finally:
        uploading.cancel()
        with contextlib.suppress(asyncio.CancelledError, ConnectionError, h11.ProtocolError):
            await uploading


def _end(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # the connection is closed already
        writer.write_eof()


def _bytes(sent: bytes | None) -> bytes:
    return sent or b""
