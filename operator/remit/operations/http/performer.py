"""Sends one request and follows where policy lets it lead."""

from __future__ import annotations

import ssl
import time
from dataclasses import dataclass
from typing import Any

import httpx
import orjson
import re2

from remit.api.operations import HttpOperation
from remit.api.quantity import parse_bytes
from remit.backends import OutputSink
from remit.backends.egress import Resolver
from remit.backends.egress.dialing import system_resolver
from remit.errors import PolicyDenied
from remit.operations.base import Work
from remit.operations.breaker import Breaker
from remit.operations.failure import OperationFailed
from remit.operations.http.redirects import MOST, Exchange, following
from remit.operations.http.transport import JudgedNetwork, JudgedTransport
from remit.policy import BadHost
from remit.policy.rules.http import egress_of, target_of

_SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_LATER = frozenset({408, 425, 429})
_SERVER_ERROR = 500
_CONNECT_SECONDS = 10.0


@dataclass(slots=True)
class _Body:
    """What came of a response."""

    content: bytes
    first_byte_seconds: float


class HttpPerformer:
    """HTTP requests. `resolve` is the system's resolver where not given."""

    def __init__(self, resolve: Resolver = system_resolver) -> None:
        self.breaker = Breaker("host")
        self._resolve = resolve

    async def perform(self, work: Work, output: OutputSink) -> str:
        """See `Performer.perform`. The body goes to stdout; each exchange, as one JSON line, to stderr."""
        http = work.subject
        assert isinstance(http, HttpOperation)  # noqa: S101  # by its operation
        context = _trust(http, work)
        exchange: Exchange | None = _first(http, work)
        for _ in range(MOST + 1):
            assert exchange is not None  # noqa: S101  # by the loop's end
            response, body = await self._send(work, http, exchange, context, output)
            try:
                onward = following(exchange, response.status_code, response.headers.get("location"))
            except BadHost as error:
                raise OperationFailed("BadRedirect", f"{exchange.url} redirects nowhere: {error}") from None
            if onward is None or not http.follow_redirects:
                output.write("stdout", body.content)
                _judge(http, exchange, response.status_code, body.content)
                size = len(body.content)
                return f"{exchange.method} {exchange.url.partition('?')[0]}: {response.status_code}, {size} bytes"
            exchange = onward
        raise OperationFailed("TooManyRedirects", f"{http.url} was redirected more than {MOST} times", retryable=False)

    async def close(self) -> None:
        """Nothing is held."""

    async def _send(
        self, work: Work, http: HttpOperation, exchange: Exchange, context: ssl.SSLContext, output: OutputSink
    ) -> tuple[httpx.Response, _Body]:
        decision = work.grant.ask(http.model_copy(update={"url": exchange.url, "method": exchange.method}))
        if not decision.allowed:
            raise PolicyDenied(decision.message)
        target = target_of(exchange.url)
        network = JudgedNetwork(target.destination, egress_of(decision.binding, exchange.method, target), self._resolve)
        started = time.monotonic()
        with self.breaker.calling(str(target.destination)) as call:
            try:
                response, body = await _exchange(JudgedTransport(network, context), exchange, _most_bytes(http))
            except httpx.TransportError as error:
                raise _failure(exchange, error, connected=network.address is not None) from None
            call.answered = response.status_code < _SERVER_ERROR
        output.write("stderr", _told(exchange, response, body, network.address, time.monotonic() - started))
        return response, body


async def _exchange(transport: JudgedTransport, exchange: Exchange, most: int) -> tuple[httpx.Response, _Body]:
    # The task's own timeout bounds the whole; these bound a silence.
    timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
    async with httpx.AsyncClient(transport=transport, timeout=timeout, trust_env=False) as client:
        # No Accept-Encoding: what comes is what is counted, and a small body cannot unfold into a large one.
        headers = httpx.Headers([("accept", "*/*"), ("user-agent", "remit"), ("accept-encoding", "identity")])
        headers.update(exchange.headers)
        request = client.build_request(exchange.method, exchange.url, headers=headers, content=exchange.body)
        started = time.monotonic()
        response = await client.send(request, stream=True)
        first, parts, size = time.monotonic() - started, [], 0
        try:
            async for chunk in response.aiter_raw():
                size += len(chunk)
                if size > most:
                    message = f"the answer has more than {most} bytes; raise spec.http.maxResponseBytes"
                    raise OperationFailed("ResponseTooLarge", message, retryable=False)
                parts.append(chunk)
        finally:
            await response.aclose()
        return response, _Body(b"".join(parts), first)


