"""Reads the files that an attempt left in a container from the archives that its engine makes, in constant memory.

An archive is only ever asked for of what no link leads to: the folders on the way to it are looked at first, and
nothing of the attempt is alive that could change them. Nothing is unpacked, so what an archive says of links means
nothing.
"""

from __future__ import annotations

import contextlib
import errno
import io
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import IO, Any, BinaryIO, Final, Protocol, cast

from remit.backends.filetree import DescriptorTree, FoundFile, is_below, pattern_below, place_of, too_deep
from remit.backends.pathpattern import MAX_DEPTH, PathPattern, State

_BLOCK: Final = 1 << 20
_REGULAR: Final = frozenset({tarfile.REGTYPE, tarfile.AREGTYPE})
_MAX_LINKS: Final = 50_001
"""Names of files that have more than one, which are remembered until the rest was read."""


class Readable(Protocol):
    def read(self, size: int, /) -> bytes: ...


class Archives(Protocol):
    """The files of a container, which does not run. Everything raises OSError."""

    def mode(self, path: str) -> int:
        """The `st_mode` of the path, without following a link; 0 if it does not exist."""
        ...

    def open(self, path: str) -> AbstractContextManager[Readable]:
        """The tar archive of a file, or of a folder with all in it; one at a time."""
        ...


@dataclass(frozen=True, slots=True)
class ArchiveTree:
    """`places` are folders of the container's own, by their absolute paths inside; `hosts` are those of the host that
    it had mounted. Files are read as the user `uid` in the group `gid` could. `most_beside` bytes at most are passed
    over: of a folder, the engine gives everything or nothing."""

    archives: Archives
    places: Sequence[str]
    uid: int
    gid: int
    most_beside: int
    hosts: DescriptorTree = field(default_factory=lambda: DescriptorTree({}))

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """See `FileTree.find`."""
        place = place_of(pattern, [*self.places, *self.hosts.places])
        if place in self.hosts.places:
            yield from self.hosts.find(pattern)
        elif place is not None:
            below = pattern_below(pattern, place)
            yield from _Walk(self, place, below).files()
            for host in self.hosts.places:
                if is_below(host, place):
                    names = tuple(posixpath.relpath(host, place).split("/"))
                    if state := _reached(below, names):
                        yield from self.hosts.matching(host, below, state, names)


def _reached(pattern: PathPattern, names: Sequence[str]) -> State:
    state = pattern.start
    for name in names:
        state = pattern.enter(state, name)
    return state


@dataclass(frozen=True, slots=True)
class _File:
    path: str
    size: int
    executable: bool
    _open: Callable[[], BinaryIO]

    def open(self) -> BinaryIO:
        return self._open()


class _Walk:
    def __init__(self, tree: ArchiveTree, place: str, pattern: PathPattern) -> None:
        self._tree, self._place, self._pattern = tree, place, pattern
        self._seen: set[str] = set()
        self._linked: list[tuple[str, ...]] = []
        self._beside = 0

    def files(self) -> Iterator[_File]:
        if (start := self._start()) is None:
            return
        yield from self._within(start)
        for names in self._linked:
            yield from self._one(names)

    def _start(self) -> tuple[str, ...] | None:
        """The names on the way to what is archived; None: nothing there matches."""
        names: tuple[str, ...] = ()
        for name in self._pattern.prefix:
            if len(names) > MAX_DEPTH:
                raise too_deep("/".join(names))
            if names and not self._enters(names):
                return None
            names = (*names, name)
        mode = self._tree.archives.mode(self._path(names))
        is_wanted = stat.S_ISDIR(mode) or (stat.S_ISREG(mode) and self._pattern.accepts(self._reached(names)))
        return names if is_wanted else None

    def _enters(self, names: tuple[str, ...]) -> bool:
        """Whether that is a folder. Raises PermissionError where its owner has closed it, who is the user."""
        mode = self._tree.archives.mode(self._path(names))
        if stat.S_ISDIR(mode) and mode & 0o500 != 0o500:
            raise _not_allowed(names)
        return stat.S_ISDIR(mode)

    def _within(self, start: tuple[str, ...]) -> Iterator[_File]:
        """The matches in the archive of what is at `start`."""
        folders: list[tuple[str, State]] = [(name, _NOTHING) for name in start]
        state = self._pattern.start
        for at, name in enumerate(start):
            state = self._pattern.enter(state, name)
            folders[at] = name, state
        with self._tree.archives.open(self._path(start)) as archive:
            for entry, inner, content in _entries(archive):
                names = (*start, *inner)
                if any(is_below(self._path(names), host) for host in self._tree.hosts.places):
                    continue
                state = self._state(folders, names)
                if state and (entry.isdir() or self._pattern.accepts(state)):
                    yield from self._entry(entry, names, content)
                self._pass(entry, names)

    def _entry(
        self, entry: tarfile.TarInfo, names: tuple[str, ...], content: Callable[[], BinaryIO]
    ) -> Iterator[_File]:
        if entry.isdir():
            if len(names) > MAX_DEPTH:
                raise too_deep("/".join(names))
            self._check(entry, names, 0o5)
        elif entry.islnk():
            if len(self._linked) == _MAX_LINKS:
                raise OSError(errno.EMLINK, f"more than {_MAX_LINKS - 1} names of files that have several")
            self._linked.append(names)
        elif entry.type in _REGULAR and names and (path := self._pattern.relative(names)) not in self._seen:
            self._check(entry, names, 0o4)
            self._seen.add(path)
            self._beside -= entry.size
            yield _File(path, entry.size, bool(entry.mode & stat.S_IXUSR), content)

    def _one(self, names: tuple[str, ...]) -> Iterator[_File]:
        """A file that has several names: in the archive of a folder only one of these has its content."""
        with self._tree.archives.open(self._path(names)) as archive:
            for entry, inner, content in _entries(archive):
                if not inner and not entry.islnk():
                    yield from self._entry(entry, names, content)

    def _state(self, folders: list[tuple[str, State]], names: tuple[str, ...]) -> State:
        """The state of the path `names`. `folders` has the states of the parent folders of the previous entry."""
        same = 0
        while same < min(len(folders), len(names)) and folders[same][0] == names[same]:
            same += 1
        del folders[same:]
        for name in names[same:]:
            folders.append((name, self._pattern.enter(folders[-1][1] if folders else self._pattern.start, name)))
        return folders[-1][1] if folders else self._pattern.start

    def _reached(self, names: Sequence[str]) -> State:
        return _reached(self._pattern, names)

    def _path(self, names: Sequence[str]) -> str:
        return posixpath.join(self._place, *names)

    def _pass(self, entry: tarfile.TarInfo, names: Sequence[str]) -> None:
        self._beside += entry.size
        if self._beside > self._tree.most_beside:
            message = (
                f"beside what is to be kept there is too much to pass over, such as {'/'.join(names)} of {entry.size}"
                " bytes; put what is to be kept into a folder of its own"
            )
            raise OSError(errno.EFBIG, message)

    def _check(self, entry: tarfile.TarInfo, names: Sequence[str], wanted: int) -> None:
        """Raises PermissionError where the attempt's user has not the rights `wanted`, by its mode alone."""
        shift = 6 if entry.uid == self._tree.uid else 3 if entry.gid == self._tree.gid else 0
        if (entry.mode >> shift) & wanted != wanted:
            raise _not_allowed(names)


