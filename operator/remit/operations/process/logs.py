"""The output of a supervised process, kept in two halves, so that the older one can go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal

from remit.backends.base import Stream
from remit.backends.outputtimes import OutputTimes, RecordedTimes
from remit.errors import RemitError
from remit.telemetry.redact import Redactor

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")
_APPEND = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW


class RotatingOutput:
    """Keeps between a half of `max_bytes` and all of it of each stream, the latest; `secrets` never reach the disk.

    Beside each file is an index of [when it came](remit.backends.outputtimes), named by the file's inode: a file gets
    another name when it is full.
    """

    def __init__(self, folder: Path, max_bytes: int, secrets: Iterable[str] = ()) -> None:
        self._folder = folder
        self._half = max(1, max_bytes // 2)
        self._redactor = Redactor(secrets)
        self._shown = {name: self._redactor.stream() for name in STREAMS}
        self._times: dict[Stream, tuple[int, OutputTimes]] = {}

    def write(self, stream: Stream, chunk: bytes) -> None:
        self._put(stream, self._shown[stream].feed(chunk))

    def begin(self) -> None:
        """The program is started, for the first time or once more. Raises OSError."""
        for stream in STREAMS:
            descriptor = os.open(self._path(stream), _APPEND, 0o600)
            try:
                self._note(stream, os.fstat(descriptor), begins=True)
            finally:
                os.close(descriptor)

    def flush(self) -> None:
        """At the end of a run: what may have been the beginning of a secret."""
        for name in STREAMS:
            self._put(name, self._shown[name].finish())
            self._shown[name] = self._redactor.stream()

    def _put(self, stream: Stream, data: bytes) -> None:
        view = memoryview(data)
        while view:
            descriptor = os.open(self._path(stream), _APPEND, 0o600)
            try:
                status = os.fstat(descriptor)
                room = self._half - status.st_size
                if room > 0:
                    self._note(stream, status)
                    view = view[os.write(descriptor, view[:room]) :]
            finally:
                os.close(descriptor)
            if room <= 0:
                self._rotate(stream)

    def _rotate(self, stream: Stream) -> None:
        path = self._path(stream)
        older = path.with_name(f"{path.name}.1")
        with contextlib.suppress(FileNotFoundError):
            _index(self._folder, stream, older.stat().st_ino).unlink(missing_ok=True)
        path.replace(older)

    def _note(self, stream: Stream, status: os.stat_result, *, begins: bool = False) -> None:
        """`status` is of the file that is written to next."""
        inode, times = self._times.get(stream, (-1, None))
        if times is None or inode != status.st_ino:
            path = _index(self._folder, stream, status.st_ino)
            if not status.st_size:
                path.unlink(missing_ok=True)  # left by an earlier file with the same inode
            times = OutputTimes(path)
            self._times[stream] = status.st_ino, times
        times.note(status.st_size, begins=begins)

    def _path(self, stream: Stream) -> Path:
        return self._folder / f"{stream}.log"


Run = Literal["all", "current", "previous"]


@dataclass
class RotatingReader:
    """Reads one stream of the process whose folder this is, also while it is written to. `run`: that since the last
    start of the program, the one before it, or everything that is kept.

    Raises `NoPreviousRun` where there is none. `gaps` counts how often what was to be read next was removed before.
    """

    folder: Path
    stream: Stream
    run: Run = "all"
    gaps: int = 0
    position: int = 0
    """The position in the open file after the last read."""
    _file: BinaryIO | None = field(default=None, repr=False)
    _times: RecordedTimes | None = field(default=None, repr=False)
    _end: tuple[int, int] | None = None
    """The inode and the position of the first byte that is not to be read."""

    def __post_init__(self) -> None:
        if self.run != "all":
            self._seek()

    def read(self, limit: int = 1 << 20) -> bytes:
        """Return what has come since the last call, at most `limit` bytes; empty if nothing has come yet."""
        while True:
            # Checked before the read: a file is complete once a later one exists.
            files = [] if self._is_in_last() else _opened(self.folder, self.stream)
            try:
                data = self._read(limit)
                mine = self._inode()
                at = next((index for index, file in enumerate(files) if _inode(file) == mine), -1)
                if data or at + 1 >= len(files):
                    return data
                self.gaps += at < 0 and self._file is not None
                self._open(files.pop(at + 1))
            finally:
                for file in files:
                    file.close()

    def moment(self, position: int) -> float | None:
        """When the byte at `position` of the open file came, in seconds since 1970; None: it is not known."""
        return self._times.at(position) if self._times else None

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _read(self, limit: int) -> bytes:
        if self._file is None:
            return b""
        if self._end and self._is_in_last():
            limit = min(limit, self._end[1] - self.position)
        data = self._file.read(limit)
        self.position += len(data)
        return data

    def _inode(self) -> int | None:
        return _inode(self._file) if self._file else None

    def _is_in_last(self) -> bool:
        """Whether what is not to be read begins in the open file."""
        return self._end is not None and self._end[0] == self._inode()

    def _open(self, file: BinaryIO, position: int = 0) -> None:
        self.close()
        self._file, self.position = file, position
        file.seek(position)
        self._times = RecordedTimes(_index(self.folder, self.stream, _inode(file)))

    def _seek(self) -> None:
        files = _opened(self.folder, self.stream)
        inodes = [_inode(file) for file in files]
        begun = [
            (index, at)
            for index, inode in enumerate(inodes)
            for at in RecordedTimes(_index(self.folder, self.stream, inode)).beginnings()
        ]
        start = begun[-1] if begun else (0, 0)
        if self.run == "previous":
            before = begun[-2] if len(begun) > 1 else (0, 0)
            if not begun or (len(begun) == 1 and start == (0, 0)):
                for file in files:
                    file.close()
                raise NoPreviousRun("there is no previous run: the program was not restarted")
            self._end, start = (inodes[start[0]], start[1]), before
        for index, file in enumerate(files):
            if index == start[0]:
                self._open(file, start[1])
            else:
                file.close()


class NoPreviousRun(RemitError):
    """A program that was started once has no run before the present one."""


def _opened(folder: Path, stream: Stream) -> list[BinaryIO]:
    """A stream's files, the older one first."""
    # Opened first: if it is renamed meanwhile, it is found twice instead of never.
    newer = _try_open(folder / f"{stream}.log")
    older = _try_open(folder / f"{stream}.log.1")
    if newer and older and os.path.sameopenfile(newer.fileno(), older.fileno()):
        newer.close()
        newer = None
    return [file for file in (older, newer) if file is not None]


def _try_open(path: Path) -> BinaryIO | None:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW | os.O_NONBLOCK)
    except FileNotFoundError:
        return None
    return os.fdopen(descriptor, "rb", buffering=0)


def _inode(file: BinaryIO) -> int:
    return os.fstat(file.fileno()).st_ino


def _index(folder: Path, stream: Stream, inode: int) -> Path:
    return folder / f"{stream}.{inode}.times"


def tail(folder: Path, stream: Stream, count: int) -> str:
    """Returns the last `count` bytes of a stream as text, and no more if the program writes meanwhile."""
    found = b""
    for name in (f"{stream}.log", f"{stream}.log.1"):
        if missing := count - len(found):
            with contextlib.suppress(FileNotFoundError), (folder / name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - missing))
                found = file.read(missing) + found
    return found.decode(errors="replace")
