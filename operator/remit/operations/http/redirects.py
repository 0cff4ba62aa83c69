"""Where a response sends the client next, and with what. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from urllib.parse import urljoin

from remit.operations.failure import OperationFailed
from remit.policy import BadHost
from remit.policy.rules.http import target_of

MOST = 10
_REDIRECTS = {301, 302, 303, 307, 308}
_TO_GET = {301, 302, 303}
_OF_THE_BODY = {"content-type", "content-length", "content-encoding"}
_CREDENTIALS = {"authorization", "cookie", "proxy-authorization"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request to send. `secret_headers` are lower-case names of those whose values came from Secrets."""

    method: str
    url: str
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    secret_headers: frozenset[str]


def following(sent: Exchange, status: int, location: str | None) -> Exchange | None:
    """The request to send after a response to `sent`; None: that was the end.

    Credentials, and every header from a Secret, stay with the origin they were meant for, as browsers keep them.
    Raises `OperationFailed` where the way leads from https back to http, `BadHost` where it leads nowhere.
    """
    if status not in _REDIRECTS or not location:
        return None
    try:
        url = urljoin(sent.url, location)
    except ValueError as error:
        raise BadHost(f"{location[:200]!r} is not a URL: {error}") from None
    origin, onward = target_of(sent.url).origin, target_of(url).origin
    if (origin[0], onward[0]) == ("https", "http"):
        message = f"{sent.url} redirects to {url}, which is not encrypted; name the http address itself if you mean it"
        raise OperationFailed("InsecureRedirect", message, retryable=False)
    method, body, headers = sent.method, sent.body, sent.headers
    if status in _TO_GET and method not in {"GET", "HEAD"}:
        method, body = "GET", None
        headers = tuple(header for header in headers if header[0].lower() not in _OF_THE_BODY)
    if onward != origin:
        private = _CREDENTIALS | sent.secret_headers
        headers = tuple(header for header in headers if header[0].lower() not in private)
    return Exchange(method, url, headers, body, sent.secret_headers)
