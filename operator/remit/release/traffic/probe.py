"""A probe that runs through a switch: it makes requests as a new client would, and records what came of each."""

from __future__ import annotations

import asyncio
import contextlib
import statistics
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Final
from urllib.parse import urlsplit

import aiohttp

from remit.api.slots import Slot
from remit.release.traffic.configuration import PROBE_HEADER, SIDE_HEADER

_MAX_OPEN: Final = 200
_MAX_SHOWN: Final = 10


@dataclass(frozen=True)
class ProbeSample:
    """Times are seconds of `time.monotonic`. `side` is empty where no side answered; `error` where all went well."""

    sent: float
    ended: float
    side: str
    error: str


@dataclass(frozen=True)
class ProbeReport:
    requests: int
    failed: int
    """No connection, no whole answer in time, or a status of 500 and above."""
    by_side: Mapping[str, int]
    switch_milliseconds: float | None
    """Time from the command to the old side's last answer; 0 if there was none, None if there was no switch."""
    p50_milliseconds: float
    p99_milliseconds: float
    errors: tuple[str, ...]
    """The first few, each once."""


class Probe:
    """Makes `rate` requests a second at `url`, each on a connection of its own, for as long as its block takes.

        async with Probe("http://127.0.0.1:8080/healthz") as probe:
            probe.switching(to="green")
            await traffic.apply(route)
            await probe.settled()
        probe.report()

    At `tcp://HOST:PORT` it only connects. A request is never made twice. Where replicas are slower than the
    rate, at most 200 requests are open at a time.

    `token` is that of `Traffic.probe_token`, and only for a port where that proxy speaks HTTP. Without it the requests
    count as those of users, and no side is known.
    """

    def __init__(self, url: str, *, token: str = "", rate: float = 50.0, timeout_seconds: float = 10.0) -> None:
        self._url = url
        self._headers = {PROBE_HEADER: token} if token else {}
        self.rate = rate
        """May be changed while it runs."""
        self._timeout = aiohttp.ClientTimeout(total=timeout_seconds)
        self._requests: list[ProbeSample] = []
        self._commands: list[tuple[float, Slot]] = []
        self._open: set[asyncio.Task[None]] = set()
        self._news = asyncio.Condition()

    async def __aenter__(self) -> Probe:
        connector = aiohttp.TCPConnector(force_close=True, limit=0)
        self._session = aiohttp.ClientSession(connector=connector, timeout=self._timeout)
        self._running = asyncio.create_task(self._run())
        try:
            await self._until(lambda: len(self._requests) > 0)
        except asyncio.CancelledError:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    async def _end(self) -> None:
        self._running.cancel()
        try:
            with contextlib.suppress(asyncio.CancelledError):
                await self._running
            await asyncio.gather(*self._open)
        finally:  # also if this task is cancelled while requests are in progress
            await self._session.close()

    def switching(self, *, to: Slot) -> None:
        """The command is about to be given."""
        self._commands.append((time.monotonic(), to))

    async def settled(self, requests: int = 10) -> None:
        """Wait until so many requests in a row, made after the last command, were not answered by the old side."""
        moment, to = self._commands[-1]

        def done() -> bool:
            late = [each for each in self._requests if each.sent > moment][-requests:]
            return len(late) >= requests and all(each.side in ("", to) for each in late)

        await self._until(done)

    @property
    def requests(self) -> Sequence[ProbeSample]:
        """The requests that have ended, in that order."""
        return self._requests

    def report(self) -> ProbeReport:
        took = [(each.ended - each.sent) * 1000 for each in self._requests]
        errors = dict.fromkeys(each.error for each in self._requests if each.error)
        return ProbeReport(
            requests=len(self._requests),
            failed=sum(1 for each in self._requests if each.error),
            by_side=Counter(each.side for each in self._requests if each.side),
            switch_milliseconds=switch_milliseconds(self._requests, self._commands),
            p50_milliseconds=statistics.median(took),
            p99_milliseconds=sorted(took)[len(took) * 99 // 100],
            errors=tuple(errors)[:_MAX_SHOWN],
        )

    async def _run(self) -> None:
        """At fixed times, so that a slow answer hides no request that a client would have made."""
        due = time.monotonic()
        while True:
            await asyncio.sleep(due - time.monotonic())
            due += 1 / self.rate
            if len(self._open) < _MAX_OPEN:
                task = asyncio.create_task(self._ask())
                self._open.add(task)
                task.add_done_callback(self._open.discard)

    async def _ask(self) -> None:
        sent, side, error = time.monotonic(), "", ""
        try:
            side, error = await (self._connect() if self._url.startswith("tcp://") else self._get())
        except (aiohttp.ClientError, OSError, TimeoutError) as exception:
            error = str(exception) or type(exception).__name__
        self._requests.append(ProbeSample(sent, time.monotonic(), side, error))
        async with self._news:
            self._news.notify_all()

    async def _get(self) -> tuple[str, str]:
        async with self._session.get(self._url, headers=self._headers, allow_redirects=False) as answer:
            await answer.read()
            error = f"status {answer.status}" if answer.status >= 500 else ""
            return answer.headers.get(SIDE_HEADER, ""), error

    async def _connect(self) -> tuple[str, str]:
        parts = urlsplit(self._url)
        async with asyncio.timeout(self._timeout.total):
            _, writer = await asyncio.open_connection(parts.hostname, parts.port)
        writer.close()
        return "", ""

    async def _until(self, done: Callable[[], bool]) -> None:
        async with self._news:
            await self._news.wait_for(done)


def switch_milliseconds(requests: list[ProbeSample], commands: list[tuple[float, Slot]]) -> float | None:
    """How long the last of `commands` took to hold for everyone; a moment and the side to switch to, each."""
    if not commands:
        return None
    moment, to = commands[-1]
    late = [each.ended for each in requests if each.ended > moment and each.side not in ("", to)]
    return (max(late, default=moment) - moment) * 1000
