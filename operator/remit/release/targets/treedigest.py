"""Computes a digest of the content of a folder: the same for the same names, contents, owner's permissions and
links."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Iterator
from pathlib import Path

_Entry = tuple[bytes, os.stat_result, Path]
"""The path below the folder, what `lstat` says, and the whole path."""


def tree_digest(top: Path) -> str:
    """`sha256:` and hexadecimal digits. Times, owners and the permissions of others are not part of it.

    Raises OSError.
    """
    total = hashlib.sha256()
    for name, info, path in _entries(top):
        for part in (name, *_content(info, path)):
            total.update(len(part).to_bytes(8, "big") + part)
    return f"sha256:{total.hexdigest()}"


def tree_signature(top: Path) -> bytes:
    """Changes whenever anything in the folder does; found without reading any file. Raises OSError."""
    total = hashlib.sha256()
    for name, info, _ in _entries(top):
        total.update(repr((name, info.st_ino, info.st_mode, info.st_size, info.st_ctime_ns)).encode())
    return total.digest()


def _entries(top: Path) -> Iterator[_Entry]:
    """All that is in it, in an order that depends on the names alone. Links are not followed."""
    for folder, folders, files in os.walk(top, onerror=_failed):
        folders.sort()
        for name in sorted([*folders, *files]):
            path = Path(folder, name)
            yield bytes(path.relative_to(top)), path.lstat(), path


def _content(info: os.stat_result, path: Path) -> tuple[bytes, bytes]:
    """The kind of an entry, with its permissions where it has some of its own; and what is in it."""
    if stat.S_ISLNK(info.st_mode):
        return b"link", bytes(path.readlink())
    if stat.S_ISDIR(info.st_mode):
        return b"folder", b""
    with path.open("rb") as file:
        return b"file %o" % (info.st_mode & stat.S_IRWXU), hashlib.file_digest(file, "sha256").digest()


def _failed(error: OSError) -> None:
    raise error
