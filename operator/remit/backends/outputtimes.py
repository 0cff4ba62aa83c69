"""When output came: an index beside the files of a stream, from a position in the stream to a moment.

The files hold the bytes of the program and nothing else. An entry of the index is 16 bytes, little-endian: how many
bytes the stream had, and nanoseconds since 1970, of which the lowest bit says that a run of the program began there.
The index has at most `MOST_ENTRIES`. Beyond that every second entry goes, and entries are made half as often.
"""

from __future__ import annotations

import bisect
import contextlib
import os
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from remit.privatefiles import replace_private

_ENTRY: Final = struct.Struct("<QQ")
MOST_ENTRIES: Final = 8192
_FIRST_APART: Final = 10_000_000
"""Nanoseconds between two entries."""


class OutputTimes:
    """Writes the index at `path`. What the disk refuses is missing from it."""

    def __init__(self, path: Path, clock: Callable[[], int] = time.time_ns) -> None:
        self._path, self._clock = path, clock
        self._apart, self._last, self._count = _FIRST_APART, 0, 0

    def note(self, position: int, *, begins: bool = False) -> None:
        """Note the time of the output that begins at `position`. `begins`: the program was started anew."""
        now = self._clock()
        # A clock that was set back also starts a new entry.
        if not begins and self._count and 0 <= now - self._last < self._apart:
            return
        self._last = now
        with contextlib.suppress(OSError):
            flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW
            descriptor = os.open(self._path, flags, 0o600)
            try:
                os.write(descriptor, _ENTRY.pack(position, now & ~1 | begins))
                self._count = os.fstat(descriptor).st_size // _ENTRY.size
            finally:
                os.close(descriptor)
            if self._count >= MOST_ENTRIES:
                self._thin_out()

    def _thin_out(self) -> None:
        entries = list(_ENTRY.iter_unpack(_whole(self._path.read_bytes())))
        begun = {index for index, (_, moment) in enumerate(entries) if moment & 1}
        begun = set(sorted(begun)[-MOST_ENTRIES // 4 :])
        kept = [entry for index, entry in enumerate(entries) if index % 2 == 0 or index in begun]
        replace_private(self._path, b"".join(_ENTRY.pack(*entry) for entry in kept), sync=False)
        self._apart, self._count = self._apart * 2, len(kept)


class RecordedTimes:
    """Reads the index at `path`, also while it is written to."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: tuple[int, int] = (-1, -1)
        self._positions: list[int] = []
        self._moments: list[int] = []

    def at(self, position: int) -> float | None:
        """When the byte at `position` came, in seconds since 1970; None: it is not known."""
        self._read()
        index = bisect.bisect_right(self._positions, position) - 1
        return self._moments[index] / 1e9 if index >= 0 else None

    def beginnings(self) -> list[int]:
        """The positions at which runs began."""
        self._read()
        return [at for at, moment in zip(self._positions, self._moments, strict=True) if moment & 1]

    def _read(self) -> None:
        with contextlib.suppress(OSError):
            status = self._path.stat()
            if (status.st_ino, status.st_size) == self._known:
                return
            entries = list(_ENTRY.iter_unpack(_whole(self._path.read_bytes())))
            self._known = status.st_ino, status.st_size
            self._positions, self._moments = [each[0] for each in entries], [each[1] for each in entries]


def _whole(content: bytes) -> bytes:
    return content[: len(content) // _ENTRY.size * _ENTRY.size]
