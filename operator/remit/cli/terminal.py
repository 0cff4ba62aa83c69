"""Passes a program's output on. What a terminal would take for commands is made harmless there, unless raw is asked
for: a task's output must not be able to retitle, clear or drive the terminal of whoever looks at it."""

from __future__ import annotations

import codecs
import re
import sys
from typing import BinaryIO

from remit.api.executiontaskstatus import Stream
from remit.execution.output import STREAMS
from remit.telemetry import escape


class Screen:
    """Where the two streams of a run go: this process's own."""

    def __init__(self, *, raw: bool = False, streams: tuple[Stream, ...] = STREAMS) -> None:
        self.streams = streams
        self._out: dict[Stream, BinaryIO] = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
        self._safe = {
            stream: codecs.getincrementaldecoder("utf-8")("replace")
            for stream in STREAMS
            if self._out[stream].isatty() and not raw
        }

    def write(self, stream: Stream, data: bytes) -> None:
        if decoder := self._safe.get(stream):
            data = harmless(decoder.decode(data)).encode()
        self._out[stream].write(data)
        self._out[stream].flush()


def harmless(text: str) -> str:
    """`text` with all control characters but newlines and tabs written as escapes."""
    return re.sub(r"[^\n\t]+", lambda part: escape(part[0]), text.replace("\r\n", "\n"))


def counted(number: int, noun: str) -> str:
    """`1 record`, `2 records`."""
    return f"{number} {noun}{'' if number == 1 else 's'}"


def note(message: str) -> None:
    """Something for people, on standard error."""
    dim, plain = ("\x1b[2m", "\x1b[0m") if sys.stderr.isatty() else ("", "")
    sys.stderr.write(f"{dim}{escape(message)}{plain}\n")
    sys.stderr.flush()
