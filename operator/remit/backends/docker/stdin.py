"""What a container reads on its standard input."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import AsyncGenerator
from typing import Any

from remit.backends.docker.engine import Engine


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
        with contextlib.suppress(OSError):  # it is closed already
            connection.shutdown(socket.SHUT_RDWR)
        await asyncio.to_thread(sending.join)


def _send(attached: Any, connection: socket.socket, content: bytes) -> None:
    with contextlib.suppress(OSError):  # it ended without reading everything
        connection.sendall(content)
        connection.shutdown(socket.SHUT_WR)
    with contextlib.suppress(OSError):
        connection.settimeout(None)
        connection.recv(1)  # until the engine is done with it
    attached.close()
    connection.close()
