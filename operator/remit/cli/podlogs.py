"""What a Job's program wrote, from its pod's log: by the permissions of whoever asks, and while the pod is there."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from remit.api import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus
from remit.backends.kubernetes.labels import ATTEMPT
from remit.backends.kubernetes.manifests import CONTAINER, job_name
from remit.backends.kubernetes.records import Records
from remit.cli.terminal import Screen, note
from remit.errors import ApiError
from remit.kube.client import PODS, Kube

_LOOK_SECONDS: Final = 0.5
_SILENCE_SECONDS: Final = 60.0
_LAST_SECONDS: Final = 5.0
"""For the rest of a log whose attempt has ended: the operator has read it by then."""
_NOT_YET: Final = frozenset({400, 404})
"""The container was not started yet, or its pod is going."""


@dataclass
class PodOutput:
    """The output of one attempt that is a Job. A pod that its Job does not control is not its pod."""

    kube: Kube
    namespace: str
    attempt_id: str
    screen: Screen
    tell: Callable[[str], None] = note
    _records: Records = field(default_factory=Records)
    _refused: str = ""
    _following: asyncio.Task[None] | None = None

    @classmethod
    def of(
        cls,
        kube: Kube,
        task: ExecutionTask,
        attempt: AttemptStatus,
        screen: Screen,
        tell: Callable[[str], None] = note,
    ) -> PodOutput | None:
        """None where the attempt is no Job, or has ended."""
        if attempt.backend != "kubernetes" or attempt.finished_at is not None:
            return None
        return cls(kube, task.metadata.namespace, attempt.id, screen, tell)

    @property
    def shown_bytes(self) -> int:
        """Of both streams, whichever are looked at."""
        return sum(self._records.received.values())

    async def once(self) -> str:
        """Show what there is now. Says why nothing is shown; empty where something may have been."""
        pod = await self._pod()
        if pod is None:
            return self._refused or "its pod is not there yet, or not any more"
        await self._read(pod, follow=False)
        return self._refused

    def follow(self) -> None:
        """Show what comes, behind the caller's back, until `close`. May be called again and again."""
        if self._following is None:
            self._following = asyncio.create_task(self._follow(), name=f"log of {self.attempt_id}")

    async def close(self) -> None:
        """The attempt has ended: show the rest of it."""
        if self._following is None:
            return
        await asyncio.wait({self._following}, timeout=_LAST_SECONDS)
        self._following.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._following

    async def _follow(self) -> None:
        seen = False
        while self._records.ended is None and not self._refused:
            pod = await self._pod()
            if pod is None and seen:
                return
            if pod is not None:
                seen = True
                await self._read(pod, follow=True)
            await asyncio.sleep(_LOOK_SECONDS)
        if self._refused:
            self.tell(self._refused)

    async def _pod(self) -> str | None:
        params = {"labelSelector": f"{ATTEMPT}={self.attempt_id}"}
        try:
            found = (await self.kube.request("GET", PODS.path(self.namespace), params=params))["items"]
        except ApiError as error:
            self._fail(error)
            return None
        ours = ("Job", job_name(self.attempt_id), True)
        for pod in found:
            for owner in pod["metadata"].get("ownerReferences", ()):
                if (owner["kind"], owner["name"], owner.get("controller")) == ours:
                    return str(pod["metadata"]["name"])
        return None

    async def _read(self, pod: str, *, follow: bool) -> None:
        """The log from where it was left, until it ends or its connection does."""
        params = {"container": CONTAINER, "follow": str(follow).lower(), "timestamps": "true"}
        if self._records.last:
            params["sinceTime"] = self._records.since
            self._records.again()
        chunks = self.kube.stream(
            PODS.path(self.namespace, pod, "log"), params=params, silence_seconds=_SILENCE_SECONDS
        )
        try:
            async with contextlib.aclosing(chunks):
                async for chunk in chunks:
                    for stream, data in self._records.feed(chunk):
                        if stream in self.screen.streams:
                            self.screen.write(stream, data)
        except ApiError as error:
            if error.status not in _NOT_YET:
                self._fail(error)
        except (aiohttp.ClientError, TimeoutError):
            return  # it is read on

    def _fail(self, error: ApiError) -> None:
        if not error.retryable:
            self._refused = f"the log of the attempt's pod cannot be read: {error}"
