"""The HTTP front on aiohttp: authentication, bodies, errors as Status objects, watch streams."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable
from typing import Any

import orjson
import structlog
from aiohttp import web

from remit.controlplane.failures import (
    Failure,
    PlainFailure,
    as_failure,
    bad_request,
    body_too_large,
    internal,
    no_impersonation,
    unauthorized,
)
from remit.controlplane.http.dispatch import Answer, Dispatcher
from remit.controlplane.http.metrics import RequestMetrics
from remit.controlplane.http.negotiation import JSON, Accepted, negotiate
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.http.warnings import warning_headers
from remit.controlplane.resources import Registry
from remit.controlplane.storage import StoreFailed
from remit.controlplane.verbs.watch import Watch
from remit.errors import ApiError

WRITE_SECONDS = 60.0
"""A watcher that has not read what it was sent for this long is cut off."""
BODY_LIMIT = 3 * 1024 * 1024
OPEN_PATHS = frozenset({"/healthz", "/livez", "/readyz"})
"""Answered without a token: probes have none."""

_UNCACHED = {"Cache-Control": "no-cache, private"}

log = structlog.get_logger(__name__)
_TOO_DEEP = "the object cannot be written as JSON: it is nested deeper than 250 levels"


class Front:
    """Turns HTTP requests into calls of the dispatcher. `stop()` ends the open watches."""

    def __init__(self, dispatcher: Dispatcher, token: str, registry: Registry, metrics: RequestMetrics) -> None:
        self._dispatcher = dispatcher
        self._registry = registry
        self._metrics = metrics
        self._bearer = f"Bearer {token}".encode()
        self._watches: set[Watch] = set()
        self._stopping = False
        self.on_authenticated: Callable[[Any], None] = lambda protocol: None
        """Called with the connection's protocol for each request that carries the token."""

    async def __call__(self, http: web.BaseRequest) -> web.StreamResponse:
        if self._is_authenticated(http):
            self.on_authenticated(http.protocol)
            return await self._answer(http)
        if http.path in OPEN_PATHS:
            response = await self._answer(http, body=b"")
        else:
            response = _refuse(unauthorized(), http, None)
            self._metrics.refuse(response.status)
        response.force_close()  # connections are kept open only for authenticated clients
        return response

    async def _answer(self, http: web.BaseRequest, body: bytes | None = None) -> web.StreamResponse:
        request = ApiRequest(http.method, http.rel_url.path, http.rel_url.query, http.headers)
        measuring, code = self._metrics.begin(request, self._registry), None
        try:
            response = await self._respond(http, request, body)
            code = response.status
            return response
        finally:
            measuring.end(code)

    async def _respond(self, http: web.BaseRequest, request: ApiRequest, body: bytes | None) -> web.StreamResponse:
        try:
            _refuse_impersonation(http)
            request.body = await _body(http) if body is None else body
            answer = await self._dispatcher.answer(request)
        except Failure as failure:
            return _refuse(failure, http, request)
        except ApiError as failure:
            return _refuse(as_failure(failure), http, request)
        except PlainFailure as failure:
            return _with_warnings(web.Response(status=failure.status, text=failure.text, headers=_UNCACHED), request)
        except StoreFailed as failure:
            return _refuse(internal(str(failure)), http, request)
        except (orjson.JSONEncodeError, RecursionError):
            return _refuse(bad_request(_TOO_DEEP), http, request)
        except asyncio.CancelledError:
            raise
        except Exception:
            log.exception("request_failed", method=http.method, path=http.path)
            return _refuse(internal("the control plane has a bug; its log says more"), http, request)
        if isinstance(answer.body, Watch):
            return await self._stream(http, answer.body, answer.headers)
        return _with_warnings(_response(answer), request)

    def _is_authenticated(self, http: web.BaseRequest) -> bool:
        given = http.headers.get("Authorization", "").encode("utf-8", "replace")
        return hmac.compare_digest(given, self._bearer)

    async def _stream(self, http: web.BaseRequest, watch: Watch, headers: dict[str, str]) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": JSON} | _UNCACHED | headers)
        response.enable_chunked_encoding()
        self._watches.add(watch)
        if self._stopping:  # the server began to stop after the request arrived
            watch.stop()
        try:
            await response.prepare(http)
            async for lines in watch:
                if lines:
                    async with asyncio.timeout(WRITE_SECONDS):
                        await response.write(lines)
            await response.write_eof()
        except (ConnectionError, RuntimeError):
            log.debug("watch_left", path=http.path)
        except TimeoutError:
            log.info("watch_not_read", path=http.path)
            if http.transport is not None:
                http.transport.abort()
        finally:
            self._watches.discard(watch)
        return response

    def stop(self) -> None:
        self._stopping = True
        for watch in self._watches:
            watch.stop()


def _refuse_impersonation(http: web.BaseRequest) -> None:
    if any(value and name.lower().startswith("impersonate-") for name, value in http.headers.items()):
        raise no_impersonation()


def _refuse(failure: Failure, http: web.BaseRequest, request: ApiRequest | None) -> web.Response:
    try:
        accepted = negotiate(http.headers.get("Accept", ""))
    except Failure:
        accepted = Accepted()
    headers = {"Content-Type": accepted.content_type} | _UNCACHED | failure.headers
    body = accepted.dump(failure.body())
    return _with_warnings(web.Response(status=failure.status, body=body, headers=headers), request)


async def _body(http: web.BaseRequest) -> bytes:
    if not http.can_read_body:
        return b""
    if (http.content_length or 0) > BODY_LIMIT:
        raise body_too_large(BODY_LIMIT)
    body = bytearray()
    async for chunk in http.content.iter_any():
        body += chunk
        if len(body) > BODY_LIMIT:
            raise body_too_large(BODY_LIMIT)
    return bytes(body)


def _response(answer: Answer) -> web.Response:
    assert isinstance(answer.body, bytes)  # noqa: S101 - a Watch was streamed
    return web.Response(
        status=answer.status,
        body=answer.body,
        headers={"Content-Type": answer.content_type} | _UNCACHED | answer.headers,
    )


def _with_warnings(response: web.Response, request: ApiRequest | None) -> web.Response:
    for value in warning_headers(request.warnings if request else ()):
        response.headers.add("Warning", value)
    return response
