"""`/metrics`, `/healthz` (restart me when this fails) and `/readyz` (send me work when this succeeds)."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from aiohttp import web

from remit.requestlog import RequestLogger
from remit.telemetry.metrics import Metrics

Check = Callable[[], str | Awaitable[str | None] | None]
"""None when all is well, otherwise the reason why not. May be asynchronous."""

CHECK_TIMEOUT: Final = 5.0
"""Seconds after which an asynchronous check counts as failed."""


@dataclass(frozen=True)
class Checks:
    """Named checks. A loop that hangs belongs in `live`; a dependency that is away belongs in `ready`."""

    live: dict[str, Check] = field(default_factory=dict)
    ready: dict[str, Check] = field(default_factory=dict)


def make_app(metrics: Metrics, checks: Checks) -> web.Application:
    """The application, to be served alone (`HealthServer`) or mounted in another one."""

    async def get_metrics(request: web.Request) -> web.Response:
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

    def __init__(self, metrics: Metrics, checks: Checks, *, host: str = "127.0.0.1", port: int = 0) -> None:
        logger = RequestLogger(__name__, lambda: None)
        self._runner = web.AppRunner(make_app(metrics, checks), access_log=None, logger=logger)
        self._host = host
        self._port = port

    @property
    def port(self) -> int:
        addresses = self._runner.addresses
        return int(addresses[0][1]) if addresses else self._port

    async def start(self) -> None:
        """Raises `OSError` when the address cannot be had."""
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


async def failing(checks: Mapping[str, Check]) -> dict[str, str]:
    """Those that fail, each with its reason."""
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
