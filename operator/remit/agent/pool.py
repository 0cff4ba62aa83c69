"""Many tasks of an API server, a few at a time."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import TYPE_CHECKING, Self

from remit.api.executiontask import ExecutionTask
from remit.api.manifest import TaskManifest
from remit.errors import ApiError, InvalidInput

if TYPE_CHECKING:
    from remit.agent.client import RemitClient

_CANCEL_SECONDS = 10.0


class TaskPool:
    """Runs tasks to their ends, at most `limit` of them at once. Made by `RemitClient.pool`.

    async with client.pool(5) as pool:
        builds = [pool.submit(manifest) for manifest in manifests]
    print([build.result().status.phase for build in builds])

    Leaving it waits for all that was submitted. How a task ended is in its status: a task that failed raises nothing.
    What a server refuses is raised at the end, as an ExceptionGroup, and ends the others: those that are not created
    yet never are, those that run are cancelled. So does an exception in the body, and a cancellation.
    """

    def __init__(self, client: RemitClient, limit: int) -> None:
        """Raises `InvalidInput`."""
        if limit < 1:
            raise InvalidInput(f"must be at least 1, not {limit}", field="limit")
        self._client = client
        self._places = asyncio.Semaphore(limit)
        self._group = asyncio.TaskGroup()
        self._over = False

    async def __aenter__(self) -> Self:
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._group.__aexit__(kind, error, trace)

    def submit(self, task: TaskManifest, *, namespace: str | None = None) -> asyncio.Task[ExecutionTask]:
        """Have it created as soon as there is a place, in the order of the calls; awaiting the result waits for its
        end."""
        return self._group.create_task(self._run(task, namespace))

    async def _run(self, task: TaskManifest, namespace: str | None) -> ExecutionTask:
        async with self._places:
            if self._over:  # another task failed and freed this place
                raise asyncio.CancelledError
            try:
                return await self._ended(await self._client.submit(task, namespace=namespace))
            except BaseException:
                self._over = True
                raise

    async def _ended(self, created: ExecutionTask) -> ExecutionTask:
        try:
            return await self._client.wait(created)
        except asyncio.CancelledError:
            with contextlib.suppress(ApiError, TimeoutError):
                async with asyncio.timeout(_CANCEL_SECONDS):
                    await self._client.cancel(created)
            raise
