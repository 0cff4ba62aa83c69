"""Content that travels as a descriptor."""

from __future__ import annotations

import fcntl
import functools
import os

_ALL_SEALS = fcntl.F_SEAL_SEAL | fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_WRITE


def sealed_memory(content: bytes) -> int:
    """A descriptor that reads as `content`: never on a disk, never in argv, and not even its reader can change it."""
    descriptor = os.memfd_create("remit", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    try:
        view = memoryview(content)
        while view:
            view = view[os.write(descriptor, view) :]
        os.lseek(descriptor, 0, os.SEEK_SET)
        fcntl.fcntl(descriptor, fcntl.F_ADD_SEALS, _ALL_SEALS)
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def shared_memory(content: bytes) -> int:
    """The same, for content that many are given: it is stored once, and for as long as this process lives."""
    return os.open(f"/proc/self/fd/{_stored(content)}", os.O_RDONLY | os.O_CLOEXEC)


@functools.cache
def _stored(content: bytes) -> int:
    return sealed_memory(content)
