"""Directories and files for this user alone, which nobody else could have prepared or can replace.

Whatever keeps secrets or decides what runs (tokens, keys, state, audit trails) is read and written through this module.
A directory that another user owns, or in which another user has put something, is refused before anything in it is
read or written. Links are not followed.
"""

from __future__ import annotations

import contextlib
import errno
import os
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from remit.errors import InvalidInput

_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_MAX_READ = 1 << 20


def private_directory(path: Path) -> None:
    """Make the directory `path` with mode 0700, and so its missing parents.

    An existing one of this user's that others may read or write becomes 0700 too. One of root's, such as a volume of a
    pod, keeps its mode, and so does a sticky one, such as /tmp, in which nobody can replace what is somebody else's.
    The path may be a symbolic link, unless somebody else made it.

    Raises:
        InvalidInput: somebody else owns it, or something in it.
        OSError: it cannot be made or opened.
    """
    _make(path)
    link = path.lstat()
    if not _is_trusted(link):
        raise InvalidInput(_not_ours(path, link))
    descriptor = os.open(path, _DIRECTORY if stat.S_ISLNK(link.st_mode) else _DIRECTORY | os.O_NOFOLLOW)
    try:
        info = os.fstat(descriptor)
        if not _is_trusted(info):
            raise InvalidInput(_not_ours(path, info))
        _check_entries(descriptor, path)
        if info.st_uid == os.geteuid() and info.st_mode & 0o066 and not info.st_mode & stat.S_ISVTX:
            os.fchmod(descriptor, 0o700)
            _check_entries(descriptor, path)  # check again for files that were created meanwhile
    finally:
        os.close(descriptor)


def untrusted_owner(path: Path) -> str | None:
    """None for what belongs to this user or to root, otherwise what is wrong with it. Raises OSError."""
    info = path.stat()
    return None if _is_trusted(info) else _not_ours(path, info)


def open_private(path: Path) -> int:
    """A descriptor to read and write the file `path`, which is made where it is missing.

    Raises:
        InvalidInput: it is no file, or somebody else owns it.
        OSError: it cannot be opened.
    """
    return _open(path, os.O_RDWR | os.O_CREAT)


def read_private(path: Path) -> bytes:
    """What the file `path` holds, at most 1 MiB.

    Raises:
        InvalidInput: it is no file, larger, or somebody else owns it.
        OSError: it cannot be opened.
    """
    with os.fdopen(_open(path, os.O_RDONLY), "rb") as file:
        content = file.read(_MAX_READ + 1)
    if len(content) > _MAX_READ:
        raise InvalidInput(f"{path} is larger than {_MAX_READ >> 20} MiB; remove it")
    return content


def replace_private(path: Path, content: bytes, *, sync: bool = True) -> None:
    """Write the file `path` for this user alone, whole or not at all; with `sync` it is on the disk when this returns.

    Raises OSError.
    """
    temporary = path.with_name(f".{path.name}.new")
    with contextlib.suppress(FileNotFoundError):
        temporary.unlink()  # left by a writer that was killed
    try:
        with os.fdopen(os.open(temporary, _NEW_FILE, 0o600), "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
    except OSError as error:
        error.filename = error.filename or str(path)  # the error of a write to a full disk has no file name
        raise
    temporary.replace(path)


def write_private(path: Path, content: bytes) -> None:
    """`replace_private`, which makes the folders that are missing. Raises OSError."""
    _make(path.parent)
    replace_private(path, content)


@contextlib.contextmanager
def whole_file(path: Path, *, replace: bool = True) -> Iterator[BinaryIO]:
    """A new file, mode 0600, that takes the name `path` when the block ends well.

    Raises FileExistsError where there is one already, and it is not to be replaced.
    """
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    coming = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(descriptor)
        if replace:
            coming.replace(path)
        else:
            os.link(coming, path)
    finally:
        coming.unlink(missing_ok=True)


def _make(path: Path) -> None:
    """`Path.mkdir` makes parents that anybody may enter and, with a umask of 0, write."""
    try:
        path.mkdir(mode=0o700)
    except FileNotFoundError:
        _make(path.parent)
        path.mkdir(mode=0o700, exist_ok=True)
    except FileExistsError:
        pass


def _check_entries(directory: int, path: Path) -> None:
    with os.scandir(directory) as entries:
        for entry in entries:
            with contextlib.suppress(FileNotFoundError):  # an operator that ends removes its own file
                if not _is_trusted(info := entry.stat(follow_symlinks=False)):
                    raise InvalidInput(_not_ours(path / entry.name, info))


def _open(path: Path, flags: int) -> int:
    try:
        # O_NONBLOCK, because opening a pipe would otherwise wait for its other end.
        descriptor = os.open(path, flags | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK, 0o600)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise InvalidInput(f"{path} is a symbolic link; remove it") from None
        raise
    info = os.fstat(descriptor)
    if stat.S_ISREG(info.st_mode) and _is_trusted(info):
        return descriptor
    os.close(descriptor)
    raise InvalidInput(_not_ours(path, info) if stat.S_ISREG(info.st_mode) else f"{path} is not a file; remove it")


def _is_trusted(info: os.stat_result) -> bool:
    return info.st_uid in {0, os.geteuid()}


def _not_ours(path: Path, info: os.stat_result) -> str:
    return f"{path} belongs to user {info.st_uid}, who could replace what is in it; choose another, or change its owner"
