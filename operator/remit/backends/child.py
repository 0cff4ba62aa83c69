"""A child process on an event loop, started by the fork server: its streams, its end, and what ended it."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable

from remit.backends.base import OutputSink
from remit.backends.streams import OutputPipe, wide_pipe
from remit.sandbox import Execute, ForkedProcess, fork_server, sealed_memory

_DRAIN_SECONDS = 5.0


class Child:
    """A started process, its two streams flowing to a sink. `sink_failed` is set if that raises."""

    def __init__(self, process: ForkedProcess, stdout: OutputPipe, stderr: OutputPipe) -> None:
        self._process = process
        self._streams = (stdout, stderr)
        self._transports: list[asyncio.BaseTransport] = []
        self.exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(process.fileno(), self._update)
        self._update()

    @classmethod
    async def start(
        cls,
        job: Callable[[tuple[int, int, int]], Execute],
        stdin: bytes,
        sink: OutputSink,
        sink_failed: asyncio.Event,
    ) -> Child:
        """Start what `job` gives for the descriptors of stdin, stdout and stderr.

        Raises:
            OSError: the kernel refused a process or a descriptor. What is refused to the process comes as `failure`.
        """
        loop = asyncio.get_running_loop()
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as undo:
            read_ends, write_ends = zip(wide_pipe(), wide_pipe(), strict=True)
            for ours, other in zip(read_ends, write_ends, strict=True):
                undo.callback(os.close, ours)
                theirs.callback(os.close, other)
            # Memory, not a pipe: no size can block and no early close can fail.
            source = sealed_memory(stdin) if stdin else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
            theirs.callback(os.close, source)
            process = fork_server().begin(job((source, write_ends[0], write_ends[1])))
            undo.callback(process.close)
            theirs.close()
            await process.started()
            undo.pop_all()
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
    def failure(self) -> OSError | None:
        """Why it could not be executed; or that the fork server died and took it along."""
        return self._process.failure

    @property
    def returncode(self) -> int | None:
        """As subprocess has it: negative is the signal that ended it, None while it runs and if it failed."""
        return self._process.returncode

    @property
    def sink_failure(self) -> Exception | None:
        return next((stream.failure for stream in self._streams if stream.failure), None)

    @property
    def last_stderr(self) -> bytes:
        return self._streams[1].last_bytes

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
        asyncio.get_running_loop().remove_reader(self._process.fileno())
        self._process.close()
        for transport in self._transports:
            transport.close()

    def _update(self) -> None:
        self._process.update()
        if self._process.ended:
            asyncio.get_running_loop().remove_reader(self._process.fileno())
            self.exited.set()
