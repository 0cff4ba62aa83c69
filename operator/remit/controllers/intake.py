"""What is seen of the API server, and who has to look again because of it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog

from remit.api.endpoint import Resource
from remit.controllers.hooks import release_key
from remit.controllers.schedules import parent_key
from remit.controllers.tasks import TaskReconciler
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Kube, Object
from remit.kube.indexer import CONTROLLER, by_controller, key_of
from remit.kube.reflector import Reflector, ResourceEventHandler
from remit.kube.workqueue import WorkQueue

log = structlog.get_logger(__name__)

WATCHED = (POLICIES, TASKS, DEPLOYMENTS)
"""Policies first: a task is judged by what is known of them."""
_KEYS_PER_TURN = 100
"""Keys that are added to a queue before others have a turn on the event loop."""


def reflectors(namespaces: tuple[str, ...], operator_namespace: str) -> dict[Resource, Reflector]:
    """One for each watched kind. `namespaces` are those that are served; empty: all.

    Policies are those of the served namespaces and the ceilings, which live in the operator's own namespace.
    """
    with_ceilings = sorted({*namespaces, operator_namespace}) if namespaces else ()
    return {
        POLICIES: Reflector(POLICIES, namespaces=with_ceilings),
        TASKS: Reflector(TASKS, namespaces=namespaces, indexers={CONTROLLER: by_controller}),
        DEPLOYMENTS: Reflector(DEPLOYMENTS, namespaces=namespaces),
    }


@dataclass
class Intake:
    """Hands what the watches report to the reflectors, lists everything now and then besides, and maps each change to
    the keys that have to be looked at."""

    kube: Kube
    reflectors: Mapping[Resource, Reflector]
    queue: WorkQueue
    """Of tasks."""
    releases: WorkQueue
    """Of Deployments."""
    tasks: TaskReconciler
    resync_seconds: float

    def __post_init__(self) -> None:
        self._by_plural = {resource.plural: reflector for resource, reflector in self.reflectors.items()}
        self.reflectors[TASKS].add_handler(
            ResourceEventHandler(self._look_at_task, lambda before, after: self._look_at_task(after), self._end_task)
        )
        self.reflectors[DEPLOYMENTS].add_handler(
            ResourceEventHandler(
                self._look_at_release, lambda _, after: self._look_at_release(after), self._look_at_release
            )
        )

    def event(self, plural: str, type_: str | None, obj: Object) -> None:
        """What a watch saw, or what was there when it began."""
        if type_ == "DELETED":
            self._by_plural[plural].observe_deletion(obj)
        else:
            self._by_plural[plural].observe(obj)

    def task_finished(self, obj: Object) -> None:
        """A task's end was written by ourselves."""
        if (release := release_key(obj)) is not None:
            self.releases.add(release)

    async def resync(self) -> None:
        """List everything and look at everything. An expired watch reports no deletions, and a list does."""
        for resource in WATCHED:
            await self.reflectors[resource].list(self.kube)
        for resource, queue in ((TASKS, self.queue), (DEPLOYMENTS, self.releases)):
            for count, obj in enumerate(self.reflectors[resource].objects.list(), 1):
                queue.add(key_of(obj))
                if count % _KEYS_PER_TURN == 0:
                    await asyncio.sleep(0)
        self._sweep_runs()

    async def keep_resyncing(self) -> None:
        """Every `resync_seconds`, without end."""
        while True:
            await asyncio.sleep(self.resync_seconds)
            try:
                await self.resync()
            except ApiError as error:
                log.warning("a resync failed", error=str(error))

    def _look_at_task(self, obj: Object) -> None:
        self.queue.add(key_of(obj))
        if (parent := parent_key(obj)) is not None:
            self.queue.add(parent)
        if (release := release_key(obj)) is not None:
            self.releases.add(release)

    def _end_task(self, obj: Object) -> None:
        self.tasks.deleted(obj)
        self._look_at_task(obj)

    def _look_at_release(self, obj: Object) -> None:
        self.releases.add(key_of(obj))

    def _sweep_runs(self) -> None:
        """Remove what is kept of tasks that are no more."""
        tasks = self.reflectors[TASKS]
        for namespace, uid in list(self.tasks.runner.store.tasks()):
            served = not tasks.namespaces or namespace in tasks.namespaces
            if served and uid not in tasks.objects and not self.tasks.runner.running(uid):
                self.tasks.runner.abandon(namespace, uid)
