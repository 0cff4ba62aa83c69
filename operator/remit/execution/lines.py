"""Output as lines, with the moments at which they came: the last ones, those since a moment, or all."""

from __future__ import annotations

import datetime
from collections import deque
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Protocol

LONGEST_LINE: Final = 64 << 10
"""Bytes. A longer line is given in pieces, each as a line, so that a program cannot fill a reader's memory."""


class Reader(Protocol):
    """Reads one stream, as `OutputReader` and `RotatingReader` do."""

    gaps: int
    position: int

    def read(self, limit: int = ...) -> bytes: ...
    def moment(self, position: int) -> float | None: ...
    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Line:
    """`data` ends with a newline, unless nothing followed or it was too long. `gap`: before it something is left out,
    because more was written than is kept."""

    data: bytes
    time: datetime.datetime | None = None
    gap: bool = False


@dataclass
class LineReader:
    """The lines of one stream. `tail`: of what is there at first, only so many, the last; `since`: only those that came
    at that moment or later, and those of which it is not known."""

    reader: Reader
    tail: int | None = None
    since: datetime.datetime | None = None
    _rest: bytearray = field(default_factory=bytearray)
    _began: datetime.datetime | None = None
    """When the line that `_rest` begins came."""
    _gap: bool = False

    def lines(self, *, at_end: bool = False) -> Iterator[Line]:
        """The lines that have come since the last call. `at_end`: nothing more will, so an unfinished line counts."""
        found: Iterable[Line] = self._wanted(at_end)
        if self.tail is not None:
            found, self.tail = deque(found, maxlen=self.tail), None
        yield from found

    def close(self) -> None:
        self.reader.close()

    def _wanted(self, at_end: bool) -> Iterator[Line]:
        for line in self._read(at_end):
            if self.since is None or line.time is None or line.time >= self.since:
                yield line

    def _read(self, at_end: bool) -> Iterator[Line]:
        while data := self.reader.read():
            position = self.reader.position - len(data)
            if self.reader.gaps:
                if self._rest:
                    yield self._take()
                self._gap, self.reader.gaps = True, 0
            for piece in _split(data):
                if not self._rest:
                    self._began = _moment(self.reader.moment(position))
                position += len(piece)
                self._rest += piece
                if piece.endswith(b"\n") or len(self._rest) >= LONGEST_LINE:
                    yield self._take()
        if at_end and self._rest:
            yield self._take()

    def _take(self) -> Line:
        line = Line(bytes(self._rest), self._began, self._gap)
        self._rest.clear()
        self._gap = False
        return line


def last_lines(data: bytes, count: int | None) -> bytes:
    """The last `count` lines of `data`; None: all."""
    if count is None:
        return data
    lines = list(_split(data))
    return b"".join(lines[len(lines) - count :]) if count < len(lines) else data


def _split(data: bytes) -> Iterator[bytes]:
    """At newlines alone: a carriage return ends no line."""
    start = 0
    while (end := data.find(b"\n", start)) >= 0:
        yield data[start : end + 1]
        start = end + 1
    if start < len(data):
        yield data[start:]


def _moment(seconds: float | None) -> datetime.datetime | None:
    return None if seconds is None else datetime.datetime.fromtimestamp(seconds, datetime.UTC)
