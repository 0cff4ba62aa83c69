"""What a task writes, from the files that its operator keeps on this machine, while it runs."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remit.api import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, Stream
from remit.errors import InvalidInput, RemitError
from remit.execution.output import RAW, STREAMS
from remit.execution.reading import OutputReader, run_directory

POLL_SECONDS: Final = 0.1
"""How often the files of a run in progress are looked at."""
_PIECE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of what attempt number `attempt` wrote. Before it something is left out, if there is a `gap`: more was
    written than is kept."""

    attempt: int
    stream: Stream
    data: bytes
    gap: bool = False

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


class TaskLogs:
    """Of one task. `state_dirs` are folders of this machine in which its operator may have its state."""

    def __init__(self, state_dirs: Sequence[Path], streams: Sequence[Stream] = STREAMS) -> None:
        """Raises `InvalidInput` for a stream that there is not."""
        if unknown := sorted(set(streams) - set(STREAMS)):
            raise InvalidInput(f"{unknown[0]!r} is no stream; there are: {', '.join(STREAMS)}", field="streams")
        self._state_dirs, self._streams = state_dirs, streams

    async def once(self, task: ExecutionTask, number: int | None) -> AsyncGenerator[LogChunk, None]:
        """What there is now of attempt `number`, or of the latest. Raises as `RemitClient.logs` does."""
        attempt = _chosen(task, number)
        reading = self._open(task, attempt) if attempt else None
        if reading is not None:
            with contextlib.closing(reading):
                async for chunk in reading.news():
                    yield chunk

    async def follow(
        self, states: AsyncGenerator[ExecutionTask, None], number: int | None
    ) -> AsyncGenerator[LogChunk, None]:
        """Each attempt from `number` on, or from the latest, until the task is finished. `states` are those that the
        task comes to."""
        newest = _Newest()
        watching = asyncio.create_task(newest.keep(states))
        opened: dict[int, _Reading] = {}
        done: set[int] = set()
        try:
            attempt = _chosen(await newest.changed(), number)
            first = attempt.number if attempt else 1
            while True:
                task = newest.task()
                for attempt in task.status.attempts:
                    if attempt.number < first or attempt.number in done:
                        continue
                    reading = opened.get(attempt.number) or self._open(task, attempt)
                    if reading is not None:
                        opened[attempt.number] = reading
                        async for chunk in reading.news():
                            yield chunk
                    if attempt.finished_at is not None:  # before it was read, so that it was read to the end
                        done.add(attempt.number)
                        if reading is not None:
                            opened.pop(attempt.number).close()
                if task.status.phase is not None and task.status.phase.final:
                    return
                # An attempt is in status before it is on the disk.
                going = any(attempt.finished_at is None for attempt in task.status.attempts)
                await newest.changed(POLL_SECONDS if going else None)
        finally:
            for reading in opened.values():
                reading.close()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _open(self, task: ExecutionTask, attempt: AttemptStatus) -> _Reading | None:
        """None where there is nothing to read, or not yet."""
        metadata = task.metadata
        directory = run_directory(self._state_dirs, metadata.namespace, metadata.uid, attempt.id)
        if directory is not None:
            return _Reading(directory / RAW if task.spec.output.raw else directory, attempt.number, self._streams)
        output, latest = task.status.output, task.status.attempts[-1].number == attempt.number
        is_silent = latest and output is not None and not output.stdout_bytes and not output.stderr_bytes
        is_to_come = attempt.finished_at is None and any((folder / "runs").is_dir() for folder in self._state_dirs)
        if is_silent or is_to_come:
            return None
        raise RemitError(
            f"the output of attempt {attempt.number} of task {task.key} is kept on the operator's host, and not here,"
            " or it is gone; read it there, name the operator's folder with state_dir, or use output() for its end"
        )


def _chosen(task: ExecutionTask, number: int | None) -> AttemptStatus | None:
    attempts = task.status.attempts
    if number is None:
        return attempts[-1] if attempts else None
    for attempt in attempts:
        if attempt.number == number:
            return attempt
    there = ", ".join(str(attempt.number) for attempt in attempts) or "none"
    raise InvalidInput(f"task {task.key} has no attempt {number} in its status; there are: {there}", field="attempt")


class _Newest:
    """The newest state of a task."""

    def __init__(self) -> None:
        self._task: ExecutionTask | None = None
        self._error: BaseException | None = None
        self._came = asyncio.Event()

    async def keep(self, states: AsyncGenerator[ExecutionTask, None]) -> None:
        try:
            async with contextlib.aclosing(states):
                async for self._task in states:
                    self._came.set()
        except Exception as error:  # for whoever waits
            self._error = error
            self._came.set()

    def task(self) -> ExecutionTask:
        if self._error is not None:
            raise self._error
        assert self._task is not None  # noqa: S101  # it changed once
        return self._task

    async def changed(self, within: float | None = None) -> ExecutionTask:
        """Its state after the next change, or when so many seconds are over."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._came.wait()
        self._came.clear()
        return self.task()


class _Reading:
    """Of the files of one attempt. They are on a disk of this machine, and read a little at a time."""

    def __init__(self, directory: Path, attempt: int, streams: Sequence[Stream]) -> None:
        self._attempt = attempt
        self._readers = {stream: OutputReader(directory, stream) for stream in streams}

    async def news(self) -> AsyncGenerator[LogChunk, None]:
        """What has come since, of each stream in turn."""
        left = set(self._readers)
        while left:
            for stream, reader in self._readers.items():
                if stream not in left:
                    continue
                if data := reader.read(_PIECE):
                    gap, reader.gaps = reader.gaps > 0, 0
                    yield LogChunk(self._attempt, stream, data, gap)
                    await asyncio.sleep(0)  # others have their turn, whatever the reader does
                else:
                    left.discard(stream)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
