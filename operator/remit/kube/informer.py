"""One watch for everybody who waits: a reflector of a namespace, or of all, that lists and watches by itself."""

from __future__ import annotations

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Literal, Self

import aiohttp
import structlog

from remit.api.endpoint import Resource
from remit.errors import ApiError, RemitError
from remit.kube.client import Kube, Object
from remit.kube.indexer import Indexer
from remit.kube.reflector import Reflector, ResourceEventHandler

log = structlog.get_logger(__name__)
_SHORTEST_PAUSE, _LONGEST_PAUSE = 0.1, 5.0
_EXPIRED, _NOT_FOUND = 410, 404


@dataclass(frozen=True, slots=True)
class Change:
    """A change of an object: `type` as a watch says it, `object` in its newest state."""

    type: Literal["ADDED", "MODIFIED", "DELETED"]
    object: Object


class Subscription:
    """The news for one reader. Of an object that changed several times since it was read, only the newest state."""

    def __init__(self) -> None:
        self._news: dict[str, Change] = {}
        self._missing = False
        self._ready = asyncio.Event()
        self._error: RemitError | None = None

    async def next(self) -> Change | None:
        """None when the object was not there as the watch began, or began anew: ask the server whether it is.

        Raises the `RemitError` with which the watch ended for good.
        """
        while not self._news and not self._missing:
            if self._error is not None:
                raise self._error
            self._ready.clear()
            await self._ready.wait()
        self._missing = False
        return self._news.pop(next(iter(self._news))) if self._news else None

    def put(self, change: Change) -> None:
        uid = change.object["metadata"]["uid"]
        before = self._news.get(uid)
        unseen = before is not None and before.type == "ADDED" and change.type == "MODIFIED"
        self._news[uid] = Change("ADDED", change.object) if unseen else change
        self._ready.set()

    def miss(self) -> None:
        self._missing = True
        self._ready.set()

    def fail(self, error: RemitError) -> None:
        self._error = error
        self._ready.set()


