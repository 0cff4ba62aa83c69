"""Subprocesses of asyncio, whose start may be cancelled."""

from __future__ import annotations

import asyncio
from typing import Any


async def start_subprocess(*argv: str, **options: Any) -> asyncio.subprocess.Process:
    """Like `asyncio.create_subprocess_exec`, for callers that end the child themselves when they are cancelled.

    asyncio kills the child of a start that is cancelled, and then waits until nobody has its pipes open: for ever,
    where the child has handed them on. Here a start is finished first, and the cancellation is raised at the caller's
    next await. Raises OSError where the program cannot be started.
    """
    starting = asyncio.ensure_future(asyncio.create_subprocess_exec(*argv, **options))
    cancelled = False
    while not starting.done():
        try:
            await asyncio.wait({starting})  # unlike `await starting`, it does not pass the cancellation on
        except asyncio.CancelledError:
            cancelled = True
    if cancelled:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # somebody cancelled it
        task.uncancel()  # it counts, and was asked for once
        task.cancel()
    return starting.result()
