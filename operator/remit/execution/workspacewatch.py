"""Ends an attempt that lets a workspace grow beyond its size, which the host's filesystem does not hold."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Final, Self

import structlog

from remit.backends.exceeded import Exceeded
from remit.backends.outcome import ExitReason, Outcome
from remit.execution.workspaces import Workspace

log = structlog.get_logger(__name__)
_PAUSE_SECONDS: Final = 1.0
_PAUSE_FACTOR: Final = 10
"""Between two measurements passes this many times what one takes, so that a large tree costs a tenth of a thread."""


class WorkspaceWatch:
    """While it is entered, it measures `workspaces` from time to time, and sets `cancel` when one is too large.

    Files that were removed and are still open do not count: nothing in the folder names them.
    """

    def __init__(self, workspaces: Sequence[Workspace], cancel: asyncio.Event) -> None:
        self._workspaces, self._cancel = workspaces, cancel
        self._excess = ""
        self._task: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        if self._workspaces:
            self._task = asyncio.create_task(self._watch())
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._task:
            self._task.cancel()
            # Not awaited: a measurement on a disk that hangs would delay the end of the attempt.

    def conclude(self, outcome: Outcome) -> Outcome:
        """`outcome`, or if this watch ended the attempt, that it did. A retry would find the same files, so none
        follows."""
        if not self._excess or outcome.reason != ExitReason.CANCELLED:
            return outcome
        message = f"{self._excess}; everything it started was killed"
        exceeded = (*outcome.exceeded, Exceeded.DISK)
        return replace(outcome, reason=ExitReason.DISK_EXCEEDED, message=message, exceeded=exceeded, retryable=False)

    async def _watch(self) -> None:
        pause = _PAUSE_SECONDS
        while True:
            await asyncio.sleep(pause)
            began = time.monotonic()
            excess = await asyncio.to_thread(self._first_excess)
            if excess and not self._cancel.is_set():
                self._excess = excess
                self._cancel.set()
            if self._cancel.is_set():
                return
            pause = max(_PAUSE_SECONDS, _PAUSE_FACTOR * (time.monotonic() - began))

    def _first_excess(self) -> str:
        for workspace in self._workspaces:
            try:
                if excess := workspace.excess():
                    return excess
            except FileNotFoundError:  # another process removed the file
                continue
            except OSError as error:
                log.warning("a workspace could not be measured", path=str(workspace.data), error=str(error))
        return ""
