"""The log of an attempt's container: records of what its program said, and of how it ended. Pure.

`launch.c` writes them, and says there what they are. The kubelet puts the time in front of each when it is asked to.
"""

from __future__ import annotations

import base64
import itertools
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import orjson

from remit.backends.base import Stream
from remit.backends.kubernetes.spool import RECORDS, Spool

_STREAMS: Final[dict[bytes, tuple[Stream, bytes]]] = {
    b"o": ("stdout", b"\n"),
    b"O": ("stdout", b""),
    b"e": ("stderr", b"\n"),
    b"E": ("stderr", b""),
}
_STAMP: Final = re.compile(rb"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_END: Final = b"="
_PROGRAM_END: Final = b"+"
_RESULT: Final = b"r"
_MOST_ERRNO: Final = 4095
MOST_RESULTS: Final = 32
"""As `launch.c` has it."""
MOST_BYTES: Final = 65536
"""Limit of one line of the log. The launcher's lines have at most an eighth of it."""


@dataclass(frozen=True, slots=True)
class Ended:
    """How the program ended, and what was used. `error` says why it could not be started: `exec`,
    `chdir` or `stdin`, with the system's `errno`."""

    exit_code: int
    signal: int
    stdout_bytes: int
    stderr_bytes: int
    cpu_seconds: float
    max_memory_bytes: int
    oom_kills: int
    throttled_seconds: float
    max_tasks: int
    error: str = ""
    errno: int = 0
    more: bool = False
    """Whether its files are told once more."""


@dataclass(slots=True)
class Records:
    """The records of a log, read in pieces; from the beginning again after `again`, and then only what is new.

    The node's clock puts a time on each line, and several lines may have the same one.
    """

    ended: Ended | None = None
    """The last record."""
    program_ended: Ended | None = None
    """The same, before its files are told."""
    spool: Spool = field(default_factory=lambda: Spool(()))
    """Takes its files."""
    received: dict[Stream, int] = field(default_factory=lambda: {"stdout": 0, "stderr": 0})
    """Bytes of each."""
    results: dict[int, bytes | int] = field(default_factory=dict)
    """The beginning of each file that was asked for and is there, or the number of the error that kept it from being
    read, by its place among those that were asked for."""
    unexpected: bytes = b""
    """What is no record: the words of a container runtime that could not start the launcher."""
    last: str = ""
    """The time on the last line that was taken; empty: none was."""
    _same: int = 0
    """How many lines with that time were taken."""
    _again: int | None = None
    """While it is read again: how many lines of the time `last` are known."""
    _rest: bytes = b""

    def again(self) -> None:
        """Prepare for a log that is read anew, from `last` or before."""
        self._again, self._rest = self._same, b""

    @property
    def since(self) -> str:
        """The second of `last`, in UTC: a node tells its own time, and whole seconds are what can be asked for."""
        return f"{datetime.fromisoformat(self.last).astimezone(UTC):%FT%TZ}"

    def feed(self, chunk: bytes) -> Iterator[tuple[Stream, bytes]]:
        """Yield what is new in a piece of the log, in the order in which it was written."""
        said = itertools.groupby(self._new(chunk), key=lambda each: each[0])
        return ((stream, b"".join(text for _, text in pieces)) for stream, pieces in said)

    def _new(self, chunk: bytes) -> Iterator[tuple[Stream, bytes]]:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        if len(self._rest) > MOST_BYTES:
            self._rest = self._rest[:MOST_BYTES]
        for line in lines:
            stamp, _, record = line.partition(b" ")
            if not _STAMP.fullmatch(stamp):  # a message of the kubelet, such as that the log is gone
                self._keep_unexpected(line)
            elif self._is_new(stamp.decode()):
                yield from self._take(record)

    def _is_new(self, stamp: str) -> bool:
        if self._again is not None:
            if stamp < self.last:
                return False
            if stamp == self.last and self._again > 0:
                self._again -= 1
                return False
            self._again = None
        self._same = self._same + 1 if stamp == self.last else 1
        self.last = stamp
        return True

    def _take(self, record: bytes) -> Iterator[tuple[Stream, bytes]]:
        kind, text = record[:1], record[2:]
        if kind in _STREAMS and record[1:2] == b" ":
            stream, end = _STREAMS[kind]
            said = text + end
            self.received[stream] += len(said)
            yield stream, said
        elif kind == _RESULT and (result := _result(text)) is not None:
            self.results[result[0]] = result[1]
        elif kind in RECORDS and record[1:2] == b" " and self.spool.take(kind, text):
            pass
        elif kind in {_END, _PROGRAM_END} and (ended := _ended(text)) is not None:
            self.program_ended = ended
            self.ended = ended if kind == _END else self.ended
        else:
            self._keep_unexpected(record)

    def _keep_unexpected(self, line: bytes) -> None:
        if len(self.unexpected) < MOST_BYTES:
            self.unexpected += line + b"\n"

    @property
    def how_it_ended(self) -> Ended | None:
        """By what is known so far."""
        return self.ended or self.program_ended

    @property
    def are_over(self) -> bool:
        """Whether nothing is to come that anybody needs."""
        return self.ended is not None and (self.spool.is_whole or not self.ended.more)

    @property
    def lost_bytes(self) -> int:
        """How much the program said that the log had no longer when it was read. Known once it has ended."""
        ended = self.how_it_ended
        if ended is None:
            return 0
        return max(0, ended.stdout_bytes + ended.stderr_bytes - sum(self.received.values()))


def _result(text: bytes) -> tuple[int, bytes | int] | None:
    which, _, content = text.partition(b" ")
    try:
        number = _number(int(which), 0, MOST_RESULTS - 1)
        if content.startswith(b"!"):
            return number, _number(int(content[1:]), 1, _MOST_ERRNO)
        return number, base64.b64decode(content, validate=True)
    except ValueError:
        return None


def _number(value: Any, least: int = -1, most: int = (1 << 63) - 1) -> int:
    if not isinstance(value, int) or not least <= value <= most:
        raise ValueError(value)
    return value


def _ended(text: bytes) -> Ended | None:
    try:
        found: dict[str, Any] = orjson.loads(text)
        return Ended(
            exit_code=_number(found["exitCode"], 0, 255),
            signal=_number(found["signal"]),
            stdout_bytes=_number(found["stdoutBytes"]),
            stderr_bytes=_number(found["stderrBytes"]),
            cpu_seconds=_number(found["cpuMicroseconds"]) / 1e6,
            max_memory_bytes=_number(found["maxMemoryBytes"]),
            oom_kills=_number(found["oomKills"]),
            throttled_seconds=_number(found["throttledMicroseconds"]) / 1e6,
            max_tasks=_number(found["maxTasks"]),
            error=str(found["error"]),
            errno=_number(found["errno"], 0, _MOST_ERRNO),
            more=bool(_number(found.get("more", 0))),
        )
    except (ValueError, KeyError, TypeError):
        return None
