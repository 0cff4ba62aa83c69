"""Subprocesses of asyncio, whose start may be cancelled."""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final

_DEATH_SECONDS: Final = 5.0


async def start_subprocess(*argv: str, **options: Any) -> asyncio.subprocess.Process:
    """Like `asyncio.create_subprocess_exec`, for callers that end the child themselves when they are cancelled.

    asyncio kills the child of a start that is cancelled, and then waits until nobody has its pipes open: for ever,
    where the child has handed them on. Here a start is finished first, and the cancellation is raised at the caller's
    next await. Raises OSError where the program cannot be started.
    """
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*argv, **options))
    cancelled = False
    try:
        while not starting.done():
            try:
                await asyncio.wait({starting})  # unlike `await starting`, this does not cancel the start
            except asyncio.CancelledError:
                cancelled = True
    except BaseException:  # the caller will not receive the child
        await _end(await starting)
        raise
    if cancelled:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # somebody cancelled it
        task.uncancel()  # `cancel` below raises the count again, so that one request is counted once
        task.cancel()
    return starting.result()


async def _end(child: asyncio.subprocess.Process) -> None:
    if child.stdin is not None:
        child.stdin.transport.abort()
    with contextlib.suppress(ProcessLookupError):
        child.kill()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_DEATH_SECONDS):
            await child.wait()
