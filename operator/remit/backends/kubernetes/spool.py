"""The files that an attempt left, as its log tells them, on the operator's disk until they are collected.

`files.c` writes the records, and says there what they are. A node's log may lose lines when it is rotated, so blocks
may come in any order, twice, or not at all. What is handed out is whole and has the digest that the launcher computed.
"""

from __future__ import annotations

import base64
import errno
import hashlib
import io
import os
import tempfile
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final

from remit.backends.base import JOB_ARTIFACT_BYTES, KeptFiles
from remit.backends.filetree import FoundFile, TooMuch, too_deep, too_many_names
from remit.diskspace import nearly_full, no_space_left

RECORDS: Final = frozenset({b"a", b"b", b"c", b"n"})
_BLOCK_BYTES: Final = 5952
_MOST_FILES: Final = 50_001
_MOST_PATTERNS: Final = 32
"""Each may tell of one file more than that, as what was too much."""
_MOST_NUMBER: Final = _MOST_FILES + _MOST_PATTERNS - 1
_MOST_NAME_BYTES: Final = 4096
"""Limit of one path, the same as in `files.c`."""
_MOST_NAMES_BYTES: Final = 16 << 20
"""Limit of all paths together, which are kept in memory."""
_MOST_BLOCKS: Final = 2 * (JOB_ARTIFACT_BYTES // _BLOCK_BYTES + _MOST_FILES)
_MOST_ERRNO: Final = 4095
_LOOK_BYTES: Final = 4 << 20
"""After which it is looked again whether the disk is full."""
_LOST: Final = (
    "a part of it did not arrive: the node rotated its log away before it was read, or ended it; try again, or write"
    " large files into a workspace"
)
_TOTAL: Final = (
    f"an attempt's artifacts have more than {JOB_ARTIFACT_BYTES >> 20} MiB together, which is all that a Job keeps;"
    " write large files into a workspace"
)
_NAMES: Final = (
    f"the names of what an attempt left have more than {_MOST_NAMES_BYTES >> 20} MiB together; keep an archive of them"
)


@dataclass(slots=True)
class _File:
    pattern: int
    path: str
    size: int
    executable: bool
    blocks: dict[int, tuple[int, int]] = field(default_factory=dict)
    """Where each is in the spool, and how many bytes it has."""
    had: int = 0
    sha256: str = ""
    """Empty: not told yet."""

    @property
    def is_whole(self) -> bool:
        return bool(self.sha256) and self.had == self.size


@dataclass(frozen=True, slots=True)
class _End:
    """The end of a pattern's files: how many it matched, and why not all were reported."""

    count: int
    why: str
    number: int


class Spool:
    """Takes the records of files that `wanted` asks for. Its file in `folder` has no name, and goes with the last
    one that has this."""

    def __init__(self, wanted: Sequence[KeptFiles], folder: Path | None = None) -> None:
        """Raises OSError."""
        self._wanted = tuple(wanted)
        self._files: dict[int, _File] = {}
        self._numbers: list[set[int]] = [set() for _ in self._wanted]
        """Those of the files of each pattern, and those of them that are not whole: looking through all files for each
        piece of a log would take minutes."""
        self._missing: list[set[int]] = [set() for _ in self._wanted]
        self._ends: dict[int, _End] = {}
        self._length = self._blocks = self._names_bytes = 0
        self._error: OSError | None = None
        """Why no more was kept."""
        self._content = _unnamed_file(self, folder) if wanted else -1

    @property
    def descriptor(self) -> int:
        return self._content

    def take(self, kind: bytes, text: bytes) -> bool:
        """One record. Whether it is one; what is told again changes nothing that is whole."""
        try:
            numbers = text.split(b" ")
            match kind:
                case b"a":
                    self._begin(*numbers)
                case b"b":
                    self._add(*numbers)
                case b"c":
                    self._close_file(*numbers)
                case _:
                    self._end(*numbers)
        except (ValueError, TypeError):
            return False
        return True

    def _begin(self, pattern: bytes, number: bytes, executable: bytes, size: bytes, path: bytes) -> None:
        which, at = _number(number, _MOST_NUMBER), _number(pattern, len(self._wanted) - 1)
        raw = base64.b64decode(path, validate=True)
        if len(raw) > _MOST_NAME_BYTES:
            raise ValueError(len(raw))
        name, length = os.fsdecode(raw), _number(size)
        known = self._files.get(which)
        if known is None or (known.pattern, known.path) != (at, name):
            self._names_bytes += len(raw) - (len(os.fsencode(known.path)) if known else 0)
            if self._names_bytes > _MOST_NAMES_BYTES:
                self._error = self._error or TooMuch(errno.EFBIG, _NAMES)
            if self._error is not None:
                return
            if known is not None:
                self._numbers[known.pattern].discard(which)
                self._missing[known.pattern].discard(which)
            self._files[which] = _File(at, name, length, executable == b"1")
            self._numbers[at].add(which)
            self._missing[at].add(which)
        elif not known.is_whole:
            known.size, known.executable = length, executable == b"1"
            self._look_at(which, known)

    def _look_at(self, which: int, file: _File) -> None:
        if file.is_whole:
            self._missing[file.pattern].discard(which)

    def _add(self, number: bytes, block: bytes, text: bytes) -> None:
        which, at = _number(number, _MOST_NUMBER), _number(block, JOB_ARTIFACT_BYTES // _BLOCK_BYTES)
        file = self._files.get(which)
        if file is None or file.is_whole or at in file.blocks:
            return
        content = base64.b64decode(text, validate=True)
        if not 0 < len(content) <= _BLOCK_BYTES or self._blocks >= _MOST_BLOCKS:
            raise ValueError(len(content))
        if self._length + len(content) > 2 * JOB_ARTIFACT_BYTES or not self._write(content):
            return
        file.blocks[at] = self._length, len(content)
        file.had += len(content)
        self._length += len(content)
        self._blocks += 1
        self._look_at(which, file)

    def _write(self, content: bytes) -> bool:
        try:
            if self._error is None and self._length % _LOOK_BYTES < len(content) and nearly_full(self._content):
                self._error = no_space_left()
            if self._error is None:
                os.pwrite(self._content, content, self._length)
        except OSError as error:
            self._error = error
        return self._error is None

    def _close_file(self, number: bytes, size: bytes, sha256: bytes) -> None:
        which = _number(number, _MOST_NUMBER)
        file = self._files.get(which)
        if file is not None and not file.is_whole:
            file.size, file.sha256 = _number(size), sha256.decode("ascii")
            self._look_at(which, file)

    def _end(self, pattern: bytes, count: bytes, why: bytes, number: bytes) -> None:
        end = _End(_number(count, _MOST_FILES), why.decode("ascii"), _number(number, _MOST_ERRNO))
        self._ends[_number(pattern, len(self._wanted) - 1)] = end

    @property
    def is_whole(self) -> bool:
        """Whether nothing is to come that has not come already."""
        return self._error is not None or all(self._has_all_of(number) for number in range(len(self._wanted)))

    def _has_all_of(self, number: int) -> bool:
        end = self._ends.get(number)
        if end is None:
            return False
        numbers, missing = self._numbers[number], self._missing[number]
        if len(numbers) < max(end.count, end.why in {"large", "total"}):
            return False
        # Only the last part may be missing, because it may be the one that exceeded the limit.
        return not missing or (end.why != "-" and missing == {max(numbers)})

    def _of(self, number: int) -> list[_File]:
        return [self._files[which] for which in sorted(self._numbers[number])]

    def knows(self, pattern: str) -> bool:
        """Whether files of `pattern` were asked for, and the program's end was one that they are told of."""
        return any(each.pattern == pattern and self._was_told(at) for at, each in enumerate(self._wanted))

    def _was_told(self, number: int) -> bool:
        end = self._ends.get(number)
        return end is not None and end.why != "skipped"

    def find(self, pattern: str) -> Iterator[FoundFile]:
        """See `FileTree.find`. Raises OSError for what did not arrive, and `TooMuch`."""
        numbers = [at for at, each in enumerate(self._wanted) if each.pattern == pattern]
        if not numbers:
            return
        number = next(filter(self._was_told, numbers), numbers[0])
        if self._error is not None:
            raise self._error
        if not self._has_all_of(number):
            raise OSError(errno.EIO, _LOST)
        end, files = self._ends[number], self._of(number)
        for file in files if end.why != "large" else files[:-1]:
            if not (end.why == "total" and file is files[-1]):
                yield _Spooled(file, self)
        if end.why == "large":
            yield _TooLarge(files[-1], self)
        elif end.why != "-":
            raise _error(end)


def _error(end: _End) -> OSError:
    match end.why:
        case "names":
            return too_many_names()
        case "depth":
            return too_deep("")
        case "total":
            return TooMuch(errno.EFBIG, _TOTAL)
    return OSError(end.number, os.strerror(end.number))


@dataclass(frozen=True, slots=True)
class _Spooled:
    _file: _File
    _spool: Spool

    @property
    def path(self) -> str:
        return self._file.path

    @property
    def size(self) -> int:
        return self._file.size

    @property
    def executable(self) -> bool:
        return self._file.executable

    def open(self) -> BinaryIO:
        return io.BufferedReader(_Blocks(self._file, self._spool))


class _TooLarge(_Spooled):
    """More than may be kept, of which nothing was told."""

    @property
    def size(self) -> int:
        return 1 << 62


class _Blocks(io.RawIOBase):
    """A file's content. Raises OSError at its end where it has another digest than the launcher's."""

    def __init__(self, file: _File, spool: Spool) -> None:
        super().__init__()
        self._file, self._spool = file, spool
        self._next, self._rest, self._hash = 0, b"", hashlib.sha256()

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        if not self._rest and self._next in self._file.blocks:
            position, length = self._file.blocks[self._next]
            self._rest = os.pread(self._spool.descriptor, length, position)
            self._hash.update(self._rest)
            self._next += 1
        if not self._rest and self._hash.hexdigest() != self._file.sha256:
            raise OSError(errno.EIO, "a file has changed while it was collected, or arrived damaged")
        some = self._rest[: len(buffer)]
        buffer[: len(some)] = some
        self._rest = self._rest[len(some) :]
        return len(some)


def _unnamed_file(user: object, folder: Path | None) -> int:
    """A descriptor that is closed when nobody has `user` any more: a thread may read on when others have given up."""
    descriptor, path = tempfile.mkstemp(prefix="remit-", dir=folder)
    Path(path).unlink()
    weakref.finalize(user, os.close, descriptor)
    return descriptor


def _number(text: bytes, most: int = (1 << 63) - 1) -> int:
    number = int(text)
    if not 0 <= number <= most:
        raise ValueError(number)
    return number
