"""The addresses at which the page listens."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Sequence
from typing import Final

from remit.controlplane.startup import AddressInUse, open_sockets

USUAL_PORT: Final = 6480
_TRIES: Final = 20


def page_sockets(host: str, port: int | None) -> list[socket.socket]:
    """At `port`. None: the usual one, or another that is free, and no socket where none is. Raises `RemitError` where
    the port that was named cannot be had."""
    if port is not None:
        return open_sockets(host, port)
    for candidate in (*range(USUAL_PORT, USUAL_PORT + _TRIES), 0):
        with contextlib.suppress(AddressInUse):
            return open_sockets(host, candidate)
    return []


def page_url(sockets: Sequence[socket.socket]) -> str:
    """Such as `http://127.0.0.1:6480`; empty without a socket."""
    if not sockets:
        return ""
    host, port = sockets[0].getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
