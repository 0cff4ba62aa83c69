"""The HTTP server of the page."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from remit.errors import ApiError, RemitError
from remit.requestlog import RequestLogger
from remit.web import login, pages, rendering
from remit.web.live import Events, Show, Streams
from remit.web.security import COOKIE, PATH, SESSION, add_headers, cookies, new_base, protected
from remit.web.sessions import Session, Sessions
from remit.web.viewer import Viewer

log = structlog.get_logger(__name__)

BODY_LIMIT: Final = 256 << 10
_BODY_SECONDS: Final = 10.0
_KEEPALIVE_SECONDS: Final = 75.0
_IDLE_SECONDS: Final = 300.0
"""A viewer at whose page nobody looked for so long is forgotten until somebody does."""
_LOOK_SECONDS: Final = 30.0
_IMPORT_SECONDS: Final = 1.0
"""After the first view was sent: the browser asks for its files and for live changes first."""
_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}


class PageServer:
    """Use as an async context manager. It serves on `sockets`, which are listening already."""

    def __init__(self, sockets: Sequence[socket.socket], viewer: Viewer, key: bytes) -> None:
        self._sockets, self._viewer = sockets, viewer
        self.port = int(sockets[0].getsockname()[1])
        self.base = new_base()
        """The path beneath which everything is but the login and the files that look the same for everybody."""
        self._renderer = rendering.Renderer(self.base)
        self._sessions = Sessions(time.monotonic)
        self._logins = login.Logins(key, time.time)
        self._streams = Streams(self._renderer)
        self._runner = web.AppRunner(
            self._app(),
            access_log=None,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            logger=RequestLogger(__name__, lambda: None),
        )
        self._was_viewed = asyncio.Event()
        self._background: list[asyncio.Task[None]] = []

    async def __aenter__(self) -> PageServer:
        await self._runner.setup()
        for each in self._sockets:
            await web.SockSite(self._runner, each).start()
        self._background = [
            asyncio.create_task(self._forget_idle(), name="forget idle viewers"),
            asyncio.create_task(self._import_views(), name="import the other views"),
        ]
        return self

    async def __aexit__(self, *_: object) -> None:
        for task in self._background:
            task.cancel()
        await asyncio.gather(*self._background, return_exceptions=True)
        self._streams.stop()
        await self._runner.cleanup()
        await self._viewer.close()

    def _app(self) -> web.Application:
        app = web.Application(
            middlewares=[_answering_errors(self._renderer), protected(self._sessions, self.base)],
            client_max_size=BODY_LIMIT,
        )
        app.on_response_prepare.append(add_headers)
        app.router.add_get("/login", self._log_in)
        app.router.add_post("/login", self._log_in)
        app.router.add_get("/static/{name}", _static)
        app.add_subapp(self.base, self._views())
        return app

    def _views(self) -> web.Application:
        views = web.Application()
        views.router.add_post("/logout", self._log_out)
        for path, name, events in pages.VIEWS:
            show = pages.handler_of(name)
            views.router.add_get(path, self._page(show))
            views.router.add_get(f"/live{path}", self._live(show, pages.events_of(events) if events else None))
        for path, name in pages.FORMS:
            views.router.add_post(path, self._form(pages.handler_of(name)))
        for path, name in pages.ACTIONS:
            views.router.add_post(path, self._action(pages.handler_of(name)))
        for path, name in pages.DOWNLOADS:
            views.router.add_get(path, self._download(pages.handler_of(name)))
        return views

    def _page(self, show: Show) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            session = request[SESSION]
            await session.viewer.open()
            response = self._rendered(request, await show(request, session), session)
            self._was_viewed.set()
            return response

        return handle

    def _rendered(self, request: web.Request, view: rendering.View, session: Session | None) -> web.Response:
        text = self._renderer.page(
            view,
            viewer=session.viewer if session else None,
            notices=session.take_notices() if session else [],
            now=time.time(),
            live=request[PATH] if view.regions else "",
        )
        return web.Response(text=text, content_type="text/html", status=view.status)

    def _live(self, show: Show, events: Callable[[web.Request, Session], Events] | None) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            session = request[SESSION]
            further = (lambda: events(request, session)) if events else None
            return await self._streams.serve(request, show, further)

        return handle

    def _form(self, show: Show) -> Handler:
        answer = self._page(show)

        async def handle(request: web.Request) -> web.StreamResponse:
            await _body(request)
            return await answer(request)

        return handle

    def _action(self, act: pages.Act) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            await _body(request)
            await request[SESSION].viewer.open()
            raise web.HTTPSeeOther(self.base + await act(request, request[SESSION]))

        return handle

    def _download(self, download: pages.Download) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            return await download(request, request[SESSION])

        return handle

    async def _log_in(self, request: web.Request) -> web.StreamResponse:
        """The token is good for one session. A browser that looks ahead, or a HEAD, does not use it up."""
        if request.method == "POST":
            async with asyncio.timeout(_BODY_SECONDS):
                token = str((await request.post()).get("token", "")).strip().rpartition("token=")[2]
        else:
            token = request.query.get("token", "")
        purpose = request.headers.get("Sec-Purpose", request.headers.get("Purpose", ""))
        if token and (request.method == "HEAD" or "prefetch" in purpose):
            # Browsers do not keep a failed response for later use.
            raise web.HTTPServiceUnavailable(text="this link is for its user")
        if token and self._logins.redeem(token):
            await self._viewer.start()
            response = web.HTTPSeeOther(f"{self.base}/")
            response.set_cookie(
                COOKIE, self._sessions.begin(self._viewer), httponly=True, samesite="Strict", path=self.base
            )
            raise response
        if token:
            # The token cannot be used any more and should not stay in the address bar.
            raise web.HTTPSeeOther("/login?refused")
        context = {"refused": "refused" in request.query, "of_up": self._viewer.reads_files}
        view = rendering.View("login.html", "Log in", "", context)
        return self._rendered(request, view, None)

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        for each in cookies(request):
            self._sessions.end(each)
        response = web.HTTPSeeOther("/login")
        response.del_cookie(COOKIE, path=self.base)
        raise response

    async def _import_views(self) -> None:
        """Import the modules of the other views once somebody sees the first one, so that they open without delay."""
        await self._was_viewed.wait()
        await asyncio.sleep(_IMPORT_SECONDS)
        await pages.import_all()

    async def _forget_idle(self) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            await asyncio.sleep(_LOOK_SECONDS)
            if not self._viewer.streams and clock() - self._viewer.used > _IDLE_SECONDS:
                await self._viewer.close()


async def _body(request: web.Request) -> None:
    """Have the form read, so that whoever asks for it next has it."""
    try:
        async with asyncio.timeout(_BODY_SECONDS):
            await request.post()
    except TimeoutError:
        raise web.HTTPRequestTimeout from None


async def _static(request: web.Request) -> web.Response:
    found = {each.name: each for each in _STATIC.iterdir()}.get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    kept = "max-age=31536000, immutable" if request.query_string else "no-cache"
    return web.Response(
        body=found.read_bytes(),
        content_type=_TYPES.get(found.suffix, "application/octet-stream"),
        charset="utf-8",
        headers={"Cache-Control": kept},
    )


def _answering_errors(renderer: rendering.Renderer) -> Middleware:
    """Answer errors with a page of the same design. A failed action is told on the page that it was asked on."""

    @web.middleware
    async def answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
        try:
            return await handler(request)
        except web.HTTPException as error:
            if error.status < 400:
                raise
            status, text = error.status, error.text if error.status not in {404, 405} else "There is nothing here."
        except ApiError as error:
            status, text = (404 if error.status == 404 else 403 if error.status == 403 else 502), str(error)
        except RemitError as error:
            status, text = 400, str(error)
        except (asyncio.CancelledError, ConnectionError):
            raise
        except TimeoutError:
            status, text = 504, "It took too long."
        except Exception:
            log.exception("a request failed", path=request[PATH])
            status, text = 500, "The page has a bug; the log of what serves it says more."
        session = request.get(SESSION)
        if session is None:
            return web.Response(status=status, text=str(text))
        context = {"status": status, "text": str(text)}
        view = rendering.View("error.html", "That did not work", "", context, status=status)
        with contextlib.suppress(Exception):
            return web.Response(
                text=renderer.page(view, viewer=session.viewer, notices=[], now=time.time(), live=""),
                content_type="text/html",
                status=status,
            )
        return web.Response(status=status, text=str(text))

    return answer_errors
