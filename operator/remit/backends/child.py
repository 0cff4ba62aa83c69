"""A child process on an event loop: subprocess and a pidfd, without asyncio's process-wide child watcher.

That watcher is one thread per child on Python 3.11, and belongs to whoever set the event loop policy.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Sequence

from remit.backends.base import OutputSink
from remit.backends.streams import OutputPipe, wide_pipe
from remit.sandbox import ProcessHandle, sealed_memory

_DRAIN_SECONDS = 5.0


class Child:
    """A started process, its two streams flowing to a sink. `sink_failed` is set if that raises."""

    def __init__(self, process: subprocess.Popen[bytes], stdout: OutputPipe, stderr: OutputPipe) -> None:
        self._process = process
        self._handle = ProcessHandle(process.pid)
        self._streams = (stdout, stderr)
        self._transports: list[asyncio.BaseTransport] = []
        self.exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(self._handle.descriptor, self._reap)

    @classmethod
    async def start(
        cls, argv: Sequence[str], pass_fds: Sequence[int], stdin: bytes, sink: OutputSink, sink_failed: asyncio.Event
    ) -> Child:
        """Start with an empty environment and `pass_fds` only.

        Raises:
            OSError: the kernel refused (E2BIG, EAGAIN, ENOMEM …).
        """
        loop = asyncio.get_running_loop()
        read_ends, write_ends = zip(wide_pipe(), wide_pipe(), strict=True)
        # Memory, not a pipe: no size can block and no early close can fail.
        source = sealed_memory(stdin) if stdin else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            process = subprocess.Popen(  # noqa: ASYNC220  # what asyncio does itself: vfork and exec, a millisecond
                argv, env={}, pass_fds=pass_fds, stdin=source, stdout=write_ends[0], stderr=write_ends[1]
            )
        except OSError:
            for descriptor in read_ends:
                os.close(descriptor)
            raise
        finally:
            for descriptor in (source, *write_ends):
                os.close(descriptor)
        stdout, stderr = (OutputPipe(name, sink, sink_failed.set) for name in ("stdout", "stderr"))
        child = cls(process, stdout, stderr)
        for descriptor, stream in zip(read_ends, (stdout, stderr), strict=True):
            pipe = os.fdopen(descriptor, "rb", buffering=0)
            transport, _ = await loop.connect_read_pipe(lambda stream=stream: stream, pipe)  # type: ignore[misc]
            child._transports.append(transport)
        return child

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def returncode(self) -> int | None:
        """As subprocess has it: negative is the signal that ended it, None while it runs."""
        return self._process.returncode

    @property
    def sink_failure(self) -> Exception | None:
        return next((stream.failure for stream in self._streams if stream.failure), None)

    @property
    def first_stderr(self) -> bytes:
        return self._streams[1].first_bytes

    def kill(self) -> None:
        """KILL, unless it has exited."""
        self._process.kill()

    async def drain(self) -> None:
        """Wait for the end of both streams, but not for ever: something outside may hold a pipe open."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                for stream in self._streams:
                    await stream.drained.wait()

    def close(self) -> None:
        """Only after the exit."""
        for transport in self._transports:
            transport.close()

    def _reap(self) -> None:
        if self._process.poll() is not None:
            asyncio.get_running_loop().remove_reader(self._handle.descriptor)
            self._handle.close()
            self.exited.set()
