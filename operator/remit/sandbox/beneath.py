"""Names beneath a directory, resolved by the kernel and held by descriptor.

A path is looked at once, when its parent directory is opened; from then on everything goes by that descriptor and a
single name that is never followed as a link. So neither `..` nor a symbolic link leads out of the root, and renaming
or replacing a directory in the meantime changes nothing.
"""

from __future__ import annotations

import ctypes
import errno
import math
import os
import posixpath
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

_OPENAT2 = 437  # the same number on every architecture
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH, _RESOLVE_CACHED = 0x02, 0x04, 0x08, 0x20
_AT_FDCWD = -100
_DIRECTORY = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_UNSUPPORTED = {errno.ENOSYS, errno.EPERM, errno.E2BIG, errno.EINVAL}

_libc = ctypes.CDLL(None, use_errno=True)

SELF = "."
"""The name of the root itself."""


@dataclass(frozen=True, slots=True)
class Place:
    """One name in an open directory. `path` is where it really is; `name` is `SELF` for the root itself."""

    parent: int
    name: str
    path: str

    def lstat(self) -> os.stat_result:
        return os.stat(self.name, dir_fd=self.parent, follow_symlinks=False)

    def exists(self) -> bool:
        try:
            self.lstat()
        except FileNotFoundError:
            return False
        return True

    def open(self, flags: int, mode: int = 0o600) -> int:
        """Open it, never as a link, and without waiting for the other end of a pipe."""
        return os.open(
            self.name, flags | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY, mode, dir_fd=self.parent
        )


@contextmanager
def place(root: str, path: str, *, make_parents: bool = False) -> Iterator[Place]:
    """The place of `path`, which is at or below `root`.

    Raises:
        OSError: EXDEV or ELOOP when a link leads out of the root, ENOENT when there is no such directory.
    """
    relative = posixpath.relpath(path, root)
    above, name = posixpath.split(relative)
    root_fd = os.open(root, _DIRECTORY)
    try:
        if make_parents:
            _make_directories(root_fd, above)
        parent = open_beneath(root_fd, above or SELF, _DIRECTORY)
        try:
            folder = str(Path(f"/proc/self/fd/{parent}").readlink())
            yield Place(parent, name, folder if name == SELF else posixpath.join(folder, name))
        finally:
            os.close(parent)
    finally:
        os.close(root_fd)


def _make_directories(root: int, relative: str) -> None:
    """Like `mkdir -p`, one component after the other, each beneath the root."""
    made = ""
    for part in relative.split("/") if relative else ():
        above, made = made, posixpath.join(made, part)
        parent = open_beneath(root, above or SELF, _DIRECTORY)
        try:
            os.mkdir(part, 0o755, dir_fd=parent)
        except FileExistsError:
            pass
        finally:
            os.close(parent)


def open_beneath(root: int, relative: str, flags: int, *, links: bool = True, may_wait: bool = True) -> int:
    """Open `relative` so that no component of it leads out of `root`, or is a link at all where `links` is False.

    Unless it `may_wait`, it raises BlockingIOError where a filesystem would have to be asked.
    """
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_MAGICLINKS | (0 if links else _RESOLVE_NO_SYMLINKS)
    if not may_wait:
        return _open_cached(root, relative, flags, resolve)
    if _has_openat2():
        return _openat2(root, relative, struct.pack("QQQ", flags, 0, resolve))
    return _open_without_links(root, relative, flags)


def open_path(path: str, flags: int, *, may_wait: bool = True) -> int:
    """Open as os.open does. `may_wait` is as in `open_beneath`."""
    return os.open(path, flags) if may_wait else _open_cached(_AT_FDCWD, path, flags)


def _open_cached(root: int, path: str, flags: int, resolve: int = 0) -> int:
    """Open what the kernel has in its cache of names. Raises BlockingIOError for anything else."""
    try:
        return _openat2(root, path, struct.pack("QQQ", flags, 0, resolve | _RESOLVE_CACHED), tries=1)
    except OSError as error:
        if error.errno not in _UNSUPPORTED:
            raise
        raise BlockingIOError(errno.EAGAIN, os.strerror(errno.EAGAIN), path) from None


def _openat2(root: int, relative: str, how: bytes, tries: float = math.inf) -> int:
    while True:
        descriptor = int(
            _libc.syscall(
                ctypes.c_long(_OPENAT2), ctypes.c_int(root), os.fsencode(relative), how, ctypes.c_size_t(len(how))
            )
        )
        if descriptor >= 0:
            return descriptor
        number, tries = ctypes.get_errno(), tries - 1
        # EAGAIN: a path was renamed meanwhile, so try again
        if number not in {errno.EAGAIN, errno.EINTR} or tries <= 0:
            raise OSError(number, os.strerror(number), relative)


@cache
def _has_openat2() -> bool:
    """Linux 5.6 has it; a container's seccomp profile may refuse it."""
    here = os.open("/", _DIRECTORY)
    try:
        os.close(_openat2(here, SELF, struct.pack("QQQ", _DIRECTORY, 0, _RESOLVE_BENEATH)))
    except OSError as error:
        if error.errno in _UNSUPPORTED:
            return False
        raise
    finally:
        os.close(here)
    return True


def _open_without_links(root: int, relative: str, flags: int) -> int:
    """Open component by component and refuse every link, for kernels without openat2."""
    descriptor = os.dup(root)
    for part in relative.split("/"):
        if part == "..":
            os.close(descriptor)
            raise OSError(errno.EXDEV, os.strerror(errno.EXDEV), relative)
        try:
            below = os.open(part, flags | os.O_NOFOLLOW, dir_fd=descriptor)
        finally:
            os.close(descriptor)
        descriptor = below
    if stat.S_ISLNK(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), relative)
    return descriptor
