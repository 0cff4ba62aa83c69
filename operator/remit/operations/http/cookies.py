"""Cookies that servers set along the redirects of one request.

They are kept as RFC 6265 says, and more narrowly: for the origin that set them, as all credentials are, and until the
request has ended. Sign-ons, and sites that check for cookies by a redirect to themselves, do not work without.
"""

from __future__ import annotations

from typing import Final

import httpx

from remit.policy.urls import Url

_MOST: Final = 50
_LARGEST: Final = 4096
"""Limit of a name and its value together. RFC 6265 asks clients to keep at least that many."""


class Cookies:
    """The cookies of one request, by origin."""

    def __init__(self) -> None:
        self._jars: dict[object, httpx.Cookies] = {}

    def keep(self, url: Url, response: httpx.Response) -> None:
        """Keep the cookies that the answer from `url` sets."""
        cookies = self._jars.setdefault(url.origin, httpx.Cookies())
        cookies.extract_cookies(response)
        for index, cookie in enumerate(list(cookies.jar)):
            text = f"{cookie.name}{cookie.value or ''}"
            if index >= _MOST or len(text) > _LARGEST or not (text.isascii() and text.isprintable()):
                cookies.jar.clear(cookie.domain, cookie.path, cookie.name)

    def header(self, url: Url) -> str:
        """The header `Cookie` of a request to `url`; empty if there is none."""
        request = httpx.Request("GET", str(url))
        if cookies := self._jars.get(url.origin):
            cookies.set_cookie_header(request)
        return str(request.headers.get("cookie", ""))
