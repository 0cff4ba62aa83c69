"""Holds what one viewer sees: the caches of the kinds, filled with the viewer's own credentials while somebody
looks."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from remit.api.endpoint import Resource
from remit.errors import ApiError, RemitError
from remit.kube.access import Access
from remit.kube.client import DEPLOYMENTS, EVENTS, POLICIES, TASKS, Kube, Object
from remit.kube.events import events_selector
from remit.telemetry.trail import trail_of
from remit.web.caches import EVERYWHERE, Cache, Scope
from remit.web.requests import TrafficMeter
from remit.web.rows import TaskRow, slim

_SYNC_SECONDS: Final = 0.5
"""How long a page waits for the caches to be filled. A larger rest is shown as it arrives."""
_ACCESS_SECONDS: Final = 15.0
"""How long the answer to a question about access is believed."""
_MOST_ANSWERS: Final = 2000
_MOST_FETCHED: Final = 32
_LISTED_SECONDS: Final = 2.0
_MOST_EVENTS: Final = 50
_MOST_LOGS: Final = 32
"""Logs of pods that are read at once."""
_CONNECTIONS: Final = 16
"""Connections for everything but watches and logs."""
_REVIEWS: Final = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews"


def _whole(obj: Object) -> Object:
    """An object without what takes a quarter of its memory and nobody looks at."""
    obj["metadata"].pop("managedFields", None)
    return obj


class Viewer:
    """One identity. Its sessions share its caches.

    `state_dirs` are where the operator's output and audit trail may be; none where its operator is in a cluster, and
    all is read through the API server. `scope` says which namespaces are looked at. Caches run between `open` and
    `close`; what asks for them before that gets empty lists.
    """

    def __init__(
        self, name: str, access: Access, state_dirs: Sequence[Path], operator_namespace: str, scope: Scope = EVERYWHERE
    ) -> None:
        self.name, self.state_dirs, self.operator_namespace = name, tuple(state_dirs), operator_namespace
        self.scope = scope
        watches = 3 * (len(scope.namespaces) or 2)
        self.kube = Kube(access, connections=_CONNECTIONS + watches + _MOST_LOGS)
        self.logs = asyncio.Semaphore(_MOST_LOGS)
        """Limits how many pods' logs are read at once."""
        self.traffic = TrafficMeter(self.state_dirs)
        self.streams = 0
        """How many live streams of it are open."""
        self.used = 0.0
        """When it was last used, on the loop's clock."""
        self.version = 0
        """It goes up with each change of anything that is cached."""
        self._changed = asyncio.Event()
        kept = ((TASKS, slim), (DEPLOYMENTS, _whole), (POLICIES, _whole))
        self._caches = {each: Cache(self.kube, each, keep, scope, self._change) for each, keep in kept}
        self._is_open = False
        self._opening = asyncio.Lock()
        self._allowed: dict[tuple[str, ...], tuple[float, bool]] = {}
        self._fetched: dict[tuple[str, str, str], Object] = {}
        self._listed: dict[tuple[str, ...], tuple[float, list[Object]]] = {}

    async def open(self) -> None:
        """Start the caches, and wait until they are filled, but not for long."""
        await self.start()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_SYNC_SECONDS):
                await asyncio.gather(*(cache.settled() for cache in self._caches.values()))

    async def start(self) -> None:
        """Start the caches, or those again that were refused."""
        clock = asyncio.get_running_loop().time
        self.used = clock()
        async with self._opening:
            if not self._is_open:
                await self.kube.__aenter__()
                self._is_open = True
            for cache in self._caches.values():
                await cache.open()

    async def close(self) -> None:
        """Forget everything. It may be opened again."""
        async with self._opening:
            was_open, self._is_open = self._is_open, False
            self._allowed.clear()
            self._fetched.clear()
            self._listed.clear()
            try:
                for cache in self._caches.values():
                    await cache.close()
            finally:
                if was_open:
                    await self.kube.__aexit__(None, None, None)
        self._change()

    def _change(self) -> None:
        self.version += 1
        event, self._changed = self._changed, asyncio.Event()
        event.set()

    async def changed(self, since: int, within: float) -> bool:
        """Wait until there is another version than `since`, but no longer than `within` seconds. Whether there is."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(within):
                while self.version == since:
                    await self._changed.wait()
        return self.version != since

    def tasks(self) -> list[TaskRow]:
        return [obj["row"] for obj in self._caches[TASKS].objects()]

    def deployments(self) -> list[Object]:
        return sorted(self._caches[DEPLOYMENTS].objects(), key=_key)

    def policies(self) -> list[Object]:
        return sorted(self._caches[POLICIES].objects(), key=_key)

    def sees_all(self, resource: Resource) -> bool:
        """Whether objects of all namespaces are shown."""
        return self._caches[resource].is_everything

    @property
    def usual_namespace(self) -> str:
        return (*self.scope.namespaces, self.scope.otherwise, "default")[0] or "default"

    @property
    def reads_files(self) -> bool:
        """Whether the files of the operator are on this machine."""
        return bool(self.state_dirs)

    @property
    def trouble(self) -> str:
        """Why what is shown may not be all, or not how it is now; empty where it is."""
        caches = self._caches.values()
        if told := next(filter(None, (cache.trouble for cache in caches)), ""):
            return told
        shown = [informer for cache in caches for informer in cache.shown]
        if any(each.silent_since is not None for each in shown):
            return "The API server does not answer. What is shown is how things were before."
        if not shown or not all(each.has_synced for each in shown):
            return "Still reading from the API server."
        return ""

    @property
    def narrowed(self) -> str:
        """Why it is not all namespaces that are shown; empty where it is."""
        if self.scope.namespaces:
            return f"Shown: {', '.join(self.scope.namespaces)}"
        kinds = [resource.plural for resource, cache in self._caches.items() if cache.is_narrowed]
        if not kinds:
            return ""
        *others, last = kinds
        told = f"{', '.join(others)} and {last}" if others else last
        return (
            f"You may not list {told} of all namespaces. Shown: those of {self.scope.otherwise};"
            " remit page -n NAME shows others."
        )

    async def fetch(self, resource: Resource, namespace: str, name: str) -> Object:
        """The whole object as it is now. Those that were looked at last are kept until they change.

        Raises `ApiError`.
        """
        key = resource.plural, namespace, name
        cached = self._caches[resource].get(namespace, name)
        version = cached["metadata"].get("resourceVersion") if cached is not None else None
        known = self._fetched.get(key)
        if known is None or version is None or known["metadata"].get("resourceVersion") != version:
            try:
                known = _whole(await self.kube.get(resource, namespace, name))
            except ApiError:
                self._fetched.pop(key, None)
                raise
            self._fetched.pop(key, None)
            self._fetched[key] = known
            if len(self._fetched) > _MOST_FETCHED:
                del self._fetched[next(iter(self._fetched))]
        return known

    async def policies_of(self, *namespaces: str) -> list[Object]:
        """All CommandPolicies of these namespaces, also of those that are not shown. Raises `ApiError` where the viewer
        may not list them: what is decided without some of them is wrong."""
        if self.sees_all(POLICIES):
            return [obj for obj in self.policies() if obj["metadata"]["namespace"] in namespaces]
        return [obj for each in dict.fromkeys(namespaces) for obj in await self.kube.list(POLICIES, each)]

    async def few(self, resource: Resource, namespace: str, *, labels: str = "", fields: str = "") -> list[Object]:
        """Objects that are not cached, as two seconds ago or later; none where the viewer may not list them."""
        key, clock = (resource.plural, namespace, labels, fields), asyncio.get_running_loop().time
        known = self._listed.get(key)
        if known is None or clock() - known[0] > _LISTED_SECONDS:
            try:
                found = await self.kube.list(resource, namespace, label_selector=labels, field_selector=fields)
            except RemitError:
                found = []
            now = clock()
            self._listed = {each: value for each, value in self._listed.items() if now - value[0] < _LISTED_SECONDS}
            known = self._listed[key] = now, found
        return known[1]

    async def events_of(self, obj: Object) -> list[Object]:
        """The Events about an object, the newest first."""
        found = await self.few(EVENTS, obj["metadata"]["namespace"], fields=events_selector(obj))
        return sorted(found, key=last_seen, reverse=True)[:_MOST_EVENTS]

    @property
    def trail(self) -> Path | None:
        """The audit trail, where it is on this machine."""
        return trail_of(self.state_dirs)

    async def may(self, verb: str, resource: Resource, namespace: str | None, subresource: str = "") -> bool:
        """Whether RBAC lets this viewer; False where it cannot be told."""
        key = (verb, resource.group, resource.plural, subresource, namespace or "")
        clock = asyncio.get_running_loop().time
        known = self._allowed.get(key)
        if known is not None and clock() - known[0] < _ACCESS_SECONDS:
            return known[1]
        asked: dict[str, Any] = {"verb": verb, "group": resource.group, "resource": resource.plural}
        asked |= {"namespace": namespace} if namespace else {}
        asked |= {"subresource": subresource} if subresource else {}
        review = {
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": asked},
        }
        try:
            answer = await self.kube.request("POST", _REVIEWS, body=review)
        except RemitError:
            return False
        allowed = (answer.get("status") or {}).get("allowed") is True
        if len(self._allowed) >= _MOST_ANSWERS:
            self._allowed.clear()
        self._allowed[key] = clock(), allowed
        return allowed


def _key(obj: Object) -> tuple[str, str]:
    return obj["metadata"].get("namespace", ""), obj["metadata"]["name"]


def last_seen(event: Object) -> str:
    """When an Event was told last; empty where it does not say."""
    return str(event.get("lastTimestamp") or event.get("eventTime") or event["metadata"].get("creationTimestamp") or "")
