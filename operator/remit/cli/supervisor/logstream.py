"""Standard error behind a thread: who stops reading it, such as a pager or a full pipe, holds up nobody."""

from __future__ import annotations

import contextlib
import io
import os
import threading
from collections import deque
from typing import Final

import structlog

from remit.telemetry.logfile import LogFile

log = structlog.get_logger(__name__)

_MOST_BYTES: Final = 8 << 20
"""Limit of what waits to be read. Anything beyond it is dropped and counted."""


class LogStream(io.TextIOBase):
    """Writes to `descriptor`, or to `file`, what it is given, in that order and from a thread of its own."""

    def __init__(self, descriptor: int, most_bytes: int = _MOST_BYTES, file: LogFile | None = None) -> None:
        self._descriptor, self._most, self._file = descriptor, most_bytes, file
        self._waiting: deque[bytes] = deque()
        self._size = self._lost = 0
        self._news = threading.Condition()
        threading.Thread(target=self._carry, name="log stream", daemon=True).start()

    def isatty(self) -> bool:
        return self._file is None and os.isatty(self._descriptor)

    def write(self, text: str) -> int:
        """Never waits."""
        self.pass_on(text.encode(errors="backslashreplace"))
        return len(text)

    def pass_on(self, lines: bytes) -> None:
        """Write whole lines. Never waits."""
        with self._news:
            if self._size + len(lines) > self._most:
                self._lost += lines.count(b"\n")
                return
            self._waiting.append(lines)
            self._size += len(lines)
            self._news.notify_all()

    def drain(self, seconds: float) -> bool:
        """Wait until everything is written, but no longer than this. Whether it is."""
        with self._news:
            return self._news.wait_for(lambda: not self._size, seconds)

    def _carry(self) -> None:
        while True:
            with self._news:
                self._news.wait_for(lambda: self._waiting)
                lines = self._waiting.popleft()
            if self._file is not None:
                self._file.append(lines)
            with contextlib.suppress(OSError):  # there is no reader any more, but the process continues
                left = memoryview(lines if self._file is None else b"")
                while left:
                    left = left[os.write(self._descriptor, left) :]
            with self._news:
                self._size -= len(lines)
                lost, self._lost = (0, self._lost) if self._size else (self._lost, 0)
                self._news.notify_all()
            if lost:
                log.warning("lines of the log were lost, because nobody read standard error", lines=lost)
