"""Server-sent events: a page hears of the regions that changed.

A stream has no queue of regions: each time that something changed, it renders what the page shows and sends what
differs from what it sent before. So a slow reader gets fewer and newer states, and never more than one waits for it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

import orjson
import structlog
from aiohttp import web

from remit.errors import ApiError, RemitError
from remit.web.rendering import Renderer, View
from remit.web.security import PATH, SESSION
from remit.web.sessions import Session

log = structlog.get_logger(__name__)

Show = Callable[[web.Request, Session], Awaitable[View]]
Events = AsyncGenerator[tuple[str, Any], None]
"""Names and what JSON can say."""

_APART_SECONDS: Final = 0.5
"""Between two looks of one stream."""
_COUNTED: Final = re.compile(r'( data-(?:age|until)="[0-9.]+">)[^<]*')
"""Ages, which the page counts on by itself."""
_WRITE_SECONDS: Final = 20.0


class Streams:
    """The open streams of the server. `stop` ends them."""

    def __init__(self, renderer: Renderer) -> None:
        self._renderer = renderer
        self._open: set[asyncio.Task[Any]] = set()
        self._shared: dict[tuple[str, int], tuple[float, float, dict[str, str]]] = {}
        """When it was rendered, for how long that is enough, and the regions, by address and viewer."""

    def __len__(self) -> int:
        return len(self._open)

    def stop(self) -> None:
        for task in self._open:
            task.cancel()

    async def serve(
        self, request: web.Request, show: Show, events: Callable[[], Events] | None = None
    ) -> web.StreamResponse:
        """Serve a stream until the page is left. `events` are further ones, in their order."""
        session = request[SESSION]
        if not session.may_stream:
            return web.Response(status=429, text="too many live pages are open; close some")
        task = asyncio.current_task()
        assert task is not None  # noqa: S101  # this is one
        self._open.add(task)
        session.streams += 1  # incremented before the first await, so that concurrent requests are counted
        session.viewer.streams += 1
        try:
            return await self._serve(request, session, show, events)
        finally:
            self._open.discard(task)
            session.streams -= 1
            session.viewer.streams -= 1

    async def _serve(
        self, request: web.Request, session: Session, show: Show, events: Callable[[], Events] | None
    ) -> web.StreamResponse:
        await session.viewer.open()
        await self._rendered(request, session, show)  # an error here gets its own response
        response = web.StreamResponse(
            headers={"Content-Type": "text/event-stream; charset=utf-8", "X-Accel-Buffering": "no"}
        )
        response.enable_chunked_encoding()
        try:
            await response.prepare(request)
            await self._feed(request, session, show, events, response)
        except (ConnectionError, RuntimeError):
            log.debug("a live page was left")
        except TimeoutError:
            if request.transport is not None:
                request.transport.abort()
        except Exception as error:  # the response has begun, so its status cannot change
            is_gone = isinstance(error, web.HTTPNotFound) or (isinstance(error, ApiError) and error.status == 404)
            if not is_gone and not isinstance(error, RemitError):
                log.exception("a live page broke off", path=request[PATH])
            with contextlib.suppress(ConnectionError, RuntimeError):
                await response.write(b"event: gone\ndata: {}\n\n" if is_gone else b"")
        return response

    async def _feed(
        self,
        request: web.Request,
        session: Session,
        show: Show,
        events: Callable[[], Events] | None,
        response: web.StreamResponse,
    ) -> None:
        turn = asyncio.Lock()  # events of two sources must not be interleaved

        async def send(name: str, data: Any) -> None:
            packet = b"event: " + name.encode() + b"\ndata: " + orjson.dumps(data) + b"\n\n"
            async with turn, asyncio.timeout(_WRITE_SECONDS):
                await response.write(packet)

        async def further() -> None:
            if events is not None:
                async with contextlib.aclosing(events()) as source:
                    async for name, data in source:
                        await send(name, data)

        feeding = asyncio.ensure_future(further())
        try:
            await self._regions(request, session, show, send, feeding)
        finally:
            feeding.cancel()
            await asyncio.gather(feeding, return_exceptions=True)

    async def _regions(
        self,
        request: web.Request,
        session: Session,
        show: Show,
        send: Callable[[str, Any], Awaitable[None]],
        feeding: asyncio.Future[None],
    ) -> None:
        viewer, sent = session.viewer, dict[str, str]()
        while not session.over:
            await viewer.open()
            version = viewer.version
            every, made = await self._rendered(request, session, show)
            for name, html in made.items():
                stable = _COUNTED.sub(r"\1", html)
                if sent.get(name) != stable:
                    sent[name] = stable
                    await send("region", {"name": name, "html": html})
            told = {"trouble": viewer.trouble, "narrowed": viewer.narrowed}
            await send("state", {**told, "now": time.time()})
            if feeding.done() and (error := feeding.exception()) is not None:
                log.debug("what a page follows broke off", error=repr(error))
                await send("broken", str(error) if isinstance(error, RemitError) else "what is followed here broke off")
                feeding = asyncio.get_running_loop().create_future()  # completed once
            await asyncio.sleep(_APART_SECONDS)
            await viewer.changed(version, every - _APART_SECONDS)

    async def _rendered(self, request: web.Request, session: Session, show: Show) -> tuple[float, dict[str, str]]:
        """Pages that show the same are rendered once for all of one viewer."""
        key = str(request.rel_url), id(session.viewer)
        known = self._shared.get(key)
        now = time.monotonic()
        if known is not None and now - known[0] < _APART_SECONDS / 2:
            return known[1:]
        view = await show(request, session)
        made = self._renderer.regions(view)
        self._shared = {each: value for each, value in self._shared.items() if now - value[0] < _APART_SECONDS}
        self._shared[key] = now, view.every, made
        return view.every, made