class Informer:
    """Use it as an async context manager. It goes on over expired versions, lost connections and restarted servers.

    When the server refuses for `refusal_patience` seconds, or gives no answer for `patience`, everyone who reads gets
    the error. `key` gives what subscribers name an object by: by default its name, which is its own only within one
    namespace. `transform` makes of each object what is kept of it and told, as client-go's TransformFunc.
    """

    def __init__(
        self,
        kube: Kube,
        resource: Resource,
        namespace: str | None,
        *,
        field_selector: str = "",
        label_selector: str = "",
        patience: float = 60,
        refusal_patience: float = 0,
        key: Callable[[Object], str] = lambda obj: str(obj["metadata"]["name"]),
        transform: Callable[[Object], Object] | None = None,
    ) -> None:
        self._kube, self._resource, self._namespace = kube, resource, namespace
        self._field_selector, self._label_selector = field_selector, label_selector
        self._patience, self._refusal_patience, self._key = patience, refusal_patience, key
        self._reflector = Reflector(
            resource,
            namespaces=[namespace] if namespace else (),
            field_selector=field_selector,
            label_selector=label_selector,
            indexers={"key": lambda obj: (key(obj),)},
            transform=transform,
        )
        self._reflector.add_handler(
            ResourceEventHandler(
                on_add=lambda obj: self._tell(Change("ADDED", obj)),
                on_update=lambda before, after: self._tell(Change("MODIFIED", after)),
                on_delete=lambda obj: self._tell(Change("DELETED", obj)),
            )
        )
        self._listed = False
        self._settled = asyncio.Event()
        self.silent_since: float | None = None
        """When the server stopped answering, on the loop's clock; None: it answers."""
        self._subscriptions: defaultdict[str | None, set[Subscription]] = defaultdict(set)
        self._running: asyncio.Task[None] | None = None
        self._error: RemitError | None = None

    @property
    def failed(self) -> bool:
        return self._error is not None

    @property
    def error(self) -> RemitError | None:
        """The error that ended the watch for good."""
        return self._error

    @property
    def has_synced(self) -> bool:
        """Whether a list was taken over: `objects` was whole then."""
        return self._listed

    async def settled(self) -> None:
        """Wait until a list was taken over, or the server refused one or did not answer."""
        while not self._listed and self._error is None and self.silent_since is None:
            self._settled.clear()
            await self._settled.wait()

    @property
    def objects(self) -> Indexer:
        """The cached objects, which must not be changed."""
        return self._reflector.objects

    def add_handler(self, handler: ResourceEventHandler) -> None:
        """Tell `handler` of what is there, and of every change from now on."""
        self._reflector.add_handler(handler)

    @contextlib.contextmanager
    def subscribe(self, name: str | None = None) -> Iterator[Subscription]:
        """News of the object `name`, or of all; what is there already comes first, as ADDED."""
        subscription = Subscription()
        there = self._reflector.objects.list() if name is None else filter(None, [self._get(name)])
        for obj in there:
            subscription.put(Change("ADDED", obj))
        if name is not None and self._listed and self._get(name) is None:
            subscription.miss()
        if self._error is not None:
            subscription.fail(self._error)
        self._subscriptions[name].add(subscription)
        try:
            yield subscription
        finally:
            self._subscriptions[name].discard(subscription)
            if not self._subscriptions[name]:
                del self._subscriptions[name]

    def start(self) -> None:
        where = f"in {self._namespace}" if self._namespace else "everywhere"
        self._running = asyncio.create_task(self._keep(), name=f"watch {self._resource.plural} {where}")

    async def stop(self) -> None:
        """End the watch. Whoever still reads gets an error."""
        if self._running is not None:
            self._running.cancel()
            await asyncio.gather(self._running, return_exceptions=True)
        self._fail(RemitError("the watch was closed"))

    async def __aenter__(self) -> Self:
        self.start()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()

    async def _keep(self) -> None:
        clock = asyncio.get_running_loop().time
        version, pause = "", _SHORTEST_PAUSE
        while True:
            began = clock()
            try:
                if not version:
                    version = await self._list()
                    self.silent_since = None
                async for reached in self._watch(version):
                    version = reached
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                version = ""
                if isinstance(error, ApiError) and error.status != _EXPIRED:
                    self.silent_since = self.silent_since if self.silent_since is not None else clock()
                    self._settled.set()
                    if clock() - self.silent_since >= (self._refusal_patience if _final(error) else self._patience):
                        self._fail(error)
                        return
                    if _final(error):
                        log.warning("a watch is refused", resource=self._resource.plural, reason=str(error))
            except Exception as error:
                self._fail(RemitError(f"the watch of {self._resource.plural} broke down: {error!r}"))
                return
            lasted = clock() - began
            pause = _SHORTEST_PAUSE if lasted > _LONGEST_PAUSE else min(pause * 2, _LONGEST_PAUSE)
            if lasted < pause:
                await asyncio.sleep(pause)

    async def _list(self) -> str:
        version = await self._reflector.list_in(self._kube, self._namespace)
        self._listed = True
        self._settled.set()
        for name, subscriptions in self._subscriptions.items():
            if name is not None and self._get(name) is None:
                for subscription in subscriptions:
                    subscription.miss()
        return version

    def _get(self, name: str) -> Object | None:
        return next(iter(self._reflector.objects.by_index("key", name)), None)

    async def _watch(self, version: str) -> AsyncIterator[str]:
        """The versions that it has come to."""
        changes = self._kube.watch(
            self._resource,
            self._namespace,
            resource_version=version,
            field_selector=self._field_selector,
            label_selector=self._label_selector,
        )
        async with contextlib.aclosing(changes):
            async for type_, obj in changes:
                if type_ == "DELETED":
                    self._reflector.observe_deletion(obj)
                elif type_ in {"ADDED", "MODIFIED"}:
                    self._reflector.observe(obj)
                yield obj["metadata"]["resourceVersion"]

    def _tell(self, change: Change) -> None:
        for readers in (None, self._key(change.object)):
            for subscription in self._subscriptions.get(readers, ()):
                subscription.put(change)

    def _fail(self, error: RemitError) -> None:
        self._error = self._error or error
        self._settled.set()
        for subscriptions in self._subscriptions.values():
            for subscription in subscriptions:
                subscription.fail(self._error)


def _final(error: ApiError) -> bool:
    """Whether waiting helps nobody. A kind that is not served may be about to be: a server has just started."""
    return not error.retryable and error.status != _NOT_FOUND
