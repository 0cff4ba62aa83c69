"""A task, kept up to date by a watch while a command looks at it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import aiohttp

from remit.api import ExecutionTask
from remit.errors import ApiError, RemitError
from remit.reconcilers.kube import TASKS, Kube, Object

PATIENCE_SECONDS = 60
"""How long an API server that does not answer is waited for: long enough for a restart of `remit up`."""


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
        while not _over(self.task):
            await self.changed()
        return self.task

    async def keep(self) -> None:
        loop = asyncio.get_running_loop()
        answered = loop.time()
        while True:
            try:
                await self._watch()
                answered = loop.time()
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                final = isinstance(error, ApiError) and not error.retryable and error.status not in {404, 410}
                if final or loop.time() - answered > PATIENCE_SECONDS:
                    self._stop(RemitError(f"lost sight of task {self.task.key}: {error}"))
                    return
                await asyncio.sleep(0.5)
            if self._end is not None:
                return

    async def _watch(self) -> None:
        metadata = self.task.metadata
        listed = await self._kube.request(
            "GET", TASKS.path(metadata.namespace), params={"fieldSelector": f"metadata.name={metadata.name}"}
        )
        current = next(iter(listed["items"]), None)
        if current is None or current["metadata"]["uid"] != metadata.uid:
            self._stop(RemitError(f"task {self.task.key} was deleted"))
            return
        self.see(current)
        async for type_, obj in self._kube.watch(
            TASKS,
            metadata.namespace,
            resource_version=listed["metadata"]["resourceVersion"],
            field_selector=f"metadata.name={metadata.name}",
        ):
            if type_ == "DELETED":
                self._stop(RemitError(f"task {self.task.key} was deleted"))
                return
            if type_ in {"ADDED", "MODIFIED"}:
                self.see(obj)

    def see(self, obj: Object) -> None:
        """A newer state of the task."""
        self.task = ExecutionTask.parse(obj)
        self._changed.set()

    def _stop(self, error: RemitError) -> None:
        self._end = error
        self._changed.set()


def _over(task: ExecutionTask) -> bool:
    return task.status.phase is not None and task.status.phase.final


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
