"""Decides where a redirect leads, and what is sent there."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from remit.backends.failure import OperationFailed
from remit.operations.http.cookies import Cookies
from remit.policy.urls import BadUrl, Url

MOST = 10
_REDIRECTS = {301, 302, 303, 307, 308}
_TO_GET = {301, 302, 303}
_OF_THE_BODY = {"content-type", "content-length", "content-encoding"}
_CREDENTIALS = {"authorization", "cookie", "proxy-authorization"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One request: what policy judges, what is sent and what is recorded. `secret_headers` are lower-case names of
    those whose values came from Secrets."""

    method: str
    url: Url
    headers: tuple[tuple[str, str], ...]
    body: bytes | None
    secret_headers: frozenset[str]
    cookies: Cookies = field(default_factory=Cookies, compare=False)
    """The cookies of all exchanges of one request."""

    @property
    def description(self) -> str:
        """The address for messages."""
        return f"{self.method} {self.url.without_query}"


def parse_url(text: str, field: str) -> Url:
    """Raises `OperationFailed` for a URL that no request is sent to."""
    try:
        return Url.parse(text)
    except BadUrl as error:
        raise OperationFailed("Invalid", f"{field}: {error}", retryable=False) from None


def following(sent: Exchange, status: int, location: str | None) -> Exchange | None:
    """The request to send after a response to `sent`; None: that was the end.

    Credentials, and every header from a Secret, stay with the origin they were meant for, as browsers keep them.
    Raises `OperationFailed` where the way leads nowhere, or from https back to http.
    """
    if status not in _REDIRECTS or not location:
        return None
    try:
        url = sent.url.join(location)
    except BadUrl as error:
        message = f"{sent.url.without_query} redirects to a URL that no request is sent to: {error}"
        raise OperationFailed("BadRedirect", message, retryable=False) from None
    if (sent.url.scheme, url.scheme) == ("https", "http"):
        message = (
            f"{sent.url.without_query} redirects to {url.without_query}, which is not encrypted; name the http address"
            " itself if you mean it"
        )
        raise OperationFailed("InsecureRedirect", message, retryable=False)
    method, body, headers = sent.method, sent.body, sent.headers
    if status in _TO_GET and method not in {"GET", "HEAD"}:
        method, body = "GET", None
        headers = tuple(header for header in headers if header[0].lower() not in _OF_THE_BODY)
    if url.origin != sent.url.origin:
        private = _CREDENTIALS | sent.secret_headers
        headers = tuple(header for header in headers if header[0].lower() not in private)
    return replace(sent, method=method, url=url, headers=headers, body=body)
