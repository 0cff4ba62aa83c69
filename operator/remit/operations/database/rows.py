"""Connections to PostgreSQL that stop reading a row which is too large.

libpq takes whatever comes and holds a row whole before anybody sees it, and copies of it are made on the way to JSON:
one word of a statement could otherwise have the operator hold gigabytes. So what comes goes through a pair of sockets
that is put in the place of the connection's own, and is carried on only as far as a row may reach. What is carried is
not looked at: it may be encrypted.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Generator
from typing import Any, Final

import psycopg

from remit.backends.failure import OperationFailed

MOST_BYTES: Final = 8 << 20
"""Limit of one row."""
_PIECE: Final = 1 << 16
_AHEAD: Final = 1 << 20
"""More than may be between the sockets when a row is whole: the beginnings of the next ones."""
_LAST_SECONDS: Final = 1.0
"""How long a server may take to read the last message."""


class _Relay:
    """Carries bytes between the server and libpq, in both directions."""

    def __init__(self, connection: psycopg.AsyncConnection[Any]) -> None:
        self.exceeded = False
        self._waiting = False
        self._left = 0
        self._more = asyncio.Event()
        ours, theirs = socket.socketpair()
        with theirs:
            self._server = socket.socket(fileno=os.dup(connection.pgconn.socket))
            os.dup2(theirs.fileno(), connection.pgconn.socket, inheritable=False)
        self._client = ours
        for end in (self._server, self._client):
            end.setblocking(False)
        os.set_blocking(connection.pgconn.socket, False)
        self.carrying = asyncio.create_task(self._carry(), name="postgres relay")

    def begin(self) -> None:
        """libpq waits for a row, or for what else is the answer."""
        self._waiting, self._left = True, MOST_BYTES + _AHEAD
        self._more.set()

    def end(self) -> None:
        self._waiting = False

    async def close(self) -> None:
        """After libpq has closed its end. What it said last is carried on, unless the server does not take it."""
        await asyncio.wait({self.carrying}, timeout=_LAST_SECONDS)
        self.carrying.cancel()
        await asyncio.wait({self.carrying})

    async def _carry(self) -> None:
        """Copy rows until either end is closed."""
        there, back = asyncio.create_task(self._forth()), asyncio.create_task(self._back())
        try:
            await asyncio.wait({there, back}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (there, back):
                task.cancel()
            await asyncio.gather(there, back, return_exceptions=True)
            self._server.close()
            self._client.close()

    async def _forth(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._client, _PIECE):
                await loop.sock_sendall(self._server, data)

    async def _back(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(OSError):
            while data := await loop.sock_recv(self._server, _PIECE):
                while self._left < len(data):
                    if self._waiting:
                        self.exceeded = True
                        return
                    self._more.clear()
                    await self._more.wait()
                self._left -= len(data)
                await loop.sock_sendall(self._client, data)


class MeteredConnection(psycopg.AsyncConnection[Any]):
    """Lost, and what it was about undone, where a row is larger than may be. Not before it is `metered`."""

    _relay: _Relay | None = None

    def metered(self) -> None:
        """Call it while nothing goes on."""
        self._relay = self._relay or _Relay(self)

    async def wait(self, gen: Any, *arguments: Any, **options: Any) -> Any:
        """See `psycopg.AsyncConnection`."""
        return await super().wait(_within(self._relay, gen) if self._relay else gen, *arguments, **options)

    async def close(self) -> None:
        """See `psycopg.AsyncConnection`."""
        await super().close()
        if self._relay is not None:
            await self._relay.close()


def _within(relay: _Relay, answer: Generator[Any, Any, Any]) -> Generator[Any, Any, Any]:
    """Asks for no more than what has to come: most rows are in libpq's hands already."""
    try:
        wanted = next(answer)
        relay.begin()
        while True:
            wanted = answer.send((yield wanted))
    except StopIteration as end:
        return end.value
    except psycopg.OperationalError:
        if relay.exceeded:
            raise _too_large() from None
        raise
    finally:
        relay.end()


def _too_large() -> OperationFailed:
    message = (
        f"a row is larger than {MOST_BYTES >> 20} MiB, which is the most that is read; nothing was committed; ask for"
        " less of it, such as with left(), or for its parts one by one"
    )
    return OperationFailed("RowTooLarge", message, retryable=False)
