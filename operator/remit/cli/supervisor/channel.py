"""How the supervisor and a process that it started speak: a pair of sockets, one JSON object a packet.

The supervisor sends the settings, once, and closes its sending half when the process is to stop. The process sends
`{"starting": true}` again and again until it serves, `{"ready": …}` then, with what others want to know of it,
`{"stopping": true}` again and again while it stops, and `{"failed": "why"}` before it ends.
"""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import orjson

Message = dict[str, Any]

LONGEST_MESSAGE = 128 * 1024
"""Bytes. Settings with some thousand paths fit."""


def pair() -> tuple[socket.socket, socket.socket]:
    """The supervisor's end, and the other one."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(channel: socket.socket, message: Message) -> None:
    """Nothing happens where the other side is gone, or takes nothing any more: that is found out otherwise."""
    with contextlib.suppress(BrokenPipeError, ConnectionResetError, BlockingIOError):
        channel.send(orjson.dumps(message), socket.MSG_NOSIGNAL | socket.MSG_DONTWAIT)


def receive(channel: socket.socket) -> Message | None:
    """The next message; None when there is none any more. Raises BlockingIOError on a socket that does not wait."""
    try:
        packet = channel.recv(LONGEST_MESSAGE)
    except ConnectionResetError:
        return None
    message: Message | None = orjson.loads(packet) if packet else None
    return message
