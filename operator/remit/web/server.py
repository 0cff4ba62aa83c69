"""The HTTP server of the page."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import time
from collections.abc import Awaitable, Callable, Sequence
from pathlib import Path
from typing import Final

import structlog
from aiohttp import web
from aiohttp.typedefs import Handler

from remit.errors import ApiError, RemitError
from remit.requestlog import RequestLogger
from remit.web import login, pages, rendering
from remit.web.live import Events, Show, Streams
from remit.web.security import SESSION, add_headers, cookie_name, protected
from remit.web.sessions import Session, Sessions
from remit.web.viewer import Viewer

log = structlog.get_logger(__name__)

BODY_LIMIT: Final = 256 << 10
_BODY_SECONDS: Final = 10.0
_KEEPALIVE_SECONDS: Final = 75.0
_IDLE_SECONDS: Final = 300.0
"""A viewer at whose page nobody looked for so long is forgotten until somebody does."""
_LOOK_SECONDS: Final = 30.0
_STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}

Act = Callable[[web.Request, Session], Awaitable[str]]
"""Does what a form asks for, and says where to go then. Raises `RemitError`."""


class PageServer:
    """Use as an async context manager. It serves on `sockets`, which are listening already."""

    def __init__(self, sockets: Sequence[socket.socket], viewer: Viewer, key: bytes) -> None:
        self._sockets, self._viewer = sockets, viewer
        self.port = int(sockets[0].getsockname()[1])
        self._cookie = cookie_name(self.port)
        self._sessions = Sessions(time.monotonic)
        self._logins = login.Logins(key, time.time)
        self._streams = Streams()
        self._runner = web.AppRunner(
            self._app(),
            access_log=None,
            keepalive_timeout=_KEEPALIVE_SECONDS,
            logger=RequestLogger(__name__, lambda: None),
        )
        self._forgetting: asyncio.Task[None] | None = None

    async def __aenter__(self) -> PageServer:
        await self._runner.setup()
        for each in self._sockets:
            await web.SockSite(self._runner, each).start()
        self._forgetting = asyncio.create_task(self._forget_idle(), name="forget idle viewers")
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._forgetting is not None:
            self._forgetting.cancel()
            await asyncio.gather(self._forgetting, return_exceptions=True)
        self._streams.stop()
        await self._runner.cleanup()
        await self._viewer.close()

    def _app(self) -> web.Application:
        app = web.Application(
            middlewares=[_answer_errors, protected(self._sessions, self._cookie)],
            client_max_size=BODY_LIMIT,
        )
        app.on_response_prepare.append(add_headers)
        app.router.add_get("/login", self._log_in)
        app.router.add_post("/login", self._log_in)
        app.router.add_post("/logout", self._log_out)
        app.router.add_get("/static/{name}", _static)
        for path, show, events in pages.VIEWS:
            app.router.add_get(path, self._page(show))
            app.router.add_get("/live" + path.rstrip("/") if path != "/" else "/live/", self._live(show, events))
        for path, show in pages.FORMS:
            app.router.add_post(path, self._form(show))
        for path, act in pages.ACTIONS:
            app.router.add_post(path, self._action(act))
        for path, download in pages.DOWNLOADS:
            app.router.add_get(path, self._download(download))
        return app

    def _page(self, show: Show) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            session = request[SESSION]
            await session.viewer.open()
            return self._rendered(await show(request, session), session)

        return handle

    def _rendered(self, view: rendering.View, session: Session | None) -> web.Response:
        text = rendering.page(
            view,
            viewer=session.viewer if session else None,
            notices=session.take_notices() if session else [],
            now=time.time(),
            live=bool(view.regions),
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

    def _action(self, act: Act) -> Handler:
        async def handle(request: web.Request) -> web.StreamResponse:
            await _body(request)
            await request[SESSION].viewer.open()
            raise web.HTTPSeeOther(await act(request, request[SESSION]))

        return handle

    def _download(self, download: Callable[[web.Request, Session], Awaitable[web.StreamResponse]]) -> Handler:
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
            raise web.HTTPServiceUnavailable(text="this link is for its user")  # what failed is not kept for later
        if token and self._logins.redeem(token):
            await self._viewer.open()
            self._sessions.end(request.cookies.get(self._cookie, ""))
            response = web.HTTPSeeOther("/")
            response.set_cookie(
                self._cookie, self._sessions.begin(self._viewer), httponly=True, samesite="Strict", path="/"
            )
            raise response
        if token:
            raise web.HTTPSeeOther("/login?refused")  # it is of no use any more, and need not stay in the address
        if request.get(SESSION) is not None and "refused" not in request.query:
            raise web.HTTPSeeOther("/")
        context = {"refused": "refused" in request.query, "of_up": self._viewer.reads_files}
        view = rendering.View("login.html", "Log in", "", context)
        return self._rendered(view, None)

    async def _log_out(self, request: web.Request) -> web.StreamResponse:
        self._sessions.end(request.cookies.get(self._cookie, ""))
        response = web.HTTPSeeOther("/login")
        response.del_cookie(self._cookie, path="/")
        raise response

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


@web.middleware
async def _answer_errors(request: web.Request, handler: Handler) -> web.StreamResponse:
    """What went wrong, as a page in the same clothes. A failed action is told on the page that it was asked on."""
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
        log.exception("a request failed", path=request.path)
        status, text = 500, "The page has a bug; the log of what serves it says more."
    session = request.get(SESSION)
    if session is None:
        return web.Response(status=status, text=str(text))
    context = {"status": status, "text": str(text)}
    view = rendering.View("error.html", "That did not work", "", context, status=status)
    with contextlib.suppress(Exception):
        return web.Response(
            text=rendering.page(view, viewer=session.viewer, notices=[], now=time.time(), live=False),
            content_type="text/html",
            status=status,
        )
    return web.Response(status=status, text=str(text))
