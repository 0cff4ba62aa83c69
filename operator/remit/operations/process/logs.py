"""The output of a supervised process, kept in two halves, so that the older one can go."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path

from remit.backends import Stream
from remit.telemetry.redact import Redactor

STREAMS: tuple[Stream, ...] = ("stdout", "stderr")


class RotatingOutput:
    """Keeps between a half of `max_bytes` and all of it of each stream, the latest; `secrets` never reach the disk."""

    def __init__(self, folder: Path, max_bytes: int, secrets: Iterable[str] = ()) -> None:
        self._folder = folder
        self._half = max(1, max_bytes // 2)
        self._redactor = Redactor(secrets)
        self._shown = {name: self._redactor.stream() for name in STREAMS}

    def write(self, stream: Stream, chunk: bytes) -> None:
        self._put(stream, self._shown[stream].feed(chunk))

    def flush(self) -> None:
        """At the end of a run: what may have been the beginning of a secret."""
        for name in STREAMS:
            self._put(name, self._shown[name].finish())
            self._shown[name] = self._redactor.stream()

    def _put(self, stream: Stream, data: bytes) -> None:
        path = self._folder / f"{stream}.log"
        view = memoryview(data)
        while view:
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
            try:
                room = self._half - os.fstat(descriptor).st_size
                if room > 0:
                    view = view[os.write(descriptor, view[:room]) :]
            finally:
                os.close(descriptor)
            if room <= 0:
                path.replace(f"{path}.1")


def tail(folder: Path, stream: Stream, count: int) -> str:
    """The last `count` bytes as text."""
    found = b""
    for name in (f"{stream}.log", f"{stream}.log.1"):
        if len(found) < count:
            with contextlib.suppress(FileNotFoundError), (folder / name).open("rb") as file:
                file.seek(max(0, file.seek(0, os.SEEK_END) - (count - len(found))))
                found = file.read() + found
    return found.decode(errors="replace")
