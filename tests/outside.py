"""Observes an attempt from outside its sandbox."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path

import psutil

from remit.backends.base import Handle


def processes(pid: int) -> list[psutil.Process]:
    """Returns this process and all processes below it."""
    with contextlib.suppress(psutil.NoSuchProcess):
        process = psutil.Process(pid)
        return [process, *process.children(recursive=True)]
    return []


def oom_scores(pid: int) -> list[int]:
    """Returns the OOM score of each process, from -1000 to 1000."""
    return [int(Path(f"/proc/{each.pid}/oom_score_adj").read_text()) for each in processes(pid)]


async def until_processes(handles: Sequence[Handle], count: int) -> None:
    """Waits until the attempt has `count` processes."""
    async with asyncio.timeout(30):
        while not handles or len(processes(handles[0].pid)) < count:
            await asyncio.sleep(0.02)
