"""Reads back what is kept of a run's output (see `output.py`), from the beginning, also while it is being written."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO

from remit.api.executiontaskstatus import Stream
from remit.backends.outputtimes import RecordedTimes
from remit.execution.output import kept_files, recorded_times, segment_bytes


def run_directory(state_dirs: Iterable[Path], namespace: str, uid: str, attempt_id: str) -> Path | None:
    """The folder with the output of an attempt, if an operator has its state in one of these folders of this machine,
    and it may be read."""
    for state_dir in state_dirs:
        directory = state_dir / "runs" / namespace / uid / attempt_id
        with contextlib.suppress(OSError):
            if directory.is_dir() and os.access(directory, os.R_OK | os.X_OK):
                return directory
    return None


@dataclass
class OutputReader:
    """One stream of the run in `directory`. Use as a context manager, or `close` it.

    A writer far ahead removes segments before they are read: then `gaps` counts up, and reading goes on with the
    oldest that is left.
    """

    directory: Path
    stream: Stream
    gaps: int = 0
    position: int = 0
    """The position in the whole stream after the last read."""
    _number: int = -1
    _file: BinaryIO | None = field(default=None, repr=False)
    _times: RecordedTimes = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self._times = recorded_times(self.directory, self.stream)

    def read(self, limit: int = 1 << 20) -> bytes:
        """Return what has come since the last call, at most `limit` bytes; empty if nothing has come yet."""
        while True:
            # Checked before the read: a segment is complete once a later one exists.
            following = self._following()
            data = self._file.read(limit) if self._file else b""
            self.position += len(data)
            if data or following is None:
                return data
            self._open(*following)

    def moment(self, position: int) -> float | None:
        """When the byte at `position` came, in seconds since 1970; None: it is not known."""
        return self._times.at(position)

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> OutputReader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _following(self) -> tuple[int, Path] | None:
        paths, _ = kept_files(self.directory, self.stream)
        numbered = ((0 if path.suffix == ".head" else int(path.suffix[1:]), path) for path in paths)
        return next(((number, path) for number, path in numbered if number > self._number), None)

    def _open(self, number: int, path: Path) -> None:
        # The segment was removed meanwhile; the next call finds a later one.
        with contextlib.suppress(FileNotFoundError):
            file = path.open("rb", buffering=0)
            self.close()
            self.gaps += number > self._number + 1
            self._file, self._number = file, number
            if number:
                head = (self.directory / f"{self.stream}.head").stat().st_size
                self.position = head + (number - 1) * segment_bytes(head)
