"""Messages with descriptors over a SOCK_SEQPACKET socket. Standard library only: both sides use it.

(`socket.send_fds` and `recv_fds` of Python 3.11 ignore their flags.)
"""

from __future__ import annotations

import array
import marshal
import socket
from collections.abc import Sequence
from typing import Any

MOST_DESCRIPTORS = 253
"""In one message: SCM_MAX_FD of the kernel."""

_MOST_BYTES = 1 << 17


def send(to: socket.socket, message: Any, descriptors: Sequence[int] = (), flags: int = 0) -> None:
    """`message` is of plain types, and shorter than 128 KiB. Raises OSError."""
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    to.sendmsg([marshal.dumps(message)], rights, flags | socket.MSG_NOSIGNAL)


def receive(source: socket.socket, flags: int = 0) -> tuple[Any, list[int]] | None:
    """The next message and its descriptors, not inherited by programs. None at the end. Raises OSError."""
    received = array.array("i")
    space = socket.CMSG_SPACE(MOST_DESCRIPTORS * received.itemsize)
    message, control, _, _ = source.recvmsg(_MOST_BYTES, space, flags | socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in control:
        if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    # From the other half of this program, over a socket that nobody else holds.
    return (marshal.loads(message), list(received)) if message else None  # noqa: S302
