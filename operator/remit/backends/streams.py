"""The output of a child, read as it comes: big pipes, big chunks, nothing kept."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
from collections.abc import Callable

from remit.backends.base import OutputSink, Stream

PIPE_BYTES = 1024 * 1024
_FIRST_BYTES = 2048
_LAST_BYTES = 4096


class OutputPipe(asyncio.Protocol):
    """Hands each chunk of one stream to the sink and goes on draining, so that a child never blocks on a full pipe.

    `drained` is set at the end of the stream. `last_bytes` are where a program says what it failed of, `first_bytes`
    of stderr where bubblewrap says why it could not start a command. A sink that fails is called no more: `failure`
    keeps its error and `on_failure` is called.
    """

    def __init__(self, stream: Stream, sink: OutputSink, on_failure: Callable[[], None]) -> None:
        self._stream = stream
        self._sink = sink
        self._on_failure = on_failure
        self.failure: Exception | None = None
        self.first_bytes = b""
        self.last_bytes = b""
        self.drained = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        if len(self.first_bytes) < _FIRST_BYTES:
            self.first_bytes += data[: _FIRST_BYTES - len(self.first_bytes)]
        self.last_bytes = (self.last_bytes + data[-_LAST_BYTES:])[-_LAST_BYTES:]
        if self.failure is None:
            try:
                self._sink.write(self._stream, data)
            except Exception as error:  # an error such as a full disk must end the attempt, not the event loop's reader
                self.failure = error
                self._on_failure()

    def connection_lost(self, exc: Exception | None) -> None:
        self.drained.set()


def wide_pipe() -> tuple[int, int]:
    """A pipe of 1 MiB; an ordinary user with many of them may be refused that, and gets the kernel's default."""
    ends = os.pipe2(os.O_CLOEXEC)
    with contextlib.suppress(OSError):
        fcntl.fcntl(ends[0], fcntl.F_SETPIPE_SZ, PIPE_BYTES)
    return ends
