"""Downloads the content of an address, piece by piece: for operations that need it as their content."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from dataclasses import replace

import httpx

from remit.api.operations import HttpOperation
from remit.backends.failure import OperationFailed
from remit.operations.base import Effect
from remit.operations.http.client import SERVER_ERROR, JudgedClient
from remit.operations.http.redirects import MOST, Exchange, following, parse_url
from remit.operations.http.retryafter import retry_after
from remit.policy.grant import Grant
from remit.policy.urls import display_url

_LATER = frozenset({408, 425, 429})


async def download(client: JudgedClient, grant: Grant, url: str) -> AsyncIterator[bytes]:
    """The body at `url`, under the http rules of the policies that gave `grant`. Each redirect is held to them too.

    Raises `PolicyDenied` and `OperationFailed`; the latter too where the body ends before its end.
    """
    asking = replace(grant, request=replace(grant.request, operation="http"))
    http, context = HttpOperation(url=url), ssl.create_default_context()
    exchange = Exchange("GET", parse_url(url, "the URL to download"), (), None, frozenset())
    for _ in range(MOST + 1):
        async with client.answering(asking, http, exchange, context, Effect()) as answer:
            status = answer.response.status_code
            onward = following(exchange, status, answer.response.headers.get("location"))
            if onward is None:
                if not httpx.codes.is_success(status):
                    message = f"{exchange.description} answered {status}, not 2xx"
                    again = status >= SERVER_ERROR or status in _LATER
                    after = retry_after(answer.response)
                    raise OperationFailed("UnexpectedStatus", message, retryable=again, retry_after=after)
                async for chunk in answer.response.aiter_raw():
                    yield chunk
                return
        exchange = onward
    raise OperationFailed(
        "TooManyRedirects", f"{display_url(url)} was redirected more than {MOST} times", retryable=False
    )