def _first(http: HttpOperation, work: Work) -> Exchange:
    headers, secret = [], set()
    for index, header in enumerate(http.headers):
        value = header.value or ""
        if header.value_from is not None:
            found = next((v for path, v in work.values.items() if path.startswith(f"headers[{index}].")), None)
            if found is None:
                continue  # optional, and not there
            value = found.decode().strip()
            secret.add(header.name.lower())
        if any(character in value for character in "\r\n\0"):
            message = f"spec.http.headers[{index}]: the value of {header.name} has a line break; a header has one line"
            raise OperationFailed("Invalid", message, retryable=False, category="Invalid")
        headers.append((header.name, value))
    body = http.body.encode() if http.body is not None else None
    return Exchange(http.method, http.url, tuple(headers), body, frozenset(secret))


def _trust(http: HttpOperation, work: Work) -> ssl.SSLContext:
    if http.ca_from is None:
        return ssl.create_default_context()
    pem = next((value for path, value in work.values.items() if path.startswith("caFrom.")), b"")
    try:
        return ssl.create_default_context(cadata=pem.decode())
    except (ssl.SSLError, UnicodeDecodeError, ValueError):
        message = "spec.http.caFrom: what it refers to is no certificate in PEM form"
        raise OperationFailed("Invalid", message, retryable=False, category="Invalid") from None


def _judge(http: HttpOperation, exchange: Exchange, status: int, body: bytes) -> None:
    """Raises where the answer is not what was expected."""
    expected = status in http.expected_status if http.expected_status else httpx.codes.is_success(status)
    if not expected:
        wanted = ", ".join(map(str, http.expected_status)) or "2xx"
        raise OperationFailed(
            "UnexpectedStatus",
            f"{exchange.method} {exchange.url.partition('?')[0]} answered {status}, not {wanted}",
            retryable=status in _LATER or (status >= _SERVER_ERROR and _repeatable(exchange)),
        )
    if http.expected_body is not None and not re2.search(http.expected_body, body.decode(errors="replace")):
        message = f"the body of {exchange.url.partition('?')[0]} has nothing that matches spec.http.expectedBody"
        raise OperationFailed("UnexpectedBody", message, retryable=_repeatable(exchange))


def _repeatable(exchange: Exchange) -> bool:
    """Whether the same request, sent again, does no more than it did once."""
    return exchange.method in _SAFE_TO_REPEAT or any(name.lower() == "idempotency-key" for name, _ in exchange.headers)


def _failure(exchange: Exchange, error: httpx.TransportError, *, connected: bool) -> OperationFailed:
    """What went wrong on the way. Where the request may have arrived, it is only repeated if that does no harm."""
    host, cause = target_of(exchange.url).destination, error.__cause__ or error
    if "CERTIFICATE_VERIFY_FAILED" in str(cause) or isinstance(cause, ssl.SSLCertVerificationError):
        message = f"the certificate of {host} is not trusted: {cause}; give its authority in spec.http.caFrom"
        return OperationFailed("TlsFailed", message, retryable=False, category="Infrastructure")
    reason = "ConnectFailed" if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else "ConnectionLost"
    message = f"{exchange.method} to {host}: {str(error) or type(error).__name__}"
    retryable = not connected or _repeatable(exchange)
    if not retryable:
        message += f"; it may have arrived, and {exchange.method} is not safe to repeat without an Idempotency-Key"
    return OperationFailed(reason, message, retryable=retryable, category="Infrastructure")


def _most_bytes(http: HttpOperation) -> int:
    return parse_bytes(http.max_response_bytes)


def _told(exchange: Exchange, response: httpx.Response, body: _Body, address: str | None, total: float) -> bytes:
    """An exchange as one JSON line. The request's own headers are not in it: they may be secret."""
    told: dict[str, Any] = {
        "method": exchange.method,
        "url": exchange.url,
        "address": address,
        "status": response.status_code,
        "headers": [[name, value] for name, value in response.headers.multi_items()],
        "bodyBytes": len(body.content),
        "firstByteSeconds": round(body.first_byte_seconds, 6),
        "seconds": round(total, 6),
    }
    return orjson.dumps(told) + b"\n"
