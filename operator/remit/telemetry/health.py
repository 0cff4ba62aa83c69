"""`/metrics`, `/healthz` (restart me when this fails) and `/readyz` (send me work when this succeeds)."""

from __future__ import annotations

import asyncio
import hmac
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from aiohttp import web

from remit.errors import InvalidInput, RemitError
from remit.regularfile import read_text
from remit.requestlog import RequestLogger
from remit.telemetry.metrics import Metrics

Check = Callable[[], str | Awaitable[str | None] | None]
"""None when all is well, otherwise the reason why not. May be asynchronous."""

_TOKEN_BYTES: Final = 64 << 10
CHECK_TIMEOUT: Final = 5.0
"""Seconds after which an asynchronous check counts as failed."""


@dataclass(frozen=True)
class Checks:
    """Named checks. A loop that hangs belongs in `live`; a dependency that is away belongs in `ready`."""

    live: dict[str, Check] = field(default_factory=dict)
    ready: dict[str, Check] = field(default_factory=dict)


def read_token(path: Path) -> str:
    """The token that a file holds, without white space around it. Raises `RemitError` where there is none."""
    try:
        token = read_text(path, _TOKEN_BYTES).strip()
    except (OSError, InvalidInput) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else error
        raise RemitError(f"the token for /metrics cannot be read from {path}: {why}") from None
    if not token:
        raise RemitError(f"the token for /metrics cannot be read from {path}: the file is empty")
    return token


def make_app(metrics: Metrics, checks: Checks, token_file: Path | None = None) -> web.Application:
    """The application, to be served alone (`HealthServer`) or mounted in another one. With `token_file`, `/metrics`
    asks for the token in it, which is read at each request, so that it can be changed there."""

    async def get_metrics(request: web.Request) -> web.Response:
        if token_file is not None:
            await _authenticate(request, token_file)
        body, content_type = metrics.render(request.headers.get("Accept", ""))
        return web.Response(body=body, headers={"Content-Type": content_type})

    async def get_health(request: web.Request) -> web.Response:
        return await _answer("healthz", checks.live, verbose="verbose" in request.query)

    async def get_readiness(request: web.Request) -> web.Response:
        return await _answer("readyz", checks.ready, verbose="verbose" in request.query)

    app = web.Application()
    app.router.add_get("/metrics", get_metrics)
    app.router.add_get("/healthz", get_health)
    app.router.add_get("/readyz", get_readiness)
    return app


class HealthServer:
    """Serves the application on an address of its own. Port 0 takes a free one; `port` says which."""

    def __init__(
        self,
        metrics: Metrics,
        checks: Checks,
        *,
        host: str = "127.0.0.1",
        port: int = 0,
        token_file: Path | None = None,
    ) -> None:
        logger = RequestLogger(__name__, lambda: None)
        self._runner = web.AppRunner(make_app(metrics, checks, token_file), access_log=None, logger=logger)
        self._host = host
        self._port = port
        self._token_file = token_file

    @property
    def port(self) -> int:
        addresses = self._runner.addresses
        return int(addresses[0][1]) if addresses else self._port

    async def start(self) -> None:
        """Raises `OSError` when the address cannot be had, and `RemitError` where there is no token to ask for."""
        if self._token_file is not None:
            await asyncio.to_thread(read_token, self._token_file)
        await self._runner.setup()
        try:
            await web.TCPSite(self._runner, self._host, self._port).start()
        except OSError:
            await self._runner.cleanup()
            raise

    async def stop(self) -> None:
        await self._runner.cleanup()

    async def __aenter__(self) -> HealthServer:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()


async def _authenticate(request: web.Request, token_file: Path) -> None:
    """Raises 401 for a request without the token, and 503 while the token cannot be read."""
    try:
        async with asyncio.timeout(CHECK_TIMEOUT):
            token = await asyncio.to_thread(read_token, token_file)
    except TimeoutError:
        raise web.HTTPServiceUnavailable(text=f"the token for /metrics cannot be read from {token_file}") from None
    except RemitError as error:
        raise web.HTTPServiceUnavailable(text=str(error)) from None
    scheme, _, given = request.headers.get("Authorization", "").partition(" ")
    matches = hmac.compare_digest(given.strip().encode("utf-8", "replace"), token.encode())
    if scheme.lower() != "bearer" or not matches:
        raise web.HTTPUnauthorized(text="a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})


async def failing(checks: Mapping[str, Check]) -> dict[str, str]:
    """The checks that fail, each with its reason."""
    return {name: reason for name, reason in (await _reasons(checks)).items() if reason}


async def _reasons(checks: Mapping[str, Check]) -> dict[str, str | None]:
    return dict(zip(checks, await asyncio.gather(*map(_run, checks.values())), strict=True))


async def _answer(endpoint: str, checks: Mapping[str, Check], *, verbose: bool) -> web.Response:
    reasons = await _reasons(checks)
    failed = any(reasons.values())
    if not failed and not verbose:
        return web.Response(text="ok")
    lines = [f"[-]{name} failed: {reason}" if reason else f"[+]{name} ok" for name, reason in reasons.items()]
    lines.append(f"{endpoint} check {'failed' if failed else 'passed'}")
    return web.Response(text="\n".join(lines) + "\n", status=503 if failed else 200)


async def _run(check: Check) -> str | None:
    try:
        outcome = check()
        if inspect.isawaitable(outcome):
            async with asyncio.timeout(CHECK_TIMEOUT):
                outcome = await outcome
    except TimeoutError:
        return f"no answer within {CHECK_TIMEOUT:g} s"
    except Exception as error:
        return f"{type(error).__name__}: {error}"
    return outcome
