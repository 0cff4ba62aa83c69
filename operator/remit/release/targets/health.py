"""Health checks of instances by their address, with thresholds, as kubelets make them."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable, Hashable, Mapping
from dataclasses import dataclass, field
from typing import Final

import aiohttp

from remit.api.deployment import HealthCheck
from remit.errors import RemitError
from remit.release.targets.desiredstate import address

_FIRST_PAUSE: Final = 0.05
_LONGEST_PAUSE: Final = 0.5
_LONGEST_LOOK: Final = 2.0
"""How long a look at a target waits for first verdicts. A check may take an hour, in which a release is to be aborted.
"""

Check = Callable[[], Awaitable[str]]
"""Gives why it is not healthy; empty where it is. Raises RemitError where it cannot be made, such as for a command that
policy does not allow any more."""


def startup_pause(since: float) -> float:
    """Seconds until an instance that began `since` seconds ago is asked again: it is found at most a quarter late."""
    return min(max(_FIRST_PAUSE, since / 4), _LONGEST_PAUSE)


@dataclass
class Health:
    """The result of the checks of one instance. Until the first verdict it is neither healthy nor unhealthy."""

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
    liveness: bool = False
    """Whether a check that cannot be made says nothing. It is a failed one otherwise."""
    health: Health = field(default_factory=Health)
    _first: asyncio.Event = field(default_factory=asyncio.Event)
    _task: asyncio.Task[None] | None = None

    def begin(self) -> None:
        self._task = asyncio.create_task(self._run(), name="health check")

    async def first(self) -> None:
        """Wait for the first verdict, but not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(min(self.spec.timeout_seconds, _LONGEST_LOOK)):
                await self._first.wait()

    async def end(self) -> None:
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def _run(self) -> None:
        await asyncio.sleep(self.spec.initial_delay_seconds)
        began = time.monotonic()
        await self._begin(began + self.spec.period_seconds)
        while True:
            await asyncio.sleep(max(0.0, began + self.spec.period_seconds - time.monotonic()))
            began = time.monotonic()
            self._note(await self.ask())

    async def _begin(self, until: float) -> None:
        """Ask often at first, so that one that starts quickly is not found late. What fails then counts once."""
        began = time.monotonic()
        while why := await self.ask():
            now = time.monotonic()
            pause = startup_pause(now - began)
            if now + pause >= until:
                break
            await asyncio.sleep(pause)
        self._note(why)

    async def ask(self) -> str:
        """Check it once: why it is not healthy."""
        try:
            async with asyncio.timeout(self.spec.timeout_seconds):
                return await self.check()
        except TimeoutError:
            return f"no answer within {self.spec.timeout_seconds} s"
        except RemitError as error:
            return "" if self.liveness else str(error)

    def _note(self, why: str) -> None:
        thresholds = {"successes": self.spec.success_threshold, "failures": self.spec.failure_threshold}
        changed = self.health.note(why, **thresholds)
        self._first.set()
        if changed:
            self.changed()


@dataclass
class Watches:
    """The watches of all instances of a Deployment, by whatever tells one from another."""

    changed: Callable[[], None]
    """Called when the verdict on one changes."""
    liveness: bool = False
    """See `Watch.liveness`."""
    _going: dict[Hashable, Watch] = field(default_factory=dict)

    async def have(self, due: Mapping[Hashable, tuple[HealthCheck, Check]]) -> None:
        """Watch exactly these. New ones of health are waited for a little, so that few instances are merely unknown."""
        gone = [key for key in self._going if key not in due]
        await asyncio.gather(*(self._going.pop(key).end() for key in gone))
        new = {key: Watch(*how, self.changed, self.liveness) for key, how in due.items() if key not in self._going}
        self._going |= new
        for watch in new.values():
            watch.begin()
        if not self.liveness:
            await asyncio.gather(*(watch.first() for watch in new.values() if not watch.spec.initial_delay_seconds))

    def health(self, key: Hashable) -> Health:
        """The health of the instance as it is known. An instance without a check is healthy as soon as it runs."""
        watch = self._going.get(key)
        return watch.health if watch else Health(healthy=True)

    async def ask(self, key: Hashable) -> str:
        """Why a check that is made now fails; empty where it does not, and of what is not watched any more."""
        return await self._going[key].ask() if key in self._going else ""

    async def end(self) -> None:
        await self.have({})


def check_of(
    spec: HealthCheck, host: str, ports: Mapping[str, int], run: Check, moved: Mapping[int, int] | None = None
) -> Check:
    """The check of an instance at `host`, whose ports are named; `run` is for checks that are a command.

    `moved` says where ports are that are found at another number than their own.
    """
    if spec.http is not None:
        scheme, port = spec.http.scheme.lower(), port_of(spec.http.port, ports, moved)
        url = f"{scheme}://{address(host, port)}{spec.http.path}"
        return lambda: _http(url)
    if spec.tcp is not None:
        number = port_of(spec.tcp.port, ports, moved)
        return lambda: _tcp(host, number)
    return run


def port_of(port: int | str, ports: Mapping[str, int], moved: Mapping[int, int] | None = None) -> int:
    """A name stands for the instance's own port of that name; a number for itself, unless that port was moved."""
    return ports[port] if isinstance(port, str) else (moved or {}).get(port, port)


async def _http(url: str) -> str:
    # The check connects to an address, for which there is no certificate.
    connector = aiohttp.TCPConnector(ssl=False, force_close=True)
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
        return f"{address(host, port)}: {error.strerror or error}"
    writer.close()
    return ""
