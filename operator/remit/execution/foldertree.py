"""Measures and removes folders that programs have filled, however deep and closed these are."""

from __future__ import annotations

import contextlib
import itertools
import os
import stat
import uuid
from pathlib import Path
from typing import Final

from remit.errors import InvalidInput

MAX_NAMES: Final = 1_000_000
MAX_DEPTH: Final = 128
_AT_ONCE: Final = 1000
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_REFERENCE: Final = os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def disk_usage(root: Path) -> int:
    """Returns the disk space of the files below `root`, in bytes, each counted once. Examines every file, but not its
    content.

    Raises OSError, and `InvalidInput` if there are more files than can be examined.
    """
    folder = os.open(root, _FOLDER)
    try:
        usage = _Usage()
        usage.add(folder, 0)
        return usage.bytes
    finally:
        os.close(folder)


def remove_tree(root: Path) -> None:
    """Removes the folder `root` with its content, which no other process may extend meanwhile. Raises OSError.

    Folders are moved up before they are emptied, so that neither a path nor the stack grows with their depth.
    """
    top = _open_own(str(root), None)
    try:
        while entries := _some(top):
            for name, is_folder in entries:
                if is_folder:
                    _empty(name, top)
                    os.rmdir(name, dir_fd=top)  # pathlib cannot remove a folder relative to a descriptor
                else:
                    os.unlink(name, dir_fd=top)
    finally:
        os.close(top)
    root.rmdir()


def _empty(name: str, top: int) -> None:
    """Remove the files of a folder in `top`, and move its folders there."""
    folder = _open_own(name, top)
    try:
        while entries := _some(folder):
            for inner, is_folder in entries:
                if is_folder:
                    os.close(_open_own(inner, folder))
                    os.rename(inner, uuid.uuid4().hex, src_dir_fd=folder, dst_dir_fd=top)
                else:
                    os.unlink(inner, dir_fd=folder)
    finally:
        os.close(folder)


def _some(folder: int) -> list[tuple[str, bool]]:
    """The names of some entries, and which are folders; none where it is empty."""
    with os.scandir(folder) as entries:
        return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in itertools.islice(entries, _AT_ONCE)]


def _open_own(name: str, parent: int | None) -> int:
    """Open a folder that is to be removed, also one that its owner has closed to itself."""
    reference = os.open(name, _REFERENCE, dir_fd=parent)
    try:
        again = f"/proc/self/fd/{reference}"
        if os.fstat(reference).st_mode & 0o700 != 0o700:
            os.chmod(again, 0o700)  # noqa: PTH101  # by descriptor
        return os.open(again, _FOLDER & ~os.O_NOFOLLOW)
    finally:
        os.close(reference)


class _Usage:
    def __init__(self) -> None:
        self.bytes = self._names = 0
        self._seen: set[tuple[int, int]] = set()

    def add(self, folder: int, depth: int) -> None:
        if depth > MAX_DEPTH:
            raise InvalidInput(f"folders lie more than {MAX_DEPTH} deep in each other")
        with os.scandir(folder) as entries:
            for entry in entries:
                self._names += 1
                if self._names > MAX_NAMES:
                    raise InvalidInput(f"there are more than {MAX_NAMES} files")
                # Other processes may change the folder meanwhile.
                with contextlib.suppress(FileNotFoundError, NotADirectoryError):
                    self._add_one(folder, entry.name, depth)

    def _add_one(self, parent: int, name: str, depth: int) -> None:
        info = os.stat(name, dir_fd=parent, follow_symlinks=False)
        if info.st_nlink > 1 and not stat.S_ISDIR(info.st_mode):
            if (info.st_dev, info.st_ino) in self._seen:
                return
            self._seen.add((info.st_dev, info.st_ino))
        self.bytes += info.st_blocks * 512
        if stat.S_ISDIR(info.st_mode):
            folder = os.open(name, _FOLDER, dir_fd=parent)
            try:
                self.add(folder, depth + 1)
            finally:
                os.close(folder)
