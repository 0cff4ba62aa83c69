"""Health checks of instances by their address, with thresholds, as kubelets make them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from remit.api.deployment import HealthCheck

_LISTEN_SECONDS: Final = 0.05

Check = Callable[[], Awaitable[str]]
"""Gives why it is not healthy; empty where it is."""


@dataclass
class Health:
    """What the checks of one instance came to. Until the first verdict it is neither healthy nor unhealthy."""

    healthy: bool = False
    unhealthy: bool = False
    message: str = ""
    _row: int = 0
    _good: bool = True

    def note(self, why: str, *, successes: int, failures: int) -> bool:
        """One result; whether it changed the verdict."""
        good = not why
        self._row = self._row + 1 if good == self._good else 1
        self._good, before = good, (self.healthy, self.unhealthy)
        if good and self._row >= successes:
            self.healthy, self.unhealthy, self.message = True, False, ""
        elif not good and self._row >= failures:
            self.healthy, self.unhealthy, self.message = False, True, why
        return before != (self.healthy, self.unhealthy)


@dataclass
class Watch:
    """Checks one instance for as long as it is wanted."""

    spec: HealthCheck
    check: Check
    changed: Callable[[], None]
    address: tuple[str, int] | None = None
    """Where it will listen, if that is known: until it does for the first time, the first check is put off."""
    health: Health = field(default_factory=Health)
    _first: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name="health check")

    async def first(self) -> None:
        """Until the first check was made, at most as long as one may take."""
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._first.wait(), self.spec.timeout_seconds)

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await asyncio.sleep(self.spec.initial_delay_seconds)
        began = time.monotonic()
        if self.address is not None:
            await self._listening(*self.address)
        while True:
            try:
                why = await asyncio.wait_for(self.check(), self.spec.timeout_seconds)
            except TimeoutError:
                why = f"no answer within {self.spec.timeout_seconds} s"
            thresholds = {"successes": self.spec.success_threshold, "failures": self.spec.failure_threshold}
            changed = self.health.note(why, **thresholds)
            self._first.set()
            if changed:
                self.changed()
            await asyncio.sleep(max(0.0, began + self.spec.period_seconds - time.monotonic()))
            began = time.monotonic()

    async def _listening(self, host: str, port: int) -> None:
        """Until it listens, at most for a period. So one that starts quickly is not asked too early, and found late."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(self.spec.period_seconds):
                while await _tcp(host, port):  # noqa: ASYNC110  # nobody tells when it listens
                    await asyncio.sleep(_LISTEN_SECONDS)


def check_of(spec: HealthCheck, host: str, ports: Mapping[str, int], run: Callable[[], Awaitable[str]]) -> Check:
    """The check of an instance at `host`, whose ports are named; `run` is for checks that are a command."""
    if spec.http is not None:
        scheme, port = spec.http.scheme.lower(), port_of(spec.http.port, ports)
        url = f"{scheme}://{host}:{port}{spec.http.path}"
        return lambda: _http(url)
    if spec.tcp is not None:
        number = port_of(spec.tcp.port, ports)
        return lambda: _tcp(host, number)
    return run


def address_of(spec: HealthCheck, host: str, ports: Mapping[str, int]) -> tuple[str, int] | None:
    """Where the check goes to; None for a command."""
    asked = spec.http or spec.tcp
    return (host, port_of(asked.port, ports)) if asked is not None else None


def port_of(port: int | str, ports: Mapping[str, int]) -> int:
    """A name stands for the instance's own port of that name; a number for itself."""
    return ports[port] if isinstance(port, str) else port


async def _http(url: str) -> str:
    connector = aiohttp.TCPConnector(ssl=False, force_close=True)  # an address has no certificate
    try:
        async with (
            aiohttp.ClientSession(connector=connector) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            return "" if 200 <= answer.status < 400 else f"{url} answered {answer.status}"
    except (aiohttp.ClientError, OSError) as error:
        return f"{url}: {error}"


async def _tcp(host: str, port: int) -> str:
    try:
        _, writer = await asyncio.open_connection(host, port)
    except OSError as error:
        return f"{host}:{port}: {error.strerror or error}"
    writer.close()
    return ""
