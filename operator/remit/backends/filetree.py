"""The files that an attempt made, as a backend hands them out once nothing of the attempt is alive."""

from __future__ import annotations

import asyncio
import errno
import os
import posixpath
import re
import stat
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import BinaryIO, Final, Protocol

from remit.backends.outcome import ExitReason, Outcome
from remit.policy.patterns import Pattern, path_glob
from remit.sandbox.fsuser import open_as

_WILDCARD: Final = re.compile(r"[*?]")
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY
_MAX_DEPTH: Final = 64


class FoundFile(Protocol):
    """A regular file. It can be opened until the next one is asked for."""

    @property
    def path(self) -> str:
        """Relative to the folder before the first wildcard of the pattern; of a folder, to that."""
        ...

    @property
    def size(self) -> int: ...

    @property
    def executable(self) -> bool: ...

    def open(self) -> BinaryIO:
        """Raises OSError, also where the attempt's user may not read it."""
        ...


class FileTree(Protocol):
    """What an attempt left, by the paths that its program knew."""

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """The regular files that an absolute `pattern` matches, each once, in no order. Links are not followed.

        `*` and `?` stay within one folder, `**` spans them, and of a matched folder everything below it is meant.

        Raises OSError.
        """
        ...


Collector = Callable[[FileTree, Outcome], Outcome]
"""Keeps what is to be kept of what an attempt left, given how it ended; gives how it ended then. It blocks."""


COLLECTING_SECONDS: Final = 1800.0


async def collected(collector: Collector, tree: FileTree, outcome: Outcome) -> Outcome:
    """How the attempt ended, with what was kept. A filesystem that does not answer is not waited for any longer."""
    try:
        async with asyncio.timeout(COLLECTING_SECONDS):
            return await asyncio.to_thread(collector, tree, outcome)
    except TimeoutError:
        message = f"{outcome.message}; what it left could not be read within {COLLECTING_SECONDS:g} s"
        return replace(outcome, reason=ExitReason.ARTIFACT_UNREADABLE, message=message, category="Artifacts")


@dataclass(frozen=True, slots=True)
class _Found:
    path: str
    size: int
    executable: bool
    _descriptor: int

    def open(self) -> BinaryIO:
        return os.fdopen(os.dup(self._descriptor), "rb", buffering=0)


@dataclass(frozen=True, slots=True)
class DescriptorTree:
    """Files beneath open folders. `places` has the descriptor of each by its absolute path inside, such as
    `/workspace`; files are read as the user `uid`, so that nothing of root's is kept for a program that could not read
    it itself."""

    places: Mapping[str, int]
    uid: int | None = None

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """See `FileTree.find`."""
        found = max((place for place in self.places if _is_below(pattern, place)), key=len, default=None)
        if found is None:
            return
        parts = posixpath.relpath(pattern, found).split("/")
        yield from _Walk(self.uid).matching(self.places[found], [] if parts == ["."] else parts, None, 0)


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


@dataclass(frozen=True, slots=True)
class _Walk:
    """Paths are those below where the pattern has its first wildcard; None: it has not come so far."""

    uid: int | None
    seen: set[str] = field(default_factory=set)
    patterns: dict[str, Pattern] = field(default_factory=dict)

    def matching(self, folder: int, parts: Sequence[str], path: str | None, depth: int) -> Iterator[_Found]:
        """What in `folder`, whose own path is `path`, matches `parts`; all of it where there are none."""
        if not parts:
            parts, path = ["*"], path or ""
        first, rest = parts[0], parts[1:]
        if first == "**":
            yield from self.matching(folder, rest, path or "", depth)
            for name in self._names(folder) if rest else ():
                yield from self._within(folder, name, parts, _joined(path or "", name), depth)
        elif _WILDCARD.search(first):
            glob = self.patterns.setdefault(first, path_glob(first))
            for name in self._names(folder):
                if glob.matches(os.fsencode(name).decode(errors="replace")):
                    yield from self._one(folder, name, rest, _joined(path or "", name), depth)
        else:
            yield from self._one(folder, first, rest, None if path is None else _joined(path, first), depth)

    def _one(self, parent: int, name: str, rest: Sequence[str], path: str | None, depth: int) -> Iterator[_Found]:
        mode = self._mode(parent, name)
        if stat.S_ISDIR(mode):
            yield from self._within(parent, name, rest, path, depth)
        elif stat.S_ISREG(mode) and not rest:
            yield from self._file(parent, name, name if path is None else path)

    def _file(self, parent: int, name: str, path: str) -> Iterator[_Found]:
        if path in self.seen:
            return
        descriptor = open_as(self.uid, name, _FILE, parent=parent)
        try:
            info = os.fstat(descriptor)
            if stat.S_ISREG(info.st_mode):
                self.seen.add(path)
                yield _Found(path, info.st_size, bool(info.st_mode & stat.S_IXUSR), descriptor)
        finally:
            os.close(descriptor)

    def _within(self, parent: int, name: str, rest: Sequence[str], path: str | None, depth: int) -> Iterator[_Found]:
        if not stat.S_ISDIR(self._mode(parent, name)):
            return
        if depth >= _MAX_DEPTH:
            raise OSError(errno.ELOOP, f"folders lie more than {_MAX_DEPTH} deep in each other", path)
        folder = open_as(self.uid, name, _FOLDER, parent=parent)
        try:
            yield from self.matching(folder, rest, path, depth + 1)
        finally:
            os.close(folder)

    def _mode(self, parent: int, name: str) -> int:
        try:
            return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        except FileNotFoundError:
            return 0

    def _names(self, folder: int) -> Iterator[str]:
        copy = open_as(self.uid, ".", _FOLDER, parent=folder)  # with a position of its own
        try:
            with os.scandir(copy) as entries:
                yield from (entry.name for entry in entries)
        finally:
            os.close(copy)


def _joined(path: str, name: str) -> str:
    return f"{path}/{name}" if path else name
