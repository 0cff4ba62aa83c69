"""What the instances of a release write, while it goes on and new ones come."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from remit.agent.logs import LogChunk, Wanted, process_logs
from remit.errors import RemitError
from remit.operations.process.record import INSTANCES, process_folders
from remit.web.ansi import Painter
from remit.web.live import Events
from remit.web.output import painted

_TAIL_LINES: Final = 200
_BATCH: Final = 200
_LOOK_SECONDS: Final = 1.0
_BATCH_SECONDS: Final = 0.1
_MOST: Final = 16
"""Instances that are followed at once."""


def instances(state_dirs: Sequence[Path], key: str) -> dict[str, Path]:
    """The folders of the instances of a Deployment, `namespace/name`, that run as processes on this machine."""
    return process_folders(state_dirs, INSTANCES, key)


async def follow(state_dirs: Sequence[Path], key: str, chosen: str) -> Events:
    """Batches of lines of all instances, or of the chosen one, for as long as somebody reads."""
    waiting: asyncio.Queue[LogChunk] = asyncio.Queue(_BATCH)
    readers: dict[tuple[str, int], asyncio.Task[None]] = {}
    painters: dict[tuple[str, str], Painter] = {}
    loop = asyncio.get_running_loop()
    yield "output", {"reset": True}
    try:
        while True:
            for name, folder in (await asyncio.to_thread(instances, state_dirs, key)).items():
                with contextlib.suppress(OSError):
                    known = name, folder.stat().st_ino
                    if chosen in {"", name} and known not in readers and len(readers) < _MOST:
                        readers[known] = asyncio.create_task(_read(name, folder, waiting))
            until = loop.time() + _LOOK_SECONDS
            while (left := until - loop.time()) > 0:
                batch = await _batch(waiting, left)
                if batch:
                    yield "output", {"lines": [_line(painters, each) for each in batch]}
            gone = [each for each, task in readers.items() if task.done() and not _is_there(state_dirs, key, each)]
            for each in gone:
                del readers[each]
    finally:
        for task in readers.values():
            task.cancel()
        await asyncio.gather(*readers.values(), return_exceptions=True)


def _is_there(state_dirs: Sequence[Path], key: str, known: tuple[str, int]) -> bool:
    folder = instances(state_dirs, key).get(known[0])
    try:
        return folder is not None and folder.stat().st_ino == known[1]
    except OSError:
        return False


async def _read(name: str, folder: Path, waiting: asyncio.Queue[LogChunk]) -> None:
    chunks = process_logs({name: folder}, Wanted(tail=_TAIL_LINES), "current", follow=True)
    with contextlib.suppress(RemitError, OSError):
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                await waiting.put(chunk)


async def _batch(waiting: asyncio.Queue[LogChunk], within: float) -> list[LogChunk]:
    batch: list[LogChunk] = []
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(within):
            batch.append(await waiting.get())
    if batch:
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_BATCH_SECONDS):
                while len(batch) < _BATCH:
                    batch.append(await waiting.get())
    return batch


def _line(painters: dict[tuple[str, str], Painter], chunk: LogChunk) -> dict[str, Any]:
    painter = painters.setdefault((chunk.source, chunk.stream), Painter())
    return painted(painter, chunk, source=chunk.source)
