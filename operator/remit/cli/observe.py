"""A task, kept up to date by a watch while a command looks at it."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable

from remit.api.executiontask import ExecutionTask
from remit.errors import RemitError
from remit.kube.client import TASKS, Kube, Object
from remit.kube.informer import Informer

PATIENCE_SECONDS = 60
"""How long an API server that does not answer is waited for: long enough for a restart of `remit up`."""


TELL_SECONDS = 3
"""How long a new task stays without any status before people are told what it waits for."""
TAKE_UP_SECONDS = 60
"""How long an operator is waited for: long enough for another one to take the lease over, or for a rollout."""


class NotTakenUp(RemitError):
    """No operator has looked at a task."""


class Observed:
    """`task` is the newest known state. `changed` wakes whenever that may be another one."""

    def __init__(self, kube: Kube, obj: Object) -> None:
        self.task = ExecutionTask.parse(obj)
        self._kube = kube
        self._changed = asyncio.Event()
        self._end: RemitError | None = None

    async def changed(self, *, within: float | None = None) -> None:
        """Wait for news, at most `within` seconds. Raises `RemitError` when the task is gone or out of sight."""
        if self._end is not None:
            raise self._end
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                await self._changed.wait()
        self._changed.clear()

    async def finished(self) -> ExecutionTask:
        while not self.over:
            await self.changed()
        return self.task

    @property
    def over(self) -> bool:
        """Whether the task has ended."""
        return self.task.status.phase is not None and self.task.status.phase.final

    async def taken_up(self, tell: Callable[[str], None]) -> None:
        """Wait until an operator has looked at the task. `tell` is given what is waited for, where that takes long.

        Raises:
            NotTakenUp: None did in `TAKE_UP_SECONDS`.
            RemitError: The task is gone or out of sight.
        """
        begun = time.monotonic()
        for limit in (TELL_SECONDS, TAKE_UP_SECONDS):
            while not self._seen and (left := begun + limit - time.monotonic()) > 0:
                await self.changed(within=left)
            if self._seen:
                return
            if limit != TAKE_UP_SECONDS:
                tell("waiting for an operator, which 'remit up' or 'remit operator' runs")
        raise NotTakenUp(
            f"no operator has taken task {self.task.key} up within {TAKE_UP_SECONDS} s; start one with 'remit up' or"
            f" 'remit operator', or see whether the one there is serves namespace {self.task.metadata.namespace}"
        )

    @property
    def _seen(self) -> bool:
        """Whether an operator has written the task's status; an API server makes its beginning."""
        return self.task.status.observed_generation >= 0

    async def keep(self) -> None:
        metadata = self.task.metadata
        selector = f"metadata.name={metadata.name}"
        watch = Informer(self._kube, TASKS, metadata.namespace, field_selector=selector, patience=PATIENCE_SECONDS)
        try:
            async with watch:
                with watch.subscribe(metadata.name) as news:
                    while (change := await news.next()) and change.type != "DELETED" and self._is_it(change.object):
                        self.see(change.object)
            self._stop(RemitError(f"task {self.task.key} was deleted"))
        except RemitError as error:
            self._stop(RemitError(f"lost sight of task {self.task.key}: {error}"))

    def _is_it(self, obj: Object) -> bool:
        return bool(obj["metadata"]["uid"] == self.task.metadata.uid)

    def see(self, obj: Object) -> None:
        """A newer state of the task."""
        self.task = ExecutionTask.parse(obj)
        self._changed.set()

    def _stop(self, error: RemitError) -> None:
        self._end = error
        self._changed.set()


@contextlib.asynccontextmanager
async def observing(kube: Kube, obj: Object) -> AsyncIterator[Observed]:
    """Watch the task `obj` while the block runs."""
    observed = Observed(kube, obj)
    keeping = asyncio.create_task(observed.keep())
    try:
        yield observed
    finally:
        keeping.cancel()
        await asyncio.gather(keeping, return_exceptions=True)
