"""Reads the destination of an HTTP request to a proxy, and decides what of the request is passed on. Pure.

Everything that could be read in two ways is refused: user info in front of the host, a Host header that names another
host, two ways to say where the body ends.
"""

from __future__ import annotations

import base64
import hmac
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

import h11

from remit.policy.hosts import BadHost, Destination

Headers = list[tuple[bytes, bytes]]

_HTTP: Final = b"http://"
_HTTP_PORT: Final = 80
PROXY_USER: Final = "attempt"
"""The user name that goes with a proxy's token."""
_UNAUTHORIZED: Final = 407
_HOP_BY_HOP: Final = frozenset(
    {
        b"connection",
        b"keep-alive",
        b"proxy-authenticate",
        b"proxy-authorization",
        b"proxy-connection",
        b"te",
        b"trailer",
        b"upgrade",
    }
)


class BadRequest(ValueError):
    """A request that no honest client sends; the message says what is wrong with it."""


@dataclass(frozen=True, slots=True)
class RequestTarget:
    """`path` is what to ask the host for; empty for CONNECT."""

    destination: Destination
    path: bytes = b""


def target_of(request: h11.Request) -> RequestTarget:
    """Raises `BadRequest`."""
    if request.http_version not in {b"1.0", b"1.1"}:
        raise BadRequest("this proxy speaks HTTP/1.1")
    lengths = {name for name, _ in request.headers} & {b"content-length", b"transfer-encoding"}
    if len(lengths) > 1:
        raise BadRequest("a request has Content-Length or Transfer-Encoding, not both")
    if request.method == b"CONNECT":
        if lengths:
            raise BadRequest("CONNECT has no body")
        target = RequestTarget(_destination(request.target, default_port=None))
    else:
        target = _absolute(request.target)
    for name, value in request.headers:
        if name == b"host" and not _same(value, target.destination):
            raise BadRequest(f"the Host header names another host than the request: {_shown(value)}")
    return target


def is_authorized(request: h11.Request, token: str) -> bool:
    """Whether the request presents the token as a proxy's basic credentials, exactly once."""
    given = [value for name, value in request.headers if name == b"proxy-authorization"]
    scheme, _, credentials = (given[0] if len(given) == 1 else b"").partition(b" ")
    wanted = base64.b64encode(f"{PROXY_USER}:{token}".encode())
    return hmac.compare_digest(credentials.strip(), wanted) and scheme.lower() == b"basic"


def onward(request: h11.Request, target: RequestTarget) -> h11.Request:
    """The request to send to the host itself: Host as it was checked, and nothing that is meant for a proxy."""
    dropped = _hop_by_hop(request.headers) | {b"host", b"expect"}
    named = str(target.destination)
    if target.destination.port == _HTTP_PORT:
        named = named.removesuffix(f":{_HTTP_PORT}")
    headers = [(b"Host", named.encode()), *_without(request.headers, dropped), (b"Connection", b"close")]
    return h11.Request(method=request.method, target=target.path, headers=headers)


def backward(response: h11.Response) -> h11.Response:
    """The response to give to the client. One request a connection: the next is judged anew."""
    headers = [*_without(response.headers, _hop_by_hop(response.headers)), (b"Connection", b"close")]
    return h11.Response(status_code=response.status_code, reason=response.reason, headers=headers)


def refusal(status: int, message: str) -> bytes:
    """A response that says no. The reason stands in the status line too: many clients show nothing else of it."""
    body = f"remit: {message}\n".encode()
    line = "".join(char if " " <= char <= "~" else "?" for char in message)[:200]
    asks = 'Proxy-Authenticate: Basic realm="remit"\r\n' if status == _UNAUTHORIZED else ""
    head = (
        f"HTTP/1.1 {status} {line}\r\n{asks}Content-Type: text/plain; charset=utf-8\r\nContent-Length: {len(body)}\r\n"
    )
    return f"{head}Connection: close\r\n\r\n".encode() + body


def _absolute(url: bytes) -> RequestTarget:
    if url[: len(_HTTP)].lower() != _HTTP:
        raise BadRequest("a proxy takes CONNECT host:port, or a whole http:// address")
    rest = url[len(_HTTP) :]
    if b"#" in rest or b"\\" in rest:
        raise BadRequest("an address has no # or \\ in it")
    end = min((rest.index(mark) for mark in (b"/", b"?") if mark in rest), default=len(rest))
    path = rest[end:]
    return RequestTarget(_destination(rest[:end], _HTTP_PORT), path if path.startswith(b"/") else b"/" + path)


def _destination(text: bytes, default_port: int | None) -> Destination:
    if b"@" in text:
        raise BadRequest("a proxy's address has no user in it")
    try:
        return Destination.parse(text.decode("latin-1"), default_port)
    except BadHost as error:
        raise BadRequest(str(error)) from None


def _same(header: bytes, destination: Destination) -> bool:
    """Whether a Host header means it. A missing port is its own: many clients leave it out of CONNECT."""
    try:
        return _destination(header.strip(), destination.port) == destination
    except BadRequest:
        return False


def _hop_by_hop(headers: Iterable[tuple[bytes, bytes]]) -> frozenset[bytes]:
    named = (value.split(b",") for name, value in headers if name == b"connection")
    listed = {word.strip().lower() for words in named for word in words}
    return _HOP_BY_HOP | (listed - {b"host", b"content-length", b"transfer-encoding"})


def _without(headers: Iterable[tuple[bytes, bytes]], dropped: frozenset[bytes]) -> Headers:
    return [(name, value) for name, value in headers if name not in dropped]


def _shown(text: bytes) -> str:
    return ascii(text[:80].decode("latin-1"))
