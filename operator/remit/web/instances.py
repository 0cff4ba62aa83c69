"""Streams the output of a release's instances, while it goes on and new ones come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable, Collection, Sequence
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, Final, NamedTuple

from remit.agent.logs import LogChunk, Wanted, process_logs
from remit.agent.podlogs import NOT_STARTED, Pieces, instance_log, lines, pods_of_release
from remit.errors import ApiError, RemitError
from remit.kube.client import Kube, Object
from remit.operations.process.record import INSTANCES, process_folders
from remit.web.ansi import Painter
from remit.web.live import Events
from remit.web.output import BATCH_LINES, fill_batch, painted

_TAIL_LINES: Final = 200
_LOOK_SECONDS: Final = 1.0
LIST_SECONDS: Final = 3.0
"""Between two lists of pods."""
_MOST: Final = 16
"""Instances that are followed at once."""


class Source(NamedTuple):
    """An instance, and what tells it from one that had its name before."""

    name: str
    identity: str | int
    read: Callable[[], AsyncGenerator[LogChunk, None]]

    @property
    def key(self) -> tuple[str, str | int]:
        return self.name, self.identity


Find = Callable[[], Awaitable[Collection[Source]]]
"""Raises `RemitError`."""


def on_kubernetes(deployment: Object) -> bool:
    return "kubernetes" in (deployment["spec"].get("target") or {})


def folders(state_dirs: Sequence[Path], key: str) -> Find:
    """The instances of a Deployment, `namespace/name`, that run as processes on this machine."""

    def read(name: str, folder: Path) -> Callable[[], AsyncGenerator[LogChunk, None]]:
        return lambda: process_logs({name: folder}, Wanted(tail=_TAIL_LINES), "current", follow=True)

    def find() -> Collection[Source]:
        found = []
        for name, folder in process_folders(state_dirs, INSTANCES, key).items():
            with contextlib.suppress(OSError):
                found.append(Source(name, folder.stat().st_ino, read(name, folder)))
        return found

    return lambda: asyncio.to_thread(find)


def pods(kube: Kube, deployment: Object) -> Find:
    """The pods of a Deployment whose target is Kubernetes."""

    begin = f"{deployment['metadata']['name']}-"  # the rest of the name begins with the side

    def read(name: str, pod: Object) -> Callable[[], AsyncGenerator[LogChunk, None]]:
        wanted = Wanted(streams=("stdout",), tail=_TAIL_LINES)
        return lambda: lines(_begun(kube, pod), wanted, source=name.removeprefix(begin))

    async def find() -> Collection[Source]:
        found = await pods_of_release(kube, deployment)
        return [Source(name, str(pod["metadata"]["uid"]), read(name, pod)) for name, pod in found.items()]

    return find


async def _begun(kube: Kube, pod: Object) -> Pieces:
    """The log of a pod, as soon as its container has started."""
    while True:
        try:
            async with contextlib.aclosing(instance_log(kube, pod, follow=True, tail=_TAIL_LINES)) as log:
                async for batch in log:
                    yield batch
        except ApiError as error:
            if error.status != NOT_STARTED:
                raise
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            return


async def follow(
    find: Find, chosen: str, turn: AbstractAsyncContextManager[Any], every: float = _LOOK_SECONDS
) -> Events:
    """Batches of lines of all instances, or of the chosen one, for as long as somebody reads. Each is read within
    `turn`; new ones are looked for `every` so many seconds."""
    waiting: asyncio.Queue[LogChunk | None] = asyncio.Queue(BATCH_LINES)
    readers: dict[tuple[str, str | int], asyncio.Task[None]] = {}
    painters: dict[tuple[str, str], Painter] = {}
    loop = asyncio.get_running_loop()
    found: dict[tuple[str, str | int], Source] = {}
    yield "output", {"reset": True}
    try:
        while True:
            try:
                found = {source.key: source for source in await find()}
            except ApiError as error:
                if not error.retryable:
                    raise
            for key, source in found.items():
                if chosen in {"", source.name} and key not in readers and len(readers) < _MOST:
                    readers[key] = asyncio.create_task(_read(source, waiting, turn))
            until = loop.time() + every
            while (left := until - loop.time()) > 0:
                batch = await _batch(waiting, left)
                if batch:
                    yield "output", {"lines": [_line(painters, each) for each in batch]}
            for key in [each for each, task in readers.items() if task.done() and each not in found]:
                del readers[key]
    finally:
        for task in readers.values():
            task.cancel()
        await asyncio.gather(*readers.values(), return_exceptions=True)


async def _read(
    source: Source, waiting: asyncio.Queue[LogChunk | None], turn: AbstractAsyncContextManager[Any]
) -> None:
    with contextlib.suppress(RemitError, OSError):
        async with turn, contextlib.aclosing(source.read()) as chunks:
            async for chunk in chunks:
                await waiting.put(chunk)


async def _batch(waiting: asyncio.Queue[LogChunk | None], within: float) -> list[LogChunk]:
    try:
        async with asyncio.timeout(within):
            first = await waiting.get()
    except TimeoutError:
        return []
    batch = [first] if first is not None else []
    await fill_batch(batch, waiting)
    return batch


def _line(painters: dict[tuple[str, str], Painter], chunk: LogChunk) -> dict[str, Any]:
    painter = painters.setdefault((chunk.source, chunk.stream), Painter())
    return painted(painter, chunk, source=chunk.source)
