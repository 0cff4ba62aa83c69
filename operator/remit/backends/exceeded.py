"""Which limit stopped a program that failed. Pure.

The kernel counts refusals of memory and of processes. Of open files, of a full disk and of files that grew too large it
tells the program alone; so a program that failed is believed when its standard error says so in the system's words.
"""

from __future__ import annotations

import errno
import os
import signal
from collections.abc import Mapping
from enum import StrEnum

from remit.sandbox import Limits


class Exceeded(StrEnum):
    """A limit that was met. The values are API: they appear in `status.attempts[].exceeded`."""

    MEMORY = "Memory"
    PIDS = "Pids"
    TIME = "Time"
    OUTPUT = "Output"
    OPEN_FILES = "OpenFiles"
    FILE_SIZE = "FileSize"
    DISK = "Disk"


def _words(*numbers: int) -> tuple[bytes, ...]:
    return tuple(os.strerror(number).encode() for number in numbers)


_SAID: Mapping[Exceeded, tuple[bytes, ...]] = {
    Exceeded.DISK: _words(errno.ENOSPC, errno.EDQUOT),
    Exceeded.FILE_SIZE: _words(errno.EFBIG),
    Exceeded.OPEN_FILES: _words(errno.EMFILE),
    Exceeded.PIDS: (*_words(errno.EAGAIN), b"can't start new thread"),
}
_XFSZ = 128 + signal.SIGXFSZ


def exceeded(
    *, exit_code: int | None, oom_kills: int, refused_tasks: int | None, stderr: bytes, timed_out: bool
) -> tuple[Exceeded, ...]:
    """The limits that were met, the likeliest reason for a failure first.

    `refused_tasks` is None where nothing counts them: then words stand for it, as for the others.
    """
    found: list[Exceeded] = []
    failed = exit_code != 0
    if timed_out:
        found.append(Exceeded.TIME)
    if oom_kills:
        found.append(Exceeded.MEMORY)
    if exit_code == _XFSZ:
        found.append(Exceeded.FILE_SIZE)
    if refused_tasks:
        found.append(Exceeded.PIDS)
    for limit, words in _SAID.items():
        counted = limit is Exceeded.PIDS and refused_tasks is not None
        if failed and not counted and limit not in found and any(word in stderr for word in words):
            found.append(limit)
    return tuple(found)


def remedy(limit: Exceeded, limits: Limits) -> str:
    """Name the limit that was met, its size, and the field to raise."""
    match limit:
        case Exceeded.MEMORY:
            return f"used more than its {limits.memory_bytes} bytes of memory; set spec.resources.memory higher"
        case Exceeded.PIDS:
            return f"needed more than its {limits.pids} processes and threads; set spec.resources.pids higher"
        case Exceeded.OPEN_FILES:
            return "opened more files at once than it may; set spec.resources.openFiles higher"
        case Exceeded.FILE_SIZE:
            return f"wrote a file of more than {limits.file_bytes} bytes; set spec.resources.fileSize higher"
        case Exceeded.DISK:
            return "filled its private disk; set spec.resources.disk higher"
        case Exceeded.TIME:
            return "took longer than it may; set spec.timeoutSeconds higher"
        case Exceeded.OUTPUT:
            return "wrote more output than is kept; set spec.output.maxBytes higher"
