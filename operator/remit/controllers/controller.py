"""Defines a controller: a kind, the changes that it looks at, its queue, and the function that reconciles one key."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass

import structlog

from remit.api.endpoint import Resource
from remit.errors import RemitError
from remit.kube.client import Object
from remit.kube.indexer import key_of
from remit.kube.workqueue import Reconcile, WorkQueue, process
from remit.sandbox import fence
from remit.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

Mapper = Callable[[Object], Iterable[str]]
"""The keys, as `namespace/name`, of the controller's own kind that a change of an object is about."""
Predicate = Callable[[Object, Object], bool]
"""Whether an update, from the first form of an object to the second, is worth a look."""


def own_key(obj: Object) -> list[str]:
    return [key_of(obj)]


def any_update(before: Object, after: Object) -> bool:
    return True


def generation_changed(before: Object, after: Object) -> bool:
    """Whether the spec has changed, and not status or metadata alone."""
    return bool(before["metadata"].get("generation") != after["metadata"].get("generation"))


async def nothing() -> None:
    return


@dataclass(frozen=True, slots=True)
class Watch:
    """Changes of `resource` add the keys that `keys` gives for the object, and for its form before an update."""

    resource: Resource
    keys: Mapper
    update: Predicate = any_update


@dataclass(frozen=True, slots=True)
class Controller:
    """A row in the table of controllers (`remit.controllers.table`)."""

    kind: str
    resource: Resource
    """The kind that is reconciled. Each resync reconciles all its objects."""
    queue: WorkQueue
    reconcile: Reconcile
    """It is also called with the keys of objects that are gone."""
    watches: tuple[Watch, ...]
    workers: int
    """How many keys are reconciled at once."""
    on_delete: Callable[[Object], None] | None = None
    """Called with the last form of each object that is deleted, before its key is reconciled."""
    on_vanish: Callable[[Object], None] | None = None
    """Called instead of `on_delete` if the deletion was not observed."""
    sweep: Callable[[], Awaitable[None]] = nothing
    """Called after each resync. Removes what was kept of objects whose deletion was not observed."""
    shut_down: Callable[[], Awaitable[None]] | None = None
    """Called when the operator stops: ends what was started. What that adds to the queue is still reconciled."""
    close: Callable[[], Awaitable[None]] = nothing
    """Called when nothing is reconciled any more."""

    async def run(self, metrics: Metrics) -> None:
        """Reconcile what the queue has, until it is shut down."""
        duration = metrics.reconcile_duration.labels(self.kind)
        errors = metrics.reconcile_errors.labels(self.kind)

        async def reconcile(key: str) -> float | None:
            fence.check()  # raises LeaseLost if another operator may be at work
            with duration.time():
                return await self.reconcile(key)

        def on_error(key: str, error: Exception) -> None:
            errors.inc()
            if isinstance(error, RemitError):
                log.warning("reconciling failed and is tried again", kind=self.kind, key=key, error=str(error))
            else:
                log.error("reconciling failed and is tried again", kind=self.kind, key=key, exc_info=error)

        await process(self.queue, reconcile, workers=self.workers, on_error=on_error)
