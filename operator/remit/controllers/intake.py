"""Takes in what the API server reports, and adds the keys that have to be reconciled because of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import structlog

from remit.api.endpoint import Resource
from remit.controllers.controller import Controller, Watch
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Kube, Object
from remit.kube.compact import Compactor, without_field_sets
from remit.kube.indexer import CONTROLLER, PHASE, by_controller, by_phase, key_of
from remit.kube.reflector import Reflector, ResourceEventHandler
from remit.kube.workqueue import Priority

log = structlog.get_logger(__name__)

_RETRY_SECONDS = 1.0
_KEYS_PER_TURN = 100
"""Keys that are added to a queue before others have a turn on the event loop."""


def reflectors(namespaces: tuple[str, ...], operator_namespace: str) -> dict[Resource, Reflector]:
    """One for each watched kind, in the order in which they are listed: policies first, because a task is judged by
    what is known of them. `namespaces` are those that are served; empty: all.

    Policies are those of the served namespaces and the ceilings, which live in the operator's own namespace.
    """
    with_ceilings = sorted({*namespaces, operator_namespace}) if namespaces else ()
    phase = {PHASE: by_phase}
    return {
        POLICIES: Reflector(POLICIES, namespaces=with_ceilings, transform=without_field_sets),
        TASKS: Reflector(
            TASKS, namespaces=namespaces, indexers={CONTROLLER: by_controller, **phase}, transform=Compactor(_is_over)
        ),
        DEPLOYMENTS: Reflector(DEPLOYMENTS, namespaces=namespaces, indexers=phase, transform=without_field_sets),
    }


def _is_over(task: Object) -> bool:
    status = task.get("status")
    return isinstance(status, dict) and "completionTime" in status


@dataclass
class Intake:
    """Hands what the watches report to the reflectors, lists everything now and then besides, and adds the keys that
    the controllers' watches give for each change to their queues."""

    kube: Kube
    reflectors: Mapping[Resource, Reflector]
    controllers: Sequence[Controller]
    resync_seconds: float
    _priority: Priority = Priority.LOW
    """The priority of changes: low for the first list, most of which is not new, so that later changes come first."""
    _gaps: set[Reflector] = field(default_factory=set)
    """Reflectors whose watch was restarted since their last list."""
    _gap: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        self._by_plural = {resource.plural: reflector for resource, reflector in self.reflectors.items()}
        for controller in self.controllers:
            if controller.on_delete is not None:
                handler = ResourceEventHandler(on_delete=controller.on_delete, on_vanish=controller.on_vanish)
                self.reflectors[controller.resource].add_handler(handler)
            for watch in controller.watches:
                self.reflectors[watch.resource].add_handler(self._handler(controller, watch))

    def event(self, plural: str, type_: str | None, obj: Object) -> None:
        """Take in an event of a watch."""
        if type_ == "DELETED":
            self._by_plural[plural].observe_deletion(obj)
        else:
            self._by_plural[plural].observe(obj)

    def listed(self, plural: str) -> None:
        """Called when a watch begins or begins again. The watch does not report earlier deletions."""
        self._gaps.add(self._by_plural[plural])
        self._gap.set()

    async def resync(self) -> None:
        """List everything and look at everything. An expired watch reports no deletions, and a list does."""
        for reflector in self.reflectors.values():
            await reflector.list(self.kube)
        self._priority = Priority.NORMAL
        for controller in self.controllers:
            for count, obj in enumerate(self.reflectors[controller.resource].objects.list(), 1):
                controller.queue.add(key_of(obj), Priority.LOW)
                if count % _KEYS_PER_TURN == 0:
                    await asyncio.sleep(0)
            await controller.sweep()

    async def keep_resyncing(self) -> None:
        """Every `resync_seconds`, without end."""
        while True:
            await asyncio.sleep(self.resync_seconds)
            try:
                await self.resync()
            except ApiError as error:
                log.warning("a resync failed", error=str(error))

    async def keep_closing_gaps(self) -> None:
        """Lists each kind whose watch began again, without end."""
        while True:
            await self._gap.wait()
            self._gap.clear()
            for reflector in list(self._gaps):
                self._gaps.discard(reflector)
                try:
                    await reflector.list(self.kube)
                except ApiError as error:
                    log.warning("a list failed and is tried again", kind=reflector.resource.plural, error=str(error))
                    await asyncio.sleep(_RETRY_SECONDS)
                    self.listed(reflector.resource.plural)

    def _handler(self, controller: Controller, watch: Watch) -> ResourceEventHandler:
        def add(obj: Object) -> None:
            for key in watch.keys(obj):
                controller.queue.add(key, self._priority)

        def update(before: Object, after: Object) -> None:
            if watch.update(before, after):
                add(before)
                add(after)

        return ResourceEventHandler(on_add=add, on_update=update, on_delete=add)
