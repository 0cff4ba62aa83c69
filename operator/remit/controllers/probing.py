"""Probes of live entries: requests around each step that touches what is live, and to the end of the bake."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Callable, Sequence
from typing import Final

from remit.release.traffic.probe import Probe, ProbeSample

_RATE: Final = 20.0
"""Requests a second."""
_TIMEOUT_SECONDS: Final = 2.0
_AFTER_SECONDS: Final = 5.0
"""How long the probe continues after the live side is complete and no longer changed, in seconds."""
_LONGEST_SECONDS: Final = 60.0
_WATCHING_RATES: Final = ((3600.0, 1.0), (float("inf"), 0.1))
"""Requests per second during a long bake: up to an hour, and beyond. The result of each request is kept."""
_START_SECONDS: Final = 0.5
"""How long a step waits for the first answer. A side that does not answer must not hold up the way back."""


class ProbeRun:
    """One probe, for as long as it is told to go on. `ended` is called once it has nothing more to say.

    `token` is as `Probe` has it.
    """

    def __init__(self, url: str, ended: Callable[[], None], token: str) -> None:
        self._probe = Probe(url, token=token, rate=_RATE, timeout_seconds=_TIMEOUT_SECONDS)
        self._began = asyncio.Event()
        self._limit = time.monotonic() + _LONGEST_SECONDS
        self._until = 0.0
        self.go_on()
        self._task = asyncio.create_task(self._run())
        self._task.add_done_callback(lambda _: ended())

    @property
    def over(self) -> bool:
        return self._task.done()

    @property
    def requests(self) -> Sequence[ProbeSample]:
        """The result of each request that has ended."""
        return self._probe.requests

    @property
    def answered(self) -> bool:
        """Whether anything was, so far."""
        return any(not request.error for request in self._probe.requests)

    def watch(self) -> None:
        """Continues for some seconds from now, as long as a bake may last. After a minute it sends fewer requests."""
        now = time.monotonic()
        if (gone := now - self._limit) > 0:
            self._probe.rate = next(rate for until, rate in _WATCHING_RATES if gone < until)
        self._until = now + _AFTER_SECONDS

    def go_on(self) -> None:
        """Continue for a few seconds from now, but for at most a minute in all."""
        self._until = min(time.monotonic() + _AFTER_SECONDS, self._limit)

    async def began(self) -> None:
        """Wait for its first answer, not for long."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_START_SECONDS):
                await self._began.wait()

    def stop(self) -> asyncio.Task[None]:
        """Make no further request. The task ends with those on their way."""
        self._task.cancel()
        return self._task

    async def end(self) -> None:
        """Make no further request, and wait for those on their way."""
        await asyncio.wait([self.stop()])

    async def _run(self) -> None:
        async with self._probe:
            self._began.set()
            while (left := self._until - time.monotonic()) > 0:  # noqa: ASYNC110 (it polls nothing)
                await asyncio.sleep(left)
