"""Kubernetes Events: one for each turn that a user would want to read about in `kubectl describe`."""

from __future__ import annotations

import asyncio
import datetime
import os
import socket
import time
from dataclasses import dataclass, field
from typing import Literal

import structlog

from remit.errors import ApiError
from remit.kube.client import EVENTS, Kube, Object
from remit.telemetry.logs import escape
from remit.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

_LONGEST_NOTE = 1024
_MOST_PENDING = 1000


@dataclass
class Recorder:
    """Posts events behind the caller's back: losing one is no reason to hold work up."""

    kube: Kube
    metrics: Metrics
    instance: str = field(default_factory=lambda: os.environ.get("HOSTNAME") or socket.gethostname())
    _pending: set[asyncio.Task[None]] = field(default_factory=set)

    def record(self, regarding: Object, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        if len(self._pending) >= _MOST_PENDING:
            log.warning("an event is dropped: too many are on their way", reason=reason)
            return
        task = asyncio.create_task(self._post(_event(regarding, type_, reason, escape(message), self.instance)))
        self._pending.add(task)
        task.add_done_callback(self._pending.discard)

    async def drain(self) -> None:
        """Wait for what is on its way."""
        await asyncio.gather(*self._pending, return_exceptions=True)

    async def _post(self, event: Object) -> None:
        try:
            await self.kube.create(EVENTS, event["metadata"]["namespace"], event)
            self.metrics.api_writes.labels("create", "Event").inc()
        except ApiError as error:
            log.warning("an event could not be posted", error=str(error), reason=event["reason"])


async def events_of(kube: Kube, obj: Object) -> list[Object]:
    """All Events about an object, in no order. Raises `ApiError`."""
    return await kube.list(EVENTS, obj["metadata"]["namespace"], field_selector=events_selector(obj))


def events_selector(obj: Object) -> str:
    """The field selector of all Events about an object."""
    return f"involvedObject.uid={obj['metadata']['uid']}"


def _event(regarding: Object, type_: str, reason: str, message: str, instance: str) -> Object:
    metadata = regarding["metadata"]
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
    if len(message) > _LONGEST_NOTE:
        message = message[: _LONGEST_NOTE - 1] + "…"
    return {
        "apiVersion": "v1",
        "kind": "Event",
        "metadata": {
            # As in client-go: increasing names keep Events of the same second in order.
            "name": f"{metadata['name'][:230]}.{time.time_ns():x}",
            "namespace": metadata["namespace"],
        },
        "involvedObject": {
            "apiVersion": regarding["apiVersion"],
            "kind": regarding["kind"],
            "name": metadata["name"],
            "namespace": metadata["namespace"],
            "uid": metadata["uid"],
            "resourceVersion": metadata["resourceVersion"],
        },
        "type": type_,
        "reason": reason,
        "message": message,
        "source": {"component": "remit"},
        "reportingComponent": "remit.dev/operator",
        "reportingInstance": instance,
        "firstTimestamp": now,
        "lastTimestamp": now,
        "count": 1,
    }
