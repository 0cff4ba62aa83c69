"""The files that an attempt made, as a backend hands them out once nothing of the attempt is alive."""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import BinaryIO, Final, Protocol

from remit.backends.blocking import in_thread
from remit.backends.outcome import ExitReason, Outcome
from remit.backends.pathpattern import MAX_DEPTH, PathPattern, State
from remit.sandbox.fsuser import open_as

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_FILE = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY


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
    """The files that an attempt left, by the paths that its program knew."""

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """The regular files that an absolute `pattern` matches, each once, in no order. Links are not followed.

        `*` and `?` stay within one folder, `**` spans them, and of a matched folder everything below it is meant.

        Raises OSError.
        """
        ...


Collector = Callable[[FileTree, Outcome], Outcome]
"""Keeps what is to be kept of what an attempt left, given how it ended; gives how it ended then. It blocks."""


COLLECTING_SECONDS: Final = 1800.0
MAX_NAMES: Final = 1_000_000
"""Looked at for one pattern."""
_SWAPPED: Final = frozenset({errno.ENOENT, errno.ELOOP, errno.ENXIO, errno.ENOTDIR})
"""What opening tells of a name that stands for something else, or nothing, since it was looked at."""


async def collected(collector: Collector, tree: FileTree, outcome: Outcome) -> Outcome:
    """How the attempt ended, with what was kept. A filesystem that does not answer is not waited for any longer."""
    bounded = _Bounded(tree)
    try:
        return await in_thread(lambda: collector(bounded, outcome), COLLECTING_SECONDS, lambda _: None)
    except TimeoutError:
        message = f"{outcome.message}; what it left could not be read within {COLLECTING_SECONDS:g} s"
        return replace(outcome, reason=ExitReason.ARTIFACT_UNREADABLE, message=message, category="Artifacts")
    finally:
        bounded.over.set()


class _Bounded:
    """A tree in which nothing more is found once `over` is set."""

    def __init__(self, tree: FileTree) -> None:
        self._tree = tree
        self.over = threading.Event()

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """See `FileTree.find`."""
        for found in self._tree.find(pattern):
            if self.over.is_set():
                raise OSError(errno.ETIMEDOUT, os.strerror(errno.ETIMEDOUT))
            yield found


@dataclass(frozen=True, slots=True)
class _FoundFile:
    path: str
    size: int
    executable: bool
    _descriptor: int

    def open(self) -> BinaryIO:
        return os.fdopen(os.dup(self._descriptor), "rb", buffering=0)


class DescriptorTree:
    """Files beneath open folders, of which it has descriptors of its own: whoever made it may be gone before a thread
    that reads comes back."""

    def __init__(self, places: Mapping[str, int], uid: int | None = None) -> None:
        """`places` has the descriptor of each folder by its absolute path inside, such as `/workspace`. Files are read
        as the user `uid`, so that nothing of root's is kept for a program that could not read it itself.

        Raises OSError.
        """
        own: list[int] = []
        weakref.finalize(self, _close, own)
        self.places: dict[str, int] = {}
        self.uid = uid
        for path, descriptor in places.items():
            own.append(os.dup(descriptor))
            self.places[path] = own[-1]

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """See `FileTree.find`."""
        found = place_of(pattern, self.places)
        if found is not None:
            below = pattern_below(pattern, found)
            yield from self.matching(found, below, below.start, ())

    def matching(self, place: str, pattern: PathPattern, state: State, names: tuple[str, ...]) -> Iterator[FoundFile]:
        """What matches in that folder, which is reached by `names` and with `state` from where the pattern starts."""
        yield from _Walk(self.uid, pattern).matching(self.places[place], state, names)


def _close(descriptors: Iterable[int]) -> None:
    for descriptor in descriptors:
        os.close(descriptor)


def place_of(pattern: str, places: Iterable[str]) -> str | None:
    """The innermost of the folders `places` that the absolute `pattern` is in; None: it is in none."""
    return max((place for place in places if is_below(pattern, place)), key=len, default=None)


def pattern_below(pattern: str, place: str) -> PathPattern:
    """The absolute `pattern` as seen from a folder that it is in."""
    parts = posixpath.relpath(pattern, place).split("/")
    return PathPattern([] if parts == ["."] else parts)


def is_below(path: str, folder: str) -> bool:
    """Or the same."""
    return path == folder or path.startswith(f"{folder.rstrip('/')}/")


def too_deep(path: str) -> OSError:
    return OSError(errno.ELOOP, f"folders lie more than {MAX_DEPTH} deep in each other", path)


class TooMuch(OSError):
    """More was left than may be kept, and would be the next time."""


def too_many_names() -> OSError:
    message = f"more than {MAX_NAMES} names were looked at; put what is to be kept into a folder of its own"
    return OSError(errno.EFBIG, message)


@dataclass(slots=True)
class _Walk:
    uid: int | None
    pattern: PathPattern
    names: int = 0

    def matching(self, folder: int, state: State, names: tuple[str, ...]) -> Iterator[_FoundFile]:
        """What matches in `folder`, which was reached by `names`."""
        only = self.pattern.only(state)
        for name in self._names(folder) if only is None else (only,):
            self._count()
            if not (after := self.pattern.enter(state, name)):
                continue
            mode = self._mode(folder, name)
            if stat.S_ISDIR(mode):
                yield from self._within(folder, name, after, (*names, name))
            elif stat.S_ISREG(mode) and self.pattern.accepts(after):
                yield from self._file(folder, name, self.pattern.relative((*names, name)))

    def _count(self) -> None:
        self.names += 1
        if self.names > MAX_NAMES:
            raise too_many_names()

    def _file(self, parent: int, name: str, path: str) -> Iterator[_FoundFile]:
        if (descriptor := self._opened(parent, name, _FILE)) is None:
            return
        try:
            info = os.fstat(descriptor)
            if stat.S_ISREG(info.st_mode):
                yield _FoundFile(path, info.st_size, bool(info.st_mode & stat.S_IXUSR), descriptor)
        finally:
            os.close(descriptor)

    def _within(self, parent: int, name: str, state: State, names: tuple[str, ...]) -> Iterator[_FoundFile]:
        if len(names) > MAX_DEPTH:
            raise too_deep("/".join(names))
        if (folder := self._opened(parent, name, _FOLDER)) is None:
            return
        try:
            yield from self.matching(folder, state, names)
        finally:
            os.close(folder)

    def _opened(self, parent: int, name: str, flags: int) -> int | None:
        """None: others who have the folder, too, have removed it or put something else in its place meanwhile."""
        try:
            return open_as(self.uid, name, flags, parent=parent)
        except OSError as error:
            if error.errno in _SWAPPED:
                return None
            raise

    def _mode(self, parent: int, name: str) -> int:
        with suppress(FileNotFoundError):
            return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode
        return 0

    def _names(self, folder: int) -> Iterator[str]:
        copy = open_as(self.uid, ".", _FOLDER, parent=folder)  # the copy has a read position of its own
        try:
            with os.scandir(copy) as entries:
                yield from (entry.name for entry in entries)
        finally:
            os.close(copy)
