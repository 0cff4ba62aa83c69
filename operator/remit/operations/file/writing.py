"""Files written whole or not at all: a temporary file beside the target, synced, then renamed over it."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
import stat
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

from remit.backends.failure import OperationFailed
from remit.errors import RemitError
from remit.operations.base import Effect
from remit.operations.file.errors import Stopped
from remit.sandbox.beneath import Place

CHUNK = 1 << 20
_PREFIX = ".remit-"
_NOT_WITHOUT_A_NAME = frozenset({errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL})
"""What a file system answers that does not know O_TMPFILE."""


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
            )


REFUSALS = (OSError, RemitError, Stopped)
"""What the kernel or Remit refuses has a known outcome; after anything else nobody knows what took place."""


@contextmanager
def changing(effect: Effect, in_doubt: str) -> Iterator[None]:
    """A step that changes the file system."""
    effect.begin(in_doubt)
    try:
        yield
    except REFUSALS:
        effect.settle()
        raise


@contextmanager
def replacing(target: Place, mode: int, effect: Effect, *, exclusive: bool) -> Iterator[int]:
    """A descriptor to write to; `target` becomes what was written when the block ends well, and else stays as it was.

    `exclusive` fails with EEXIST if the target is there by then. Where the file system can, the file has no name until
    it is whole: then nothing is left of it by an operator that is killed either.
    """
    descriptor, temporary = _nameless(target)
    try:
        try:
            yield descriptor
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
            if not exclusive:
                temporary = temporary or _link(descriptor, "", target, temporary_name())
            with changing(effect, f"{target.path} may have been written"):
                if exclusive:
                    _link(descriptor, temporary, target, target.name)
                else:
                    os.rename(temporary, target.name, src_dir_fd=target.parent, dst_dir_fd=target.parent)
                    temporary = ""
        finally:
            os.close(descriptor)
    finally:
        if temporary:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(temporary, dir_fd=target.parent)
    sync(target)


def temporary_name() -> str:
    return f"{_PREFIX}{secrets.token_hex(8)}"


def _nameless(beside: Place) -> tuple[int, str]:
    """A new file in the same directory, and its name where it has to have one."""
    flags = os.O_WRONLY | os.O_CLOEXEC
    try:
        return os.open(".", flags | os.O_TMPFILE, 0o600, dir_fd=beside.parent), ""
    except OSError as error:
        if error.errno not in _NOT_WITHOUT_A_NAME:
            raise
    name = temporary_name()
    return os.open(name, flags | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600, dir_fd=beside.parent), name


def _link(descriptor: int, name: str, beside: Place, new: str) -> str:
    """Give a file a name, which must be free."""
    if name:
        os.link(name, new, src_dir_fd=beside.parent, dst_dir_fd=beside.parent, follow_symlinks=False)
    else:
        os.link(f"/proc/self/fd/{descriptor}", new, dst_dir_fd=beside.parent)
    return new


def sync(target: Place) -> None:
    """The directory too: a name that is not on disk is a file lost."""
    descriptor = os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=target.parent)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


class Tally:
    """Counts what has been written, also if the writing failed."""

    written = 0


def write_all(
    descriptor: int, chunks: Iterable[bytes], checking: Callable[[int], None], tally: Tally | None = None
) -> int:
    """Write the chunks; `checking` sees how many bytes there will be, before each. Gives how many there were."""
    tally = tally or Tally()
    for chunk in chunks:
        checking(tally.written + len(chunk))
        rest = memoryview(chunk)
        while rest:
            count = os.write(descriptor, rest)
            tally.written += count
            rest = rest[count:]
    return tally.written


def read_all(descriptor: int, count: int | None = None) -> Iterator[bytes]:
    """The rest of a file in pieces, or the next `count` bytes of it."""
    while chunk := os.read(descriptor, CHUNK if count is None else min(CHUNK, count)):
        count = None if count is None else count - len(chunk)
        yield chunk


def mode_of(text: str | None, default: int) -> int:
    return int(text, 8) if text else default


def permissions(info: os.stat_result) -> int:
    return stat.S_IMODE(info.st_mode) & 0o777
