"""Passes a program's output on. What a terminal would take for commands is made harmless there, unless raw is asked
for: a task's output must not be able to retitle, clear or drive the terminal of whoever looks at it."""

from __future__ import annotations

import codecs
import os
import re
import sys
import zlib
from typing import BinaryIO, Final, Protocol

from remit.api.executiontaskstatus import Stream
from remit.execution.output import STREAMS
from remit.telemetry.logs import escape


class LogWriter(Protocol):
    """Takes what programs wrote, as a `Screen` does."""

    streams: tuple[Stream, ...]

    def write(self, stream: Stream, data: bytes) -> None: ...
    def write_line(self, stream: Stream, prefix: bytes, line: bytes) -> None: ...
    def has_colors(self, stream: Stream) -> bool: ...


class Screen:
    """Writes the two streams of a run to those of this process."""

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

    def write_line(self, stream: Stream, prefix: bytes, line: bytes) -> None:
        """One line, after `prefix`, which goes to the terminal as it is. `line` needs no newline."""
        line = line.removesuffix(b"\n")
        if stream in self._safe:
            line = harmless(line.decode(errors="replace")).encode()
        # Written in one call, so that lines of other writers do not interrupt it.
        self._out[stream].write(prefix + line + b"\n")
        self._out[stream].flush()

    def has_colors(self, stream: Stream) -> bool:
        """Whether it is a terminal, on which nobody objects to colours (https://no-color.org)."""
        plain = os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb"
        return self._out[stream].isatty() and not plain


_COLORS: Final = (36, 33, 32, 35, 34, 96, 93, 92, 95, 94)
"""ANSI codes of foreground colours, without red, which means errors."""


class Labelled:
    """A screen on which each line begins with `label`, in a colour of its own on a terminal: the same each time."""

    def __init__(self, screen: LogWriter, label: str) -> None:
        self.streams = screen.streams
        self._screen = screen
        text = f"[{escape(label)}] "
        color = _COLORS[zlib.crc32(label.encode()) % len(_COLORS)]
        self._label: dict[Stream, bytes] = {
            stream: (f"\x1b[{color}m{text}\x1b[0m" if screen.has_colors(stream) else text).encode()
            for stream in STREAMS
        }

    def write(self, stream: Stream, data: bytes) -> None:
        """Whole lines: what does not end with a newline gets one."""
        for line in data.removesuffix(b"\n").split(b"\n") if data else ():
            self._screen.write_line(stream, self._label[stream], line)

    def write_line(self, stream: Stream, prefix: bytes, line: bytes) -> None:
        """One line, after `prefix`, which goes to the terminal as it is."""
        self._screen.write_line(stream, self._label[stream] + prefix, line)

    def has_colors(self, stream: Stream) -> bool:
        return self._screen.has_colors(stream)


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
