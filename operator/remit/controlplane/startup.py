"""Takes what a control plane needs before it serves: its state directory, its sockets, its descriptors.

A supervisor takes them in its place and hands them to one control plane after the other, so that the directory and the
port stay its own while none runs.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import fcntl
import os
import resource
import socket
from pathlib import Path

from remit.errors import InvalidInput
from remit.privatefiles import open_private

DATABASE = "state.db"
MOST_DESCRIPTORS = 65_536
BACKLOG = 512
_M_MMAP_THRESHOLD = -3
_MAPPED_BYTES = 512 * 1024
"""More than the 256 KiB that asyncio allocates for each read from a TLS connection: a mapping for each is slow."""


def lock_state(database: Path) -> int:
    """The lock of the state directory, as a descriptor that holds it. Raises `InvalidInput` when another has it."""
    descriptor = open_private(database.with_suffix(".lock"))
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        raise InvalidInput(
            f"{database} is in use by another control plane; stop it, or choose another state directory"
        ) from None
    return descriptor


class AddressInUse(InvalidInput):
    """Somebody else listens there."""


def open_sockets(host: str, port: int) -> list[socket.socket]:
    """Listen at every address of `host`, on the same port of each; 0 picks one. Raises `InvalidInput`, `AddressInUse`
    where another port might do."""
    sockets: list[socket.socket] = []
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        for family, _, _, _, address in dict.fromkeys(found):
            at = (address[0], sockets[0].getsockname()[1] if sockets else port)
            sockets.append(socket.create_server(at, family=family, backlog=BACKLOG))
    except OSError as error:
        for opened in sockets:
            opened.close()
        why = str(error.strerror).partition(" (while ")[0]  # the message already contains the address
        kind = AddressInUse if error.errno == errno.EADDRINUSE else InvalidInput
        raise kind(f"cannot serve on {host}:{port}: {why}; choose another host or port") from None
    return sockets


def return_freed_memory() -> None:
    """Have glibc give the memory of large objects back when they are freed. For a process of the control plane's own.

    Otherwise it keeps more and more: the size from which objects get a mapping of their own grows with what is freed.
    """
    with contextlib.suppress(AttributeError):  # a libc other than glibc does not have the function
        ctypes.CDLL(None).mallopt(_M_MMAP_THRESHOLD, _MAPPED_BYTES)


def raise_descriptor_limit() -> int:
    """Raise the soft limit on open files towards the hard one, and give what it is then.

    Programs that Remit starts get limits of their own.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = MOST_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(hard, MOST_DESCRIPTORS)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
        soft = wanted
    return MOST_DESCRIPTORS if soft == resource.RLIM_INFINITY else soft
