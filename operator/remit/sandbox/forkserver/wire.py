"""Messages with descriptors over a SOCK_SEQPACKET socket. Standard library only: both sides use it.

(`socket.send_fds` and `recv_fds` of Python 3.11 ignore their flags.)
"""

from __future__ import annotations

import array
import marshal
import select
import socket

TYPE_CHECKING = False  # importing typing or dataclasses would take half a megabyte, which each fork copies
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

DEADLINE = "=d"
"""How a deadline is packed on the control socket: seconds of CLOCK_BOOTTIME."""
STOP_SECONDS = 1.0
"""How long programs may take to end by themselves once the operator is gone or its deadline has passed."""
EXIT_SECONDS = 0.5
"""How long the operator may take to end by itself after its deadline."""
DEATH_SECONDS = 10.0
"""How long everything may take to die after that: more than a busy disk needs."""
KILL_GRACE_SECONDS = STOP_SECONDS + EXIT_SECONDS + DEATH_SECONDS
"""How long after a deadline the fork server works at the end of all that it started."""
_MOST_DESCRIPTORS = 253  # maximum in one message: SCM_MAX_FD of the kernel
_MOST_BYTES = 1 << 16
_MORE: Any = None
"""The message of descriptors that belong to the next."""


def send(to: socket.socket, message: Any, descriptors: Sequence[int] = (), flags: int = 0) -> None:
    """`message` is of plain types, and shorter than 64 KiB. Raises OSError."""
    while len(descriptors) > _MOST_DESCRIPTORS:
        send(to, _MORE, descriptors[:_MOST_DESCRIPTORS], flags)
        descriptors = descriptors[_MOST_DESCRIPTORS:]
    rights = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", descriptors))] if descriptors else []
    to.sendmsg([marshal.dumps(message)], rights, flags | socket.MSG_NOSIGNAL)


def receive(source: socket.socket, flags: int = 0) -> tuple[Any, list[int]] | None:
    """The next message and its descriptors, not inherited by programs. None at the end. Raises OSError."""
    received = array.array("i")
    while True:
        space = socket.CMSG_SPACE(_MOST_DESCRIPTORS * received.itemsize)
        data, control, _, _ = source.recvmsg(_MOST_BYTES, space, flags | socket.MSG_CMSG_CLOEXEC)
        for level, kind, content in control:
            if (level, kind) == (socket.SOL_SOCKET, socket.SCM_RIGHTS):
                received.frombytes(content[: len(content) - len(content) % received.itemsize])
        if not data:
            return None
        # The data comes from the other half of this program, over a socket that no other process has.
        if (message := marshal.loads(data)) is not _MORE:  # noqa: S302
            return message, list(received)


def readable(source: socket.socket | int, seconds: float) -> bool:
    """Whether there is something to read, or an end, within this time."""
    poller = select.poll()
    poller.register(source, select.POLLIN)
    return bool(poller.poll(seconds * 1000))
