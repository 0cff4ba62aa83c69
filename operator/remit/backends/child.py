"""A child process on an event loop, started by the fork server: its streams, its end, and what ended it."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterable

from remit.backends.base import OutputSink
from remit.backends.outcome import ExitReason
from remit.backends.streams import OutputPipe, wide_pipe
from remit.sandbox import TELL_SECONDS, AttemptCgroup, ForkedProcess, Job, fork_server, sealed_memory

_DRAIN_SECONDS = 5.0


async def first_of(events: Iterable[asyncio.Event], timeout_seconds: float | None) -> None:
    """Wait until one of `events` is set, or until the time is over; None: for as long as it takes."""
    waiting = {asyncio.ensure_future(event.wait()) for event in events}
    try:
        await asyncio.wait(waiting, timeout=timeout_seconds, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for future in waiting:
            future.cancel()


class Child:
    """A started process, its two streams flowing to a sink. `sink_failed` is set if that raises."""

    def __init__(
        self, process: ForkedProcess, streams: tuple[OutputPipe, OutputPipe], transports: list[asyncio.ReadTransport]
    ) -> None:
        self._process = process
        self._streams = streams
        self._transports = transports
        self.exited = asyncio.Event()
        asyncio.get_running_loop().add_reader(process.fileno(), self._update)
        self._update()

    @classmethod
    async def start(
        cls,
        job: Callable[[tuple[int, int, int]], Job],
        stdin: bytes | int,
        sink: OutputSink,
        sink_failed: asyncio.Event,
        owner: int | None,
    ) -> Child:
        """Start what `job` gives for the descriptors of stdin, stdout and stderr. `stdin` is what it reads, or the pipe
        that it reads from. `owner` is the user that it becomes, if it becomes another: a program that opens /dev/stdout
        opens the pipe again, which is asked of its owner.

        Raises:
            OSError: the kernel refused a process or a descriptor. What is refused to the process comes as `failure`.
        """
        loop = asyncio.get_running_loop()
        streams = OutputPipe("stdout", sink, sink_failed.set), OutputPipe("stderr", sink, sink_failed.set)
        transports: list[asyncio.ReadTransport] = []
        with contextlib.ExitStack() as theirs, contextlib.ExitStack() as undo:
            pipes = []
            write_ends = []
            for _ in streams:
                read, write = wide_pipe()
                theirs.callback(os.close, write)
                pipes.append(undo.enter_context(os.fdopen(read, "rb", buffering=0)))
                if owner is not None:
                    os.fchown(write, owner, owner)
                write_ends.append(write)
            source = _source(stdin, owner)
            theirs.callback(os.close, source)
            process = fork_server().begin(job((source, write_ends[0], write_ends[1])))
            undo.callback(process.close)
            theirs.close()
            for pipe, stream in zip(pipes, streams, strict=True):  # the pipes are connected while the process is forked
                transport, _ = await loop.connect_read_pipe(lambda stream=stream: stream, pipe)  # type: ignore[misc]
                undo.callback(transport.close)
                transports.append(transport)
            await process.started()
            undo.pop_all()
        return cls(process, streams, transports)

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def cgroup(self) -> AttemptCgroup | None:
        """The cgroup of the child, if its job asked for one."""
        return self._process.cgroup

    @property
    def failure(self) -> OSError | None:
        """Why it could not be executed; or that the fork server died and took it along."""
        return self._process.failure

    @property
    def refused(self) -> bool:
        """Whether `failure` is that it could not be executed."""
        return self._process.refused

    @property
    def returncode(self) -> int | None:
        """The return code as subprocess defines it: negative is the signal that ended it, None while it runs and if it
        failed."""
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

    @property
    def result(self) -> object:
        """The result that its job sent back, if any."""
        return self._process.result

    def kill(self) -> None:
        """KILL, unless it has exited."""
        self._process.kill()

    def send_signal(self, number: signal.Signals) -> None:
        """Send it to the process that was started, unless it has exited."""
        self._process.send_signal(number)

    async def until_over(
        self, cancel: asyncio.Event, sink_failed: asyncio.Event, timeout_seconds: float
    ) -> ExitReason | None:
        """Wait for the exit, the timeout, a cancel or a sink that fails; None if the command ended by itself."""
        await first_of((self.exited, cancel, sink_failed), timeout_seconds)
        if self.exited.is_set():
            return None
        return ExitReason.CANCELLED if cancel.is_set() or sink_failed.is_set() else ExitReason.TIMED_OUT

    async def drain(self) -> None:
        """Wait for the end of both streams, but not for ever: something outside may hold a pipe open."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_DRAIN_SECONDS):
                for stream in self._streams:
                    await stream.drained.wait()

    async def death(self) -> None:
        """Wait for its end, after it was told to end. A fork server that does not tell of it is ended."""
        if self._process.pidfd >= 0:
            await self._exited_or_dead()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(TELL_SECONDS):
                await self.exited.wait()
        if not self.exited.is_set():
            self._process.end_server()
            await self.exited.wait()  # the kernel reports this by closing the fork server's end of the channel

    async def _exited_or_dead(self) -> None:
        loop, dead = asyncio.get_running_loop(), asyncio.Event()
        pidfd = os.dup(self._process.pidfd)
        loop.add_reader(pidfd, dead.set)
        try:
            await first_of((self.exited, dead), None)
        finally:
            loop.remove_reader(pidfd)
            os.close(pidfd)

    async def close(self) -> None:
        """Only after the exit."""
        asyncio.get_running_loop().remove_reader(self._process.fileno())
        for transport in self._transports:
            transport.close()
        if self._process.closes_slowly:
            await asyncio.to_thread(self._process.close)
        else:
            self._process.close()

    def _update(self) -> None:
        self._process.update()
        if self._process.ended:
            asyncio.get_running_loop().remove_reader(self._process.fileno())
            self.exited.set()


def _source(stdin: bytes | int, owner: int | None) -> int:
    if isinstance(stdin, int):
        if owner is not None:
            os.fchown(stdin, owner, owner)
        return os.dup(stdin)
    # A memory file and not a pipe: a write to it cannot block, and it cannot fail because the reader closes it early.
    return sealed_memory(stdin) if stdin else os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
