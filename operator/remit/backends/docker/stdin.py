"""The standard input of a container."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncGenerator, Callable
from functools import partial
from typing import Any

from remit.backends.docker.engine import Engine
from remit.backends.stdinfeed import Feed


class FileInput:
    """The file that a container reads on its standard input: `failed` is done when no more of it can be given."""

    def __init__(self, feed: Feed, on_complete: Callable[[], None]) -> None:
        """`on_complete` is called on this event loop, once all is with the engine."""
        self._feed, self._on_complete = feed, on_complete
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._cut = self._over = False
        self.check = feed.check

    @property
    def complete(self) -> bool:
        """Whether the engine has all of it."""
        return self._feed.complete and not self._cut

    @contextlib.asynccontextmanager
    async def sent(self, engine: Engine, id_: str) -> AsyncGenerator[None, None]:
        """Sends it to the container, once it reads; then closes it. In the end the connection is closed: its thread
        ends, unless the host does not answer a read."""
        attached = await engine.call(lambda client: client.attach_socket(id_, params={"stdin": 1, "stream": 1}))
        connection: socket.socket = getattr(attached, "_sock", attached)
        self._feed.start(partial(self._send, attached, connection))
        try:
            yield
        finally:
            self._over = True
            with contextlib.suppress(OSError):  # it is closed already
                connection.shutdown(socket.SHUT_RDWR)

    def _send(self, attached: Any, connection: socket.socket) -> None:
        def write(piece: bytes) -> bool:
            try:
                connection.sendall(piece)
            except OSError:  # the container or the engine has ended
                self._cut = True
                return False
            return True

        connection.settimeout(None)  # the program may read as slowly as it likes
        self._feed.copy(write)
        with contextlib.suppress(RuntimeError):  # the loop was closed
            self._loop.call_soon_threadsafe(self._copied)
        with contextlib.suppress(OSError):
            if self.complete:
                connection.shutdown(socket.SHUT_WR)
            # Wait until the engine closes the connection; after a failed feed this also keeps the program from seeing
            # an end.
            connection.recv(1)
        attached.close()
        connection.close()

    def _copied(self) -> None:
        if self._over:
            return
        if self.complete:
            self._on_complete()
        elif self._feed.failure and not self.failed.done():
            self.failed.set_result(None)


@contextlib.asynccontextmanager
async def fed(engine: Engine, id_: str, content: bytes) -> AsyncGenerator[None, None]:
    """Sends `content`, if there is any, to the container's standard input, once it reads; then closes it.

    In the end the connection is closed and its thread is gone: an engine keeps both of a container that never started.
    """
    if not content:
        yield
        return
    attached = await engine.call(lambda client: client.attach_socket(id_, params={"stdin": 1, "stream": 1}))
    connection: socket.socket = getattr(attached, "_sock", attached)
    sending = threading.Thread(target=_send, args=(attached, connection, content), name="docker stdin", daemon=True)
    sending.start()
    try:
        yield
    finally:
        with contextlib.suppress(OSError):  # the connection is closed already
            connection.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(sending.join)


def _send(attached: Any, connection: socket.socket, content: bytes) -> None:
    with contextlib.suppress(OSError):  # the program ended without reading all of its input
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        connection.settimeout(None)
        connection.recv(1)  # wait until the engine closes the connection
    attached.close()
    connection.close()
