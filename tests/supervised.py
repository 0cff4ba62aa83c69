"""Finds supervised processes that a test started by their files on disk, and ends them."""

from __future__ import annotations

import asyncio
import contextlib
import json
from pathlib import Path

import psutil

from support import pauses

_PATIENCE = 60


def supervisors(root: Path) -> list[psutil.Process]:
    """Returns all living supervisors below `root`."""
    return [found for path in root.glob("*/*/state.json") if (found := _of(path)) is not None]


async def end(root: Path) -> None:
    """Ends all supervisors below `root`, and waits until they are gone."""
    for supervisor in supervisors(root):
        supervisor.terminate()
    await ended(root)


async def ended(root: Path) -> None:
    """Waits until no supervisor is alive. A supervisor answers before it exits."""
    pause = pauses()
    async with asyncio.timeout(_PATIENCE):
        while supervisors(root):
            await asyncio.sleep(next(pause))


def _of(path: Path) -> psutil.Process | None:
    with contextlib.suppress(psutil.Error, FileNotFoundError):
        process = psutil.Process(json.loads(path.read_bytes())["supervisor"]["pid"])
        if "operations/process" in " ".join(process.cmdline()):
            return process
    return None
