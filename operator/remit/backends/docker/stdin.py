"""What a container reads on its standard input."""

from __future__ import annotations

import contextlib
import socket
import threading
from typing import Any


def feed(client: Any, id_: str, content: bytes) -> None:
    """Send `content` to the container's standard input, once it reads; then close it."""
    attached = client.attach_socket(id_, params={"stdin": 1, "stream": 1})
    connection: socket.socket = getattr(attached, "_sock", attached)

    def send() -> None:
        with contextlib.suppress(OSError):  # it ended without reading everything
            connection.sendall(content)
            connection.shutdown(socket.SHUT_WR)
        with contextlib.suppress(OSError):
            connection.settimeout(None)
            connection.recv(1)  # until the engine is done with it
        attached.close()
        connection.close()

    threading.Thread(target=send, name="docker stdin", daemon=True).start()
