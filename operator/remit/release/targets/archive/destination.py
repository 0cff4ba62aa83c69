"""The folder into which an archive is unpacked, and the rules for what may be put into it. The standard library only.

Every path is opened component by component beneath the folder's descriptor, and no link is ever followed, so that
nothing outside the folder is touched whatever the members are called and however they refer to each other.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Final

MAX_PATH_BYTES: Final = 3072
"""Limit of a path in an archive. The rest of Linux's 4095 bytes is for the folder that it is unpacked in."""
MAX_NAME_BYTES: Final = 255
MAX_DEPTH: Final = 128
MAX_LINKS: Final = 40
"""Limit of symbolic links in one path, as in Linux."""

_DIRECTORY: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_NEW_FILE: Final = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC

Parts = tuple[str, ...]


class ArchiveRefused(Exception):
    """A member, or the archive, that is not unpacked. `too_large` says that one of the limits is the reason."""

    def __init__(self, message: str, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.too_large = too_large


@dataclass
class Destination:
    """The folder open as `root`, which must be empty. It takes at most `max_bytes` in at most `max_members`.

    The methods raise `ArchiveRefused`, and OSError where the disk does not take it.
    """

    root: int
    max_bytes: int
    max_members: int
    _bytes: int = 0
    _members: int = 0
    _files: set[Parts] = field(default_factory=set)
    _links: dict[Parts, Parts] = field(default_factory=dict)

    def add_directory(self, name: str) -> None:
        if parts := self._begin(name):
            with self._directory(parts):
                pass

    def add_file(self, name: str, mode: int, chunks: Iterable[bytes]) -> None:
        """Only the owner may write to it, and nobody gets the rights of another user by it."""
        with self._new(name) as (parts, parent):
            descriptor = os.open(parts[-1], _NEW_FILE, 0o600, dir_fd=parent)
            with os.fdopen(descriptor, "wb") as file:
                for chunk in chunks:
                    self._bytes += len(chunk)
                    if self._bytes > self.max_bytes:
                        raise ArchiveRefused(f"it unpacks to more than {self.max_bytes} bytes", too_large=True)
                    file.write(chunk)
                file.flush()
                os.fchmod(file.fileno(), mode & 0o755 | 0o600)
            self._files.add(parts)

    def add_symbolic_link(self, name: str, target: str) -> None:
        """`target` is relative. Whether it leads out of the folder shows when all links are there: see `finish`."""
        if not target or target.startswith("/") or "\0" in target or len(os.fsencode(target)) > MAX_PATH_BYTES:
            raise ArchiveRefused(
                f"{_shown(name)} is a symbolic link to {_shown(target)}, which is not a path inside it"
            )
        with self._new(name) as (parts, parent):
            os.symlink(target, parts[-1], dir_fd=parent)
            self._links[parts] = tuple(target.split("/"))

    def add_hard_link(self, name: str, target: str) -> None:
        """`target` is the name of a file that was added before."""
        source = _parts(target)
        if source not in self._files:
            raise ArchiveRefused(f"{_shown(name)} is a hard link to {_shown(target)}, which is no file before it")
        with self._new(name, keep=source) as (parts, parent), self._directory(source[:-1]) as folder:
            os.link(source[-1], parts[-1], src_dir_fd=folder, dst_dir_fd=parent, follow_symlinks=False)
            self._files.add(parts)

    def finish(self) -> None:
        """Refuse links that lead out of the folder."""
        for parts, target in self._links.items():
            if leaves(parts, self._links):
                raise ArchiveRefused(
                    f"{_shown('/'.join(parts))} is a symbolic link to {_shown('/'.join(target))}, which leads out of it"
                )

    def _begin(self, name: str) -> Parts:
        self._members += 1
        if self._members > self.max_members:
            raise ArchiveRefused(f"it has more than {self.max_members} members", too_large=True)
        return _parts(name)

    @contextmanager
    def _new(self, name: str, keep: Parts = ()) -> Iterator[tuple[Parts, int]]:
        """The parts of a name, and its folder with nothing of that name in it: a later member replaces an earlier."""
        parts = self._begin(name)
        if not parts or parts == keep:
            raise ArchiveRefused(f"{_shown(name)} is no name for a file")
        with self._directory(parts[:-1]) as parent:
            try:
                os.unlink(parts[-1], dir_fd=parent)
            except FileNotFoundError:
                pass
            except (IsADirectoryError, PermissionError):
                raise ArchiveRefused(f"{_shown(name)} is a folder and a file at once") from None
            self._files.discard(parts)
            self._links.pop(parts, None)
            yield parts, parent

    @contextmanager
    def _directory(self, parts: Parts) -> Iterator[int]:
        """The folder of that name, made where it is not there."""
        descriptor = os.dup(self.root)
        try:
            for part in parts:
                inner = self._enter(part, descriptor, parts)
                os.close(descriptor)
                descriptor = inner
            yield descriptor
        finally:
            os.close(descriptor)

    def _enter(self, part: str, parent: int, parts: Parts) -> int:
        try:
            os.mkdir(part, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(part, dir_fd=parent, follow_symlinks=False).st_mode):
                raise ArchiveRefused(
                    f"{_shown('/'.join(parts))} goes through {_shown(part)}, which is no folder"
                ) from None
        else:
            self._members += 1  # a folder that no member names also counts, because it takes space as well
        return os.open(part, _DIRECTORY, dir_fd=parent)


def leaves(link: Parts, links: Mapping[Parts, Parts]) -> bool:
    """Whether the symbolic link `link` leads out of the folder, with all `links` followed on the way. Pure.

    What is no link counts as a folder. A circle leads nowhere.
    """
    here: list[str] = list(link[:-1])
    ahead, followed = list(reversed(links[link])), 1
    while ahead:
        part = ahead.pop()
        if part in {"", "."}:
            continue
        if part == "..":
            if not here:
                return True
            here.pop()
            continue
        here.append(part)
        if (target := links.get(tuple(here))) is not None:
            followed += 1
            if followed > MAX_LINKS:
                return False
            here.pop()
            ahead += reversed(target)
    return False


def _parts(name: str) -> Parts:
    """The components of a member's name. Raises Refused for one that could lead anywhere else, or is too long."""
    parts = tuple(part for part in name.split("/") if part not in {"", "."})
    if name.startswith("/") or ".." in parts or "\0" in name:
        raise ArchiveRefused(f"{_shown(name)} is not a path inside it")
    if len(parts) > MAX_DEPTH:
        raise ArchiveRefused(f"{_shown(name)} is nested deeper than {MAX_DEPTH} folders")
    if len(os.fsencode(name)) > MAX_PATH_BYTES or any(len(os.fsencode(part)) > MAX_NAME_BYTES for part in parts):
        raise ArchiveRefused(f"{_shown(name)} is too long a name")
    return parts


def _shown(name: str) -> str:
    return ascii(name if len(name) <= 100 else f"{name[:60]}…{name[-30:]}")
