"""Checks every request, and adds the security headers to every answer."""

from __future__ import annotations

import re
import secrets
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from remit.web.sessions import Session, Sessions

SESSION: Final = web.RequestKey("session", Session)
PATH: Final = web.RequestKey("path", str)
"""The path beneath the base, or the whole one outside. Logs have this one, not the base."""
_OPEN_PATHS: Final = re.compile("/login|/static/.*", re.DOTALL)
"""Answered without a session, outside the base."""
_STREAMS: Final = re.compile("/[^/]*/live(/.*)?", re.DOTALL)
"""Live streams, beneath the base or what could be one."""
COOKIE: Final = "remit-session"
_HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
"""By which names the page is reached, also through a tunnel. Any other one is DNS rebinding."""
_HOST: Final = re.compile(r"(\[[0-9a-f:]+\]|[A-Za-z0-9.-]+)(:[0-9]{1,5})?")

HEADERS: Final = {
    "Content-Security-Policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; frame-ancestors 'none'; base-uri 'none'"
    ),
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Another port is another origin and must not receive the base path. With no-referrer, browsers send `Origin: null`
    # with forms.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def new_base() -> str:
    """The path beneath which a server has its views, and the path of its cookie.

    Browsers send a cookie to every port of a host, and by its path alone. So the path is a secret of the server and its
    viewers: what is served on another port cannot have the cookie sent there. It is no credential, though; beneath it,
    too, nothing is answered without a session.
    """
    return f"/s-{secrets.token_urlsafe(16)}"


def cookies(request: web.Request) -> list[str]:
    """The values of the cookie, that of the longest path first. There may be several: what is served on other ports can
    set one of the same name for every path of the host."""
    pairs = (each.strip().partition("=") for each in request.headers.get("Cookie", "").split(";"))
    return [value for name, _, value in pairs if name == COOKIE]


def protected(sessions: Sessions, base: str) -> Middleware:
    """The middleware. Without a session, each path beneath the base is answered as one of another base is."""

    @web.middleware
    async def protect(request: web.Request, handler: Handler) -> web.StreamResponse:
        beneath = request.path == base or request.path.startswith(base + "/")
        request[PATH] = request.path.removeprefix(base) if beneath else request.path
        if (refusal := _refusal(request)) is not None:
            return refusal
        session = next(filter(None, map(sessions.find, cookies(request))), None) if beneath else None
        if session is not None:
            request[SESSION] = session
        elif beneath or not _OPEN_PATHS.fullmatch(request.path):
            if request.method == "GET" and not _STREAMS.fullmatch(request.path):
                raise web.HTTPSeeOther("/login")
            return web.Response(status=401, text="log in first: open the link that `remit page` prints")
        return await handler(request)

    return protect


def _refusal(request: web.Request) -> web.Response | None:
    found = _HOST.fullmatch(request.headers.get("Host", ""))
    if found is None or found[1] not in _HOSTS:
        return web.Response(status=421, text="this page is served at 127.0.0.1 and localhost alone")
    site = request.headers.get("Sec-Fetch-Site", "none")
    if request.method in {"GET", "HEAD"}:
        # Other sites may link to a page, but must not load anything: such requests, also from other ports of this host,
        # would consume notices that are shown once, and streams and searches are expensive.
        linked = request.headers.get("Sec-Fetch-Dest") == "document" and not _STREAMS.fullmatch(request.path)
        if site not in {"none", "same-origin"} and not linked:
            return web.Response(status=403, text="another site asked for this")
        return None
    origin = urlsplit(request.headers.get("Origin", ""))
    if (
        origin.netloc != request.headers.get("Host")
        or origin.scheme != request.scheme
        or site not in {"none", "same-origin"}
    ):
        return web.Response(status=403, text="another site asked for this")
    return None


async def add_headers(request: web.Request, response: web.StreamResponse) -> None:
    """Add headers to each answer, whatever handler made it."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.popall("Server", None)
