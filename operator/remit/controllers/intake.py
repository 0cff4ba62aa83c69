"""What is seen of the API server: it goes into the cache, and whoever has to look again goes into a queue."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import structlog

from remit.api.endpoint import Resource
from remit.controllers.hooks import release_key
from remit.controllers.policies import Policies
from remit.controllers.schedules import parent_key
from remit.controllers.tasks import TaskReconciler
from remit.errors import ApiError
from remit.kube.cache import Cache, key_of
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Kube
from remit.kube.workqueue import WorkQueue

log = structlog.get_logger(__name__)

WATCHED = (POLICIES, TASKS, DEPLOYMENTS)
"""Policies first: a task is judged by what is known of them."""


@dataclass
class Intake:
    """Takes what watches report, and lists everything now and then besides."""

    kube: Kube
    cache: Cache
    queue: WorkQueue
    """Of tasks."""
    releases: WorkQueue
    """Of Deployments."""
    tasks: TaskReconciler
    policies: Policies
    namespaces: tuple[str, ...]
    """Those that are served; empty: all."""
    resync_seconds: float

    def event(self, plural: str, type_: str | None, obj: dict[str, Any]) -> None:
        """What a watch saw, or what was there when it began."""
        key = key_of(obj)
        if plural != POLICIES.plural and not self._serves(obj["metadata"]["namespace"]):
            return
        if type_ == "DELETED":
            if self.cache.remove(plural, key, obj["metadata"].get("uid")) is not None:
                self._on_gone(plural, key, obj)
        elif self.cache.store(plural, obj):
            self._on_changed(plural, key)

    def task_finished(self, obj: dict[str, Any]) -> None:
        """Status was written by ourselves: the watch will bring nothing new of it."""
        if (release := release_key(obj)) is not None:
            self.releases.add(release)

    async def resync(self) -> None:
        """List everything, look at everything, and forget what is gone: an expired watch reports no deletions."""
        for resource in WATCHED:
            known = {key: self.cache.get(resource.plural, key) for key in self.cache.keys(resource.plural)}
            for key in self.cache.replace(resource.plural, await self._list(resource), frozenset(known)):
                obj = self.cache.get(resource.plural, key)
                if obj is None and (gone := known[key]) is not None:
                    self._on_gone(resource.plural, key, gone)
                else:
                    self._on_changed(resource.plural, key)
        for task in sorted(self.cache.all(TASKS.plural), key=lambda task: str(task["metadata"]["creationTimestamp"])):
            self.queue.add(key_of(task))
        self._sweep_runs()

    async def keep_resyncing(self) -> None:
        """Every `resync_seconds`, without end."""
        while True:
            await asyncio.sleep(self.resync_seconds)
            try:
                await self.resync()
            except ApiError as error:
                log.warning("a resync failed", error=str(error))

    def _on_changed(self, plural: str, key: str) -> None:
        if plural == TASKS.plural:
            self.queue.add(key)
            obj = self.cache.get(plural, key)
            if obj is not None and (parent := parent_key(obj)) is not None:
                self.queue.add(parent)
            if obj is not None and (release := release_key(obj)) is not None:
                self.releases.add(release)
        elif plural == DEPLOYMENTS.plural:
            self.releases.add(key)
        else:
            self.policies.changed()

    def _on_gone(self, plural: str, key: str, obj: dict[str, Any]) -> None:
        if plural == TASKS.plural:
            self.tasks.deleted(obj)
            self.queue.add(key)
            if (parent := parent_key(obj)) is not None:
                self.queue.add(parent)
        elif plural == DEPLOYMENTS.plural:
            self.releases.add(key)
        elif plural == POLICIES.plural:
            self.policies.changed()

    def _serves(self, namespace: str) -> bool:
        return not self.namespaces or namespace in self.namespaces

    async def _list(self, resource: Resource) -> list[dict[str, Any]]:
        if resource is POLICIES:
            return await self.policies.list_all()
        if not self.namespaces:
            return await self.kube.list(resource)
        return [obj for namespace in self.namespaces for obj in await self.kube.list(resource, namespace)]

    def _sweep_runs(self) -> None:
        """Remove what is kept of tasks that are no more."""
        alive = {obj["metadata"]["uid"] for obj in self.cache.all(TASKS.plural)}
        for namespace, uid in list(self.tasks.runner.store.tasks()):
            if self._serves(namespace) and uid not in alive and not self.tasks.runner.running(uid):
                self.tasks.runner.abandon(namespace, uid)