_NOTHING: Final[State] = frozenset()


def _not_allowed(names: Sequence[str]) -> PermissionError:
    return PermissionError(errno.EACCES, os.strerror(errno.EACCES), "/".join(names))


class _Entry(tarfile.TarInfo):
    """Tells an archive that is over from one that breaks off."""

    @classmethod
    def fromtarfile(cls, tarfile_: tarfile.TarFile) -> tarfile.TarInfo:  # type: ignore[override]
        try:
            return super().fromtarfile(tarfile_)
        except tarfile.EOFHeaderError:  # type: ignore[attr-defined]  # typeshed does not know it
            cast(_Tar, tarfile_).is_complete = True
            raise


class _Tar(tarfile.TarFile):
    tarinfo = _Entry
    is_complete = False


def _entries(archive: Readable) -> Iterator[tuple[tarfile.TarInfo, tuple[str, ...], Callable[[], BinaryIO]]]:
    """Each entry, the names on the way to it from what the archive is of, and what opens its content."""
    with _unreadable():
        source = cast(IO[bytes], archive)  # tarfile uses only the methods of `Readable`
        tar = _Tar.open(mode="r|", fileobj=source, bufsize=_BLOCK, encoding="utf-8", errors="surrogateescape")
    with contextlib.closing(tar):
        root: str | None = None
        while True:
            with _unreadable():
                entry = tar.next()
            tar.members = []  # type: ignore[attr-defined]  # it would keep every one
            if entry is None:
                break
            first, *names = entry.name.split("/")
            root = first if root is None else root
            if first != root or not first or {"", ".", ".."} & set(names):
                raise OSError(
                    errno.EIO, f"the engine's archive of {root} has an entry {entry.name!r}, which is not in it"
                )
            yield entry, tuple(names), lambda entry=entry: _content(tar, entry)  # type: ignore[misc]
        if not tar.is_complete:
            raise OSError(errno.EIO, "the engine's archive breaks off")


def _content(tar: tarfile.TarFile, entry: tarfile.TarInfo) -> BinaryIO:
    with _unreadable():
        opened = tar.extractfile(entry)
    assert opened is not None  # noqa: S101  # it is a regular file
    return cast(BinaryIO, _Content(opened))


class _Content(io.RawIOBase):
    """The content of a file in the archive, readable until the next entry begins."""

    def __init__(self, source: IO[bytes]) -> None:
        self._source = source

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        with _unreadable():
            found = self._source.read(len(buffer))
        buffer[: len(found)] = found
        return len(found)


@contextlib.contextmanager
def _unreadable() -> Iterator[None]:
    try:
        yield
    except (tarfile.TarError, ValueError, EOFError) as error:
        raise OSError(errno.EIO, f"the engine's archive cannot be read: {error}") from None
