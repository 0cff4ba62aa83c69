"""Sends one request and follows where policy lets it lead."""

from __future__ import annotations

import asyncio
import re
import ssl
import time
from collections.abc import AsyncIterator
from typing import Any

import httpx
import orjson

from remit.api.operations import HttpOperation
from remit.backends.base import OutputSink
from remit.backends.breaker import Breaker
from remit.backends.egress.dialing import Resolver, system_resolver
from remit.backends.failure import OperationFailed
from remit.operations.base import OperationRequest, held
from remit.operations.http.client import SERVER_ERROR, JudgedClient, StreamedResponse
from remit.operations.http.download import download
from remit.operations.http.redirects import MOST, Exchange, following, parse_url
from remit.operations.http.retryafter import retry_after
from remit.operations.tls import TlsMaterial
from remit.policy.grant import Grant
from remit.policy.patterns import BadPattern, Pattern

_MOST_WORK = 1_000_000_000
"""Bytes of a body times RE2 instructions: seconds at the worst."""
_LATER = frozenset({408, 425, 429})
_NO_VALUE = re.compile(r"[\x00-\x08\x0a-\x1f\x7f\ud800-\udfff]")
"""Control characters but a tab, and bytes that are not UTF-8."""


class HttpExecutor:
    """HTTP requests. `resolve` is the system's resolver where not given."""

    def __init__(self, resolve: Resolver = system_resolver) -> None:
        self.breaker = Breaker("host")
        self._client = JudgedClient(resolve, self.breaker)

    async def execute(self, request: OperationRequest, output: OutputSink) -> str:
        """See `OperationExecutor.execute`. The body goes to stdout; each exchange, as one JSON line, to stderr."""
        http = request.subject
        assert isinstance(http, HttpOperation)  # noqa: S101  # by its operation
        most = held(http.max_response_bytes, "spec.http.maxResponseBytes", "have a file's contentFrom.url download it")
        context, expected = TlsMaterial.of(request).context(), _pattern(http)
        exchange = first = _first(http, request)
        for _ in range(MOST + 1):
            response, body = await self._send(request, exchange, context, most, output)
            location = response.headers.get("location") if http.follow_redirects else None
            onward = following(exchange, response.status_code, location)
            if onward is None:
                if exchange is first and response.status_code in _LATER:
                    request.effect.settle()  # the server did not act on the request
                output.write("stdout", body)
                await _judge(http, expected, exchange, response, body)
                return f"{exchange.description}: {response.status_code}, {len(body)} bytes"
            exchange = onward
        message = f"{first.url.without_query} was redirected more than {MOST} times"
        raise OperationFailed("TooManyRedirects", message, retryable=False)

    async def close(self) -> None:
        """Nothing is held."""

    def download(self, grant: Grant, url: str) -> AsyncIterator[bytes]:
        """The body at `url`, piece by piece, for an operation of another kind that policy lets have it."""
        return download(self._client, grant, url)

    async def _send(
        self, request: OperationRequest, exchange: Exchange, context: ssl.SSLContext, most: int, output: OutputSink
    ) -> tuple[httpx.Response, bytes]:
        http = request.subject
        assert isinstance(http, HttpOperation)  # noqa: S101  # by its operation
        async with self._client.answering(request.grant, http, exchange, context, request.effect) as answer:
            body = await _body(answer.response, most)
        output.write("stderr", _told(exchange, answer, len(body)))
        return answer.response, body


async def _body(response: httpx.Response, most: int) -> bytes:
    parts, size = [], 0
    async for chunk in response.aiter_raw():
        size += len(chunk)
        if size > most:
            message = f"the answer has more than {most} bytes; raise spec.http.maxResponseBytes"
            raise OperationFailed("ResponseTooLarge", message, retryable=False)
        parts.append(chunk)
    return b"".join(parts)


def _first(http: HttpOperation, request: OperationRequest) -> Exchange:
    headers, secret = [], set()
    for index, header in enumerate(http.headers):
        value = header.value or ""
        if header.value_from is not None:
            found = next((v for path, v in request.values.items() if path.startswith(f"headers[{index}].")), None)
            if found is None:
                continue  # the object is optional and does not exist
            value = found.decode(errors="surrogateescape").strip()
            secret.add(header.name.lower())
        if _NO_VALUE.search(value):
            message = f"spec.http.headers[{index}]: the value of {header.name} has a line break or is no text"
            raise OperationFailed("Invalid", message, retryable=False)
        headers.append((header.name, value))
    body = http.body.encode() if http.body is not None else None
    return Exchange(http.method, parse_url(http.url, "spec.http.url"), tuple(headers), body, frozenset(secret))


def _pattern(http: HttpOperation) -> Pattern | None:
    try:
        return None if http.expected_body is None else Pattern(http.expected_body)
    except BadPattern as error:
        message = f"spec.http.expectedBody: {error}"
        raise OperationFailed("Invalid", message, retryable=False) from None


async def _judge(
    http: HttpOperation, pattern: Pattern | None, exchange: Exchange, response: httpx.Response, body: bytes
) -> None:
    """Raises where the answer is not what was expected."""
    status = response.status_code
    expected = status in http.expected_status if http.expected_status else httpx.codes.is_success(status)
    if not expected:
        wanted = ", ".join(map(str, http.expected_status)) or "2xx"
        raise OperationFailed(
            "UnexpectedStatus",
            f"{exchange.description} answered {status}, not {wanted}",
            retryable=status in _LATER or status >= SERVER_ERROR,
            retry_after=retry_after(response),
        )
    if pattern is not None and not await _found(pattern, body):
        message = f"the body of {exchange.url.without_query} has nothing that matches spec.http.expectedBody"
        raise OperationFailed("UnexpectedBody", message)


async def _found(pattern: Pattern, body: bytes) -> bool:
    """Search in a thread, because hostile patterns are slow even with RE2, which releases the interpreter meanwhile."""
    if pattern.size * len(body) > _MOST_WORK:
        message = f"spec.http.expectedBody is too big to be looked for in {len(body)} bytes; use shorter repetitions"
        raise OperationFailed("Invalid", message, retryable=False)
    return await asyncio.to_thread(pattern.is_in, body.decode(errors="replace"))


def _told(exchange: Exchange, answer: StreamedResponse, size: int) -> bytes:
    """An exchange as one JSON line. The request's own headers are not in it: they may be secret."""
    told: dict[str, Any] = {
        "method": exchange.method,
        "url": str(exchange.url),
        "address": answer.address,
        "status": answer.response.status_code,
        "headers": [[name, value] for name, value in answer.response.headers.multi_items()],
        "bodyBytes": size,
        "firstByteSeconds": round(answer.first_byte_seconds, 6),
        "seconds": round(time.monotonic() - answer.started, 6),
    }
    return orjson.dumps(told) + b"\n"
