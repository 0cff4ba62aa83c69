"""One guarded exchange: policy is asked, the address is judged, the circuit counted; the body comes piece by piece."""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import httpx

from remit.api.operations import HttpOperation
from remit.backends.breaker import Breaker
from remit.backends.egress.dialing import Lookups, Resolver
from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.operations.base import OVERDUE, Effect
from remit.operations.http.redirects import Exchange
from remit.operations.http.transport import JudgedNetwork, JudgedTransport
from remit.policy.grant import Grant
from remit.policy.rules.http import egress_of

_SAFE_TO_REPEAT = frozenset({"GET", "HEAD", "OPTIONS", "PUT", "DELETE"})
_CONNECT_SECONDS = 10.0
SERVER_ERROR = 500


@dataclass(frozen=True, slots=True)
class StreamedResponse:
    """A response whose body is still to be read. `started` is of `time.monotonic`."""

    response: httpx.Response
    address: str | None
    started: float
    first_byte_seconds: float


@dataclass(frozen=True, slots=True)
class JudgedClient:
    """Sends requests to the addresses that policy has judged, and leaves hosts alone that fail again and again: each
    namespace for itself, because a host may well fail for what one of them asks of it."""

    resolve: Resolver
    breaker: Breaker
    lookups: Lookups = field(default_factory=Lookups)

    @contextlib.asynccontextmanager
    async def answering(
        self, grant: Grant, http: HttpOperation, exchange: Exchange, context: ssl.SSLContext, effect: Effect
    ) -> AsyncIterator[StreamedResponse]:
        """The answer to one request, as long as the block lasts. `grant` is one of an http operation; `effect` begins
        where the request may have arrived, and to repeat it could do more than it did once.

        Raises `PolicyDenied` and `OperationFailed`, also where reading the body fails within the block.
        """
        decision = grant.ask(http.model_copy(update={"url": str(exchange.url), "method": exchange.method}))
        if not decision.allowed:
            raise PolicyDenied(decision.message)
        url, destination = exchange.url, exchange.url.destination

        def sending() -> None:
            if not repeatable(http) and not effect.in_doubt:
                without = "may have arrived, and is not safe to repeat without an Idempotency-Key"
                effect.begin(f"{exchange.method} to {destination} {without}")

        egress = egress_of(decision.binding, exchange.method, url)
        network = JudgedNetwork(destination, egress, self.resolve, self.lookups.share(egress), sending)
        with self.breaker.calling(f"{grant.request.namespace}/{destination}") as call:
            answered = False
            try:
                async with _response(JudgedTransport(network, context), exchange) as (response, started, first):
                    answered = True
                    yield StreamedResponse(response, network.address, started, first)
            except httpx.TransportError as error:
                raise _failure(exchange, error) from None
            except asyncio.CancelledError as cancelled:
                call.silent = not answered and OVERDUE in cancelled.args
                raise
            call.answered = response.status_code < SERVER_ERROR


@contextlib.asynccontextmanager
async def _response(
    transport: JudgedTransport, exchange: Exchange
) -> AsyncIterator[tuple[httpx.Response, float, float]]:
    # The task's own timeout limits the whole request; these timeouts limit a time without data.
    timeout = httpx.Timeout(None, connect=_CONNECT_SECONDS)
    started = time.monotonic()
    async with transport:
        # No Accept-Encoding: the bytes that arrive are those that are counted, and a small body cannot decompress into
        # a large one.
        headers = httpx.Headers([("accept", "*/*"), ("user-agent", "remit"), ("accept-encoding", "identity")])
        headers.update(httpx.Headers([(name.encode(), value.encode()) for name, value in exchange.headers]))
        if cookies := exchange.cookies.header(exchange.url):
            headers["cookie"] = "; ".join([*headers.get_list("cookie"), cookies])
        headers["host"] = exchange.url.authority
        # Send the target that the policy check has read, not the one that the library would derive.
        extensions = {"target": exchange.url.target.encode("ascii"), "timeout": timeout.as_dict()}
        request = httpx.Request(
            exchange.method, str(exchange.url), headers=headers, content=exchange.body, extensions=extensions
        )
        sent = time.monotonic()
        # Bypasses httpx's client, which prepares to follow redirects itself and raises for redirects that it cannot
        # follow.
        response = await transport.handle_async_request(request)
        response.request = request
        exchange.cookies.keep(exchange.url, response)
        try:
            yield response, started, time.monotonic() - sent
        finally:
            await response.aclose()


def repeatable(http: HttpOperation) -> bool:
    """Whether the same request, sent again, does no more than it did once. A retry repeats the first, not where it was
    redirected to."""
    return http.method in _SAFE_TO_REPEAT or any(header.name.lower() == "idempotency-key" for header in http.headers)


def _failure(exchange: Exchange, error: httpx.TransportError) -> OperationFailed:
    """The failure for an error of the connection."""
    host, cause = exchange.url.destination, error.__cause__ or error
    if "CERTIFICATE_VERIFY_FAILED" in str(cause) or isinstance(cause, ssl.SSLCertVerificationError):
        message = f"the certificate of {host} is not trusted: {cause}; give its authority in spec.http.caFrom"
        return OperationFailed("TlsFailed", message, retryable=False)
    reason = "ConnectFailed" if isinstance(error, httpx.ConnectError | httpx.ConnectTimeout) else "ConnectionLost"
    message = f"{exchange.method} to {host}: {str(error) or type(error).__name__}"
    return OperationFailed(reason, message, category="Infrastructure")
