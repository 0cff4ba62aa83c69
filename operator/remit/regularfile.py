"""Files that somebody names: regular ones only, and no more of them than may be held.

A pipe that nobody writes to would block for ever, and a device may have no end. Symbolic links are followed: files of a
mounted ConfigMap are links, and whoever names a link has the rights to what it leads to.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import BinaryIO, Final

from remit.errors import InvalidInput

MOST_BYTES: Final = 4 << 20
"""Limit of a manifest. An API server accepts no object of more than 3 MiB."""
_KINDS: Final = {
    stat.S_IFDIR: "a directory",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFBLK: "a device",
    stat.S_IFCHR: "a device",
}


def open_regular(path: Path) -> BinaryIO:
    """The regular file at `path`, open to be read. Raises `OSError`, also for anything else that is there."""
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    if (kind := irregular(os.fstat(descriptor).st_mode)) is None:
        return os.fdopen(descriptor, "rb")
    os.close(descriptor)
    raise OSError(errno.EINVAL, f"it is {kind}, not a regular file", str(path))


def irregular(mode: int) -> str | None:
    """None for a regular file, or what it is instead, such as "a pipe"."""
    return None if stat.S_ISREG(mode) else _KINDS.get(stat.S_IFMT(mode), "something else")


def read_text(path: Path, most: int = MOST_BYTES) -> str:
    """The text of a regular file. Raises `OSError`, and `InvalidInput` for one that is too large or no text."""
    with open_regular(path) as file:
        return as_text(file.read(most + 1), str(path), most)


def as_text(data: bytes, name: str, most: int = MOST_BYTES) -> str:
    """`data`, of which no more than `most` + 1 bytes need to have been read. Raises `InvalidInput`."""
    if len(data) > most:
        raise InvalidInput(f"{name} is larger than {most >> 20} MiB, which is the most that is read")
    try:
        return data.decode()
    except UnicodeDecodeError:
        raise InvalidInput(f"{name} is not a text file") from None
