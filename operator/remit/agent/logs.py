"""Reads the output of a task from the files that its operator keeps on this machine, while it runs."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncGenerator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, Stream
from remit.errors import InvalidInput, RemitError
from remit.execution.lines import LineReader, Reader
from remit.execution.output import RAW, STREAMS
from remit.execution.reading import OutputReader, run_directory
from remit.operations.process.logs import NoPreviousRun, RotatingReader, Run
from remit.operations.process.record import supervisor_lives

POLL_SECONDS: Final = 0.1
"""How often the files of a run in progress are looked at."""
_PIECE: Final = 64 << 10


@dataclass(frozen=True, slots=True)
class LogChunk:
    """A piece of what attempt number `attempt` wrote, 0 for a process. Before it something is left out, if there is a
    `gap`: more was written than is kept. `time` is that of a line, where lines were asked for and it is known; `source`
    is such as `process/web`, and empty for a task."""

    attempt: int
    stream: Stream
    data: bytes
    gap: bool = False
    time: datetime.datetime | None = None
    source: str = ""

    @property
    def text(self) -> str:
        return self.data.decode(errors="replace")


@dataclass(frozen=True, slots=True)
class Wanted:
    """The wanted part of an output: of each stream the last `tail` lines of what is there at first, and those that came
    `since` a moment. With either, or with `lines`, each chunk is a line. Raises `InvalidInput`."""

    streams: Sequence[Stream] = STREAMS
    tail: int | None = None
    since: datetime.datetime | None = None
    lines: bool = False

    def __post_init__(self) -> None:
        if unknown := sorted(set(self.streams) - set(STREAMS)):
            raise InvalidInput(f"{unknown[0]!r} is no stream; there are: {', '.join(STREAMS)}", field="streams")
        if self.tail is not None and self.tail < 0:
            raise InvalidInput(f"{self.tail} is not a number of lines of 0 or more", field="tail")
        if self.since is not None and self.since.tzinfo is None:
            raise InvalidInput("has no time zone; give one, such as datetime.UTC", field="since")

    @property
    def by_line(self) -> bool:
        return self.lines or self.tail is not None or self.since is not None


async def process_logs(
    folders: Mapping[str, Path], wanted: Wanted, run: Run, *, follow: bool
) -> AsyncGenerator[LogChunk, None]:
    """Yield the output of supervised processes, each by its `source`; with `follow` until their supervisors have ended.

    Raises `InvalidInput` where there is no such run of one.
    """
    opened: dict[str, Reading] = {}
    try:
        for source, folder in folders.items():
            try:
                readers = {stream: RotatingReader(folder, stream, run) for stream in wanted.streams}
            except NoPreviousRun as error:
                raise InvalidInput(f"{source}: {error}", field="previous") from None
            opened[source] = Reading(readers, 0, wanted, source)
        while opened:
            for source, reading in list(opened.items()):
                at_end = not follow or run == "previous" or not supervisor_lives(folders[source])
                async for chunk in reading.news(at_end=at_end):
                    yield chunk
                if at_end:
                    opened.pop(source).close()
            if opened:
                await asyncio.sleep(POLL_SECONDS)
    finally:
        for reading in opened.values():
            reading.close()


class TaskLogs:
    """The logs of one task. `state_dirs` are folders of this machine in which its operator may have its state."""

    def __init__(self, state_dirs: Sequence[Path], wanted: Wanted) -> None:
        self._state_dirs, self._wanted = state_dirs, wanted

    async def once(self, task: ExecutionTask, number: int | None) -> AsyncGenerator[LogChunk, None]:
        """Yield the present output of attempt `number`, or of the latest. Raises as `RemitClient.logs` does."""
        attempt = chosen(task, number)
        reading = self._open(task, attempt) if attempt else None
        if reading is not None:
            with contextlib.closing(reading):
                async for chunk in reading.news(at_end=True):
                    yield chunk

    async def follow(
        self, states: AsyncGenerator[ExecutionTask, None], number: int | None
    ) -> AsyncGenerator[LogChunk, None]:
        """Each attempt from `number` on, or from the latest, until the task is finished. `states` are those that the
        task comes to."""
        newest = _Newest()
        watching = asyncio.create_task(newest.keep(states))
        opened: dict[int, Reading] = {}
        done: set[int] = set()
        try:
            attempt = chosen(await newest.changed(), number)
            first = attempt.number if attempt else 1
            while True:
                task = newest.task()
                for attempt in task.status.attempts:
                    if attempt.number < first or attempt.number in done:
                        continue
                    reading = opened.get(attempt.number) or self._open(task, attempt)
                    if reading is not None:
                        opened[attempt.number] = reading
                        async for chunk in reading.news(at_end=attempt.finished_at is not None):
                            yield chunk
                    # The attempt had ended before the read, so the read reached the end of its output.
                    if attempt.finished_at is not None:
                        done.add(attempt.number)
                        if reading is not None:
                            opened.pop(attempt.number).close()
                if task.status.phase is not None and task.status.phase.final:
                    return
                # An attempt appears in status before its output exists on the disk.
                going = any(attempt.finished_at is None for attempt in task.status.attempts)
                await newest.changed(POLL_SECONDS if going else None)
        finally:
            for reading in opened.values():
                reading.close()
            watching.cancel()
            await asyncio.gather(watching, return_exceptions=True)

    def _open(self, task: ExecutionTask, attempt: AttemptStatus) -> Reading | None:
        """None where there is nothing to read, or not yet."""
        metadata = task.metadata
        directory = run_directory(self._state_dirs, metadata.namespace, metadata.uid, attempt.id)
        if directory is not None:
            directory = directory / RAW if task.spec.output.raw else directory
            readers = {stream: OutputReader(directory, stream) for stream in self._wanted.streams}
            return Reading(readers, attempt.number, self._wanted)
        output, latest = task.status.output, task.status.attempts[-1].number == attempt.number
        is_silent = latest and output is not None and not output.stdout_bytes and not output.stderr_bytes
        is_to_come = attempt.finished_at is None and any((folder / "runs").is_dir() for folder in self._state_dirs)
        if is_silent or is_to_come:
            return None
        raise RemitError(
            f"the output of attempt {attempt.number} of task {task.key} is kept on the operator's host, and not here,"
            " or it is gone; read it there, name the operator's folder with state_dir, or use output() for its end"
        )


def chosen(task: ExecutionTask, number: int | None) -> AttemptStatus | None:
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
        except Exception as error:  # the reader re-raises it
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


class Reading:
    """Reads the files of one attempt or process, which are on a disk of this machine, a little at a time."""

    def __init__(self, readers: Mapping[Stream, Reader], attempt: int, wanted: Wanted, source: str = "") -> None:
        self._readers, self._attempt, self._source = readers, attempt, source
        limits = wanted.tail, wanted.since
        self._lines = {name: LineReader(each, *limits) for name, each in readers.items()} if wanted.by_line else {}

    async def news(self, *, at_end: bool) -> AsyncGenerator[LogChunk, None]:
        """Yield what has come since, of each stream in turn. `at_end`: no more will come."""
        for stream, lines in self._lines.items():
            for line in lines.lines(at_end=at_end):
                yield LogChunk(self._attempt, stream, line.data, line.gap, line.time, self._source)
                await asyncio.sleep(0)  # let other tasks run, even if the reader never waits
        left = set() if self._lines else set(self._readers)
        while left:
            for stream, reader in self._readers.items():
                if stream not in left:
                    continue
                if data := reader.read(_PIECE):
                    gap, reader.gaps = reader.gaps > 0, 0
                    yield LogChunk(self._attempt, stream, data, gap, source=self._source)
                    await asyncio.sleep(0)
                else:
                    left.discard(stream)

    def close(self) -> None:
        for reader in self._readers.values():
            reader.close()
