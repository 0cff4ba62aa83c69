"""Streams the output of a task: lines for the page, and bytes for a download."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import AsyncGenerator
from typing import Any, Final, TypeVar

from aiohttp import web

from remit.agent.logs import LogChunk, TaskLogs, Wanted
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, Stream
from remit.errors import RemitError
from remit.kube.client import TASKS
from remit.web.ansi import Painter
from remit.web.joboutput import JobOutput
from remit.web.live import Events
from remit.web.viewer import Viewer

P = TypeVar("P")

TAIL_LINES: Final = 1000
"""Lines of each stream that a page begins with."""
BATCH_LINES: Final = 200
_BATCH_BYTES: Final = 64 << 10
_BATCH_SECONDS: Final = 0.1
_WRITE_SECONDS: Final = 30.0
_REFUSED: Final = "You may not read whole output, which needs get of executiontasks/log. Status has the end of it."


async def events(viewer: Viewer, namespace: str, name: str, number: int | None) -> Events:
    """Batches of lines of attempt `number` and of those after it, or of the latest and those after it."""
    task = await read_task(viewer, namespace, name)
    yield "output", {"reset": True}
    for note in notes(task):
        yield "output", {"note": note}
    if not viewer.reads_files:
        async with contextlib.aclosing(_from_pods(viewer, task, number)) as told:
            async for event in told:
                yield event
        return
    if not await may_read(viewer, namespace):
        for event in _tails(task, _REFUSED):
            yield event
        return
    over = task.status.phase is not None and task.status.phase.final
    logs = TaskLogs(viewer.state_dirs, Wanted(tail=TAIL_LINES))
    chunks = logs.once(task, number) if over else logs.follow(_states(viewer, task), number)
    painters: dict[tuple[int, str], Painter] = {}
    try:
        async with contextlib.aclosing(_batches(chunks)) as batches:
            async for batch in batches:
                yield "output", {"lines": [_line(painters, chunk) for chunk in batch]}
    except RemitError as error:
        for event in _tails(task, str(error)):
            yield event
    yield "output", {"end": True}


async def _from_pods(viewer: Viewer, task: ExecutionTask, number: int | None) -> Events:
    name = task.metadata.namespace, task.metadata.name
    painters: dict[tuple[int, str], Painter] = {}
    parts = JobOutput(viewer, task, number, TAIL_LINES).parts(lambda: read_task(viewer, *name))
    try:
        async with contextlib.aclosing(_batches(parts)) as batches:
            async for batch in batches:
                for is_lines, run in itertools.groupby(batch, lambda part: isinstance(part, LogChunk)):
                    if is_lines:
                        told = [_line(painters, part) for part in run if isinstance(part, LogChunk)]
                        yield "output", {"lines": told}
                        continue
                    for part in run:
                        for event in _told(await read_task(viewer, *name), part):
                            yield event
    except RemitError as error:
        for event in _tails(await read_task(viewer, *name), str(error)):
            yield event
    yield "output", {"end": True}


def _told(task: ExecutionTask, part: LogChunk | str | AttemptStatus) -> list[tuple[str, Any]]:
    if not isinstance(part, AttemptStatus):
        return [("output", {"note": str(part)})]
    output = task.status.output
    last_ended = max((each.number for each in task.status.attempts if each.finished_at is not None), default=0)
    if output is None or last_ended != part.number:
        return [("output", {"note": f"The output of attempt {part.number} is on the operator's volume."})]
    if not output.stdout_bytes and not output.stderr_bytes:
        return []
    return _tails(task, f"The end of the output of attempt {part.number}, from status.")


async def may_read(viewer: Viewer, namespace: str) -> bool:
    """Whether the viewer may see all output, which is more than status has: as with the logs of pods, a right of its
    own."""
    return await viewer.may("get", TASKS, namespace, "log")


def notes(task: ExecutionTask) -> list[str]:
    """Notes about the output that is shown."""
    output, attempts = task.status.output, task.status.attempts
    told = []
    if task.spec.output.raw:
        told.append("It is kept as written; secrets in it are shown.")
    if output is not None and attempts:
        told += filter(None, [output.changed(attempts[-1].number) if output.altered else ""])
        told += filter(None, [output.looks_binary(attempts[-1].number)])
    if not attempts:
        told.append(f"Nothing has run yet: {task.status.message or 'it was just created'}")
    return told


async def read_task(viewer: Viewer, namespace: str, name: str) -> ExecutionTask:
    """The task, if the viewer may get it. Raises `ApiError`."""
    return ExecutionTask.parse(await viewer.fetch(TASKS, namespace, name))


async def _states(viewer: Viewer, task: ExecutionTask) -> AsyncGenerator[ExecutionTask, None]:
    """Yield each state of the task until it is finished. Raises `ApiError` when it is gone."""
    while True:
        yield task
        if task.status.phase is not None and task.status.phase.final:
            return
        known = task.metadata.resource_version
        while task.metadata.resource_version == known:
            await viewer.changed(viewer.version, 5.0)
            task = await read_task(viewer, task.metadata.namespace, task.metadata.name)


async def _batches(chunks: AsyncGenerator[P, None]) -> AsyncGenerator[list[P], None]:
    """Collect what comes within a tenth of a second, so that a program that writes line by line is not an event each.
    Behind a reader that is slow, nothing more than one batch is read."""
    waiting: asyncio.Queue[P | None] = asyncio.Queue(BATCH_LINES)

    async def fill() -> None:
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    await waiting.put(chunk)
        finally:
            await waiting.put(None)

    filling = asyncio.create_task(fill())
    try:
        while (first := await waiting.get()) is not None:
            batch = [first]
            last = await fill_batch(batch, waiting)
            yield batch
            if last:
                break
        await filling  # raises the reader's error
    finally:
        filling.cancel()
        await asyncio.gather(filling, return_exceptions=True)


async def fill_batch(batch: list[P], waiting: asyncio.Queue[P | None]) -> bool:
    """Add to a batch what comes within a tenth of a second, up to its bounds. True if the end came, which is None."""
    size = sum(map(_size, batch))
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_BATCH_SECONDS):
            while len(batch) < BATCH_LINES and size < _BATCH_BYTES:
                if (chunk := await waiting.get()) is None:
                    return True
                batch.append(chunk)
                size += _size(chunk)
    return False


def _size(part: object) -> int:
    return len(part.data) if isinstance(part, LogChunk) else 0


def _line(painters: dict[tuple[int, str], Painter], chunk: LogChunk) -> dict[str, Any]:
    painter = painters.setdefault((chunk.attempt, chunk.stream), Painter())
    return painted(painter, chunk, attempt=chunk.attempt)


def painted(painter: Painter, chunk: LogChunk, **source: Any) -> dict[str, Any]:
    """A line as the page takes it. `source` says what wrote it."""
    line: dict[str, Any] = {"html": painter.line(chunk.data), "stream": chunk.stream, **source}
    if chunk.time is not None:
        line["time"] = f"{chunk.time:%H:%M:%S}.{chunk.time.microsecond // 1000:03d}"
    return line | ({"gap": True} if chunk.gap else {})


def _tails(task: ExecutionTask, why: str) -> list[tuple[str, Any]]:
    """The ends that status has of the last attempt's output."""
    output = task.status.output
    told: list[tuple[str, Any]] = [("output", {"note": why})]
    if output is None:
        return told
    lines = []
    for stream, text in (("stdout", output.stdout_tail), ("stderr", output.stderr_tail)):
        painter = Painter()
        lines += [
            {"html": painter.line(line.encode()), "stream": stream, "attempt": len(task.status.attempts)}
            for line in text.splitlines()
        ]
    return [*told, ("output", {"lines": lines})]


async def download(
    request: web.Request, viewer: Viewer, task: ExecutionTask, number: int, stream: Stream
) -> web.StreamResponse:
    """All that is kept of one stream of one attempt. Raises `RemitError`."""
    chunks = TaskLogs(viewer.state_dirs, Wanted(streams=(stream,))).once(task, number)
    async with contextlib.aclosing(chunks):
        first = await anext(chunks, None)  # raises errors before the response begins
        name = f"{task.metadata.name}-{number}-{stream}.log"
        response = web.StreamResponse(
            headers={
                "Content-Type": "application/octet-stream",
                "Content-Disposition": f'attachment; filename="{name}"',
            }
        )
        response.enable_chunked_encoding()
        await response.prepare(request)
        while first is not None:
            async with asyncio.timeout(_WRITE_SECONDS):
                await response.write(first.data)
            first = await anext(chunks, None)
        await response.write_eof()
    return response
