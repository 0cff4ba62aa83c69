"""Reads the Events of pods for which no container is created."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from remit.backends.kubernetes.pods import trouble
from remit.errors import ApiError
from remit.kube.client import EVENTS
from remit.kube.events import events_selector
from remit.release.targets.kubernetes.cluster import Cluster, Object

REREAD_SECONDS: Final = 10.0
"""How long an answer is used. Every look of a release asks, and there are several looks a second at times."""
MOST_PODS: Final = 3
"""Pods whose Events are read at a time. Pods of one revision that do not start have the same reason as a rule."""


class StartFailures:
    def __init__(self, cluster: Cluster, clock: Callable[[], float] = time.monotonic) -> None:
        self._cluster, self._clock = cluster, clock
        self._read: dict[str, tuple[float, str]] = {}
        """By the pod's uid: when its Events were read, and what they said."""

    async def of(self, pods: Sequence[Object]) -> dict[str, str]:
        """Give by the pod's uid the latest failure to start each of `pods`, of `MOST_PODS` at most. Pods whose Events
        say nothing, or cannot be read, are left out."""
        asked = pods[:MOST_PODS]
        uids = [pod["metadata"]["uid"] for pod in asked]
        self._read = {uid: self._read[uid] for uid in uids if uid in self._read}
        for uid, pod in zip(uids, asked, strict=True):
            read_at, why = self._read.get(uid, (float("-inf"), ""))
            if self._clock() - read_at >= REREAD_SECONDS:
                with contextlib.suppress(ApiError):
                    why = trouble(await self._events(pod)) or why
                self._read[uid] = self._clock(), why
        return {uid: why for uid, (_, why) in self._read.items() if why}

    async def _events(self, pod: Object) -> list[Object]:
        namespace = pod["metadata"]["namespace"]
        return await self._cluster.list(EVENTS, namespace, field_selector=events_selector(pod))
