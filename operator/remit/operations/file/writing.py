"""Files written whole or not at all: a temporary file beside the target, synced, then renamed over it."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from remit.operations.failure import OperationFailed
from remit.operations.file.beneath import Place

CHUNK = 1 << 20
_PREFIX = ".remit-"


class Limit:
    """Counts bytes against the largest file that may be written (None: no limit)."""

    def __init__(self, most: int | None) -> None:
        self._most = most

    def check(self, size: int, path: str) -> None:
        if self._most is not None and size > self._most:
            raise OperationFailed(
                "FileSizeExceeded",
                f"{path} would be larger than {self._most} bytes; raise spec.resources.fileSize",
                retryable=False,
                category="Resources",
            )


@contextmanager
def replacing(target: Place, mode: int, *, exclusive: bool) -> Iterator[int]:
    """A descriptor to write to; `target` becomes what was written when the block ends well, and else stays as it was.

    `exclusive` fails with EEXIST if the target is there by then.
    """
    temporary = f"{_PREFIX}{secrets.token_hex(8)}"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(temporary, flags, 0o600, dir_fd=target.parent)
    try:
        try:
            yield descriptor
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        put(target, temporary, exclusive=exclusive)
    except BaseException:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(temporary, dir_fd=target.parent)
        raise
    sync(target)


def put(target: Place, temporary: str, *, exclusive: bool) -> None:
    """Give the temporary file its name: a link fails where something is, a rename replaces it."""
    if exclusive:
        os.link(temporary, target.name, src_dir_fd=target.parent, dst_dir_fd=target.parent, follow_symlinks=False)
        os.unlink(temporary, dir_fd=target.parent)
    else:
        os.rename(temporary, target.name, src_dir_fd=target.parent, dst_dir_fd=target.parent)


def sync(target: Place) -> None:
    """The directory too: a name that is not on disk is a file lost."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target.parent)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_all(descriptor: int, chunks: Iterable[bytes], checking: Callable[[int], None]) -> int:
    """Write the chunks; `checking` sees how many bytes there will be, before each."""
    written = 0
    for chunk in chunks:
        checking(written + len(chunk))
        rest = memoryview(chunk)
        while rest:
            rest = rest[os.write(descriptor, rest) :]
        written += len(chunk)
    return written


def read_all(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, CHUNK):
        yield chunk


def mode_of(text: str | None, default: int) -> int:
    return int(text, 8) if text else default


def permissions(info: os.stat_result) -> int:
    return stat.S_IMODE(info.st_mode) & 0o777
