"""kopf watches; nothing more. Each event goes straight to the operator's own loop.

kopf has a thread and an event loop of its own, because on its way out it cancels every task of the loop it ran in, and
it is started again whenever it ends, because an expired watch or a server that is away for long ends it.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
import weakref
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import aiohttp
import kopf
import structlog
from yarl import URL

from remit.api.endpoint import Resource
from remit.kube.access import Access

log = structlog.get_logger(__name__)

OnEvent = Callable[[str, str | None, dict[str, Any]], None]
"""(plural, event type, object)"""
OnListed = Callable[[str], None]
"""(plural)"""

_LONGEST_PAUSE = 30.0
_IDENTITY: Any = "remit"
"""The identity for kopf's peering, which is off. Without it kopf looks up the user's name, and there may be none."""
_NO_OBJECT = "metadata.name=-"
"""A field selector that no name can match."""
_GOODBYE_SECONDS = 2.0
"""How long a server that does not answer any more may delay the end."""


async def _cancel_other_tasks() -> None:
    """Cancel the other tasks of this loop, and wait for them. Where kopf is cancelled as it begins, it leaves its own,
    and they log in."""
    me = asyncio.current_task()
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GOODBYE_SECONDS):
            while others := [task for task in asyncio.all_tasks() if task is not me]:
                for task in others:
                    task.cancel()
                await asyncio.gather(*others, return_exceptions=True)


async def _all_closed(sockets: Iterable[socket.socket]) -> None:
    """Wait until the connections of closed sessions are closed: TLS has to say goodbye, which takes the server, too."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(_GOODBYE_SECONDS):
            while any(each.fileno() >= 0 for each in sockets):  # noqa: ASYNC110  (they tell nobody)
                await asyncio.sleep(0.01)


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps kopf from copying each body and from writing a second copy of the spec into an annotation."""

    def build(self, **_: Any) -> kopf.BodyEssence:
        return kopf.BodyEssence({})

    def fetch(self, **_: Any) -> kopf.BodyEssence | None:
        return None

    def store(self, **_: Any) -> None:
        return None


@dataclass
class Watcher:
    """Watches `resources` in `namespaces` (all, where empty) until stopped.

    `on_event` and `on_listed` are called in the thread of the loop that called `start`. A watch that begins, or begins
    anew after a gap, lists first: then it calls `on_listed`, because it tells of no deletion in the gap.
    """

    access: Access
    resources: Iterable[Resource]
    on_event: OnEvent
    on_listed: OnListed
    namespaces: tuple[str, ...] = ()
    ready: threading.Event = field(default_factory=threading.Event)
    _stop: threading.Event = field(default_factory=threading.Event)
    _cancel: Callable[[], object] | None = None
    _thread: threading.Thread | None = None

    def start(self) -> None:
        loop = asyncio.get_running_loop()
        self._thread = threading.Thread(target=self._supervise, args=(loop,), name="kopf", daemon=True)
        self._thread.start()

    async def stop(self) -> None:
        self._stop.set()
        if (cancel := self._cancel) is not None:
            with contextlib.suppress(RuntimeError):  # the event loop ended meanwhile
                cancel()
        if self._thread is not None:
            await asyncio.to_thread(self._thread.join, 10)

    def _supervise(self, home: asyncio.AbstractEventLoop) -> None:
        pause = 0.2
        while not self._stop.is_set():
            self.ready.clear()
            try:
                asyncio.run(self._watch(home))
            except BaseException as error:  # otherwise the end of this thread would go unnoticed
                if self._stop.is_set():
                    return
                log.warning("watching broke off", error=str(error) or type(error).__name__, retry_seconds=pause)
            if self.ready.is_set():
                pause = 0.2
            self._stop.wait(pause)
            pause = min(pause * 2, _LONGEST_PAUSE)

    async def _watch(self, home: asyncio.AbstractEventLoop) -> None:
        """Watches until the watch breaks off or is cancelled. (With its stop flag, kopf waits 5 s if it has only just
        begun.)"""
        me = asyncio.current_task()
        assert me is not None  # noqa: S101  # of `asyncio.run`
        self._cancel = partial(asyncio.get_running_loop().call_soon_threadsafe, me.cancel)
        if self._stop.is_set():
            return
        sockets = weakref.WeakSet[socket.socket]()
        async with contextlib.AsyncExitStack() as sessions:
            sessions.push_async_callback(_all_closed, sockets)  # runs after the sessions are closed
            try:
                await kopf.operator(
                    identity=_IDENTITY,
                    registry=self._registry(home, sessions, sockets),
                    settings=_settings(),
                    standalone=True,
                    clusterwide=not self.namespaces,
                    namespaces=self.namespaces,
                    ready_flag=self.ready,
                )
            finally:
                await _cancel_other_tasks()

    def _registry(
        self,
        home: asyncio.AbstractEventLoop,
        sessions: contextlib.AsyncExitStack,
        sockets: weakref.WeakSet[socket.socket],
    ) -> kopf.OperatorRegistry:
        """The sessions are ours, because kopf leaves its own open where it is cancelled as it begins."""
        registry = kopf.OperatorRegistry()
        access = self.access

        def make_socket(address: aiohttp.AddrInfoType) -> socket.socket:
            family, kind, protocol, *_ = address
            sockets.add(made := socket.socket(family, kind, protocol))
            return made

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.AiohttpSession:
            session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=access.ssl_context() or True, limit=0, socket_factory=make_socket),
                headers=await access.login(),
                trace_configs=[self._tracing(home)],
                middlewares=[self._list_nothing],
            )
            sessions.push_async_callback(session.close)
            return kopf.AiohttpSession(server=access.server, aiohttp_session=session)

        for resource in self.resources:
            self._subscribe(registry, resource, home)
        return registry

    async def _list_nothing(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Have kopf list no object, and thus begin its watch at the resourceVersion of now. Whoever is told that it
        listed lists everything. kopf would have all objects in memory at once, whole, and a task for each."""
        if self._is_list(request.method, request.url):
            request.url = request.url.update_query(fieldSelector=_NO_OBJECT)
        return await handler(request)

    def _is_list(self, method: str, url: URL) -> bool:
        plurals = {resource.plural for resource in self.resources}
        return method == "GET" and url.name in plurals and "watch" not in url.query

    def _tracing(self, home: asyncio.AbstractEventLoop) -> aiohttp.TraceConfig:
        """kopf does not tell its handlers that it listed."""

        async def answered(session: Any, context: Any, request: aiohttp.TraceRequestEndParams) -> None:
            if request.response.ok and self._is_list(request.method, request.url):
                with contextlib.suppress(RuntimeError):  # the event loop has ended
                    home.call_soon_threadsafe(self.on_listed, request.url.name)

        tracing = aiohttp.TraceConfig()
        tracing.on_request_end.append(answered)
        return tracing

    def _subscribe(self, registry: kopf.OperatorRegistry, resource: Resource, home: asyncio.AbstractEventLoop) -> None:
        @kopf.on.event(resource.group, resource.version, resource.plural, registry=registry, id=resource.plural)
        def changed(event: Any, **_: Any) -> None:
            # RuntimeError: the event loop has ended, and with it every consumer of the change.
            with contextlib.suppress(RuntimeError):
                home.call_soon_threadsafe(self.on_event, resource.plural, event["type"], dict(event["object"]))


def _settings() -> kopf.OperatorSettings:
    """The settings that measured best: short idle timeouts, long watches, no events or scans of kopf's own."""
    settings = kopf.OperatorSettings()
    settings.posting.enabled = False
    settings.scanning.disabled = True
    settings.peering.standalone = True
    settings.queueing.idle_timeout = 0.2
    # With it, kopf would list without a separate request that reports the list.
    settings.watching.initial_streaming = False
    settings.watching.server_timeout = 300
    settings.watching.client_timeout = 310
    settings.watching.inactivity_timeout = 70
    settings.networking.connect_timeout = 5
    settings.networking.request_timeout = 30
    settings.persistence.diffbase_storage = _NoDiffBase()
    return settings
