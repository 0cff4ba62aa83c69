"""What every request has to pass, and what every answer says to the browser."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from aiohttp.typedefs import Handler, Middleware

from remit.web.sessions import Session, Sessions

SESSION: Final = web.RequestKey("session", Session)
OPEN_PATHS: Final = ("/login", "/static/")
"""Answered without a session."""
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
    "Referrer-Policy": "same-origin",  # with no-referrer, browsers send `Origin: null` with forms, too
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=(), payment=(), usb=()",
}


def cookie_name(port: int) -> str:
    """Browsers keep cookies by host and not by port, and there may be several pages on one."""
    return f"remit-session-{port}"


def protected(sessions: Sessions, cookie: str) -> Middleware:
    """The middleware."""

    @web.middleware
    async def protect(request: web.Request, handler: Handler) -> web.StreamResponse:
        if (refusal := _refusal(request)) is not None:
            return refusal
        session = sessions.find(request.cookies.get(cookie, ""))
        if session is not None:
            request[SESSION] = session
        elif not request.path.startswith(OPEN_PATHS):
            if request.method == "GET" and not request.path.startswith("/live/"):
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
        # A page may be linked to, and no more: what others load here, also from other ports of this host, would take
        # notices away that are shown once, and streams and searches cost something.
        linked = request.headers.get("Sec-Fetch-Dest") == "document" and not request.path.startswith("/live/")
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
    """For each answer, whoever made it."""
    for name, value in HEADERS.items():
        response.headers.setdefault(name, value)
    response.headers.setdefault("Cache-Control", "no-store")
    response.headers.popall("Server", None)
