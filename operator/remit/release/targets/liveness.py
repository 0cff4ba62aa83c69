"""Liveness checks: an instance that runs and fails its own is started again, each run of it once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Hashable, Mapping
from dataclasses import dataclass

import structlog

from remit.api.deployment import LivenessCheck
from remit.errors import RemitError
from remit.release.targets.health import Check, Watches

Restart = Callable[[str], Coroutine[object, object, None]]
"""Ends this run of an instance, so that another one begins; told why. It may take the grace period of the instance.
Nothing happens where that run is over. Raises RemitError."""

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class Due:
    """How one run of an instance is checked, and ended."""

    spec: LivenessCheck
    check: Check
    restart: Restart


class Liveness:
    """The liveness of all instances of a Deployment, each by what identifies its present run."""

    def __init__(self, changed: Callable[[], None]) -> None:
        """`changed` is called when a check has failed for good."""
        self._watches = Watches(changed, liveness=True)
        self._restarting: dict[Hashable, asyncio.Task[None]] = {}

    async def have(self, due: Mapping[Hashable, Due]) -> None:
        """Check exactly these, and restart those that have failed. Returns at once."""
        await self._watches.have({key: (each.spec, each.check) for key, each in due.items()})
        for key, each in due.items():
            if self._watches.health(key).unhealthy:
                self._begin(key, self._restart_if_failing(key, each.restart))

    def restart(self, key: Hashable, restart: Restart, message: str) -> None:
        """Restart what somebody else has found to fail. Nothing happens where that is under way."""
        self._begin(key, restart(_why(message)))

    async def end(self) -> None:
        """Check and restart nothing more."""
        tasks = list(self._restarting.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._watches.end()

    def _begin(self, key: Hashable, restarting: Coroutine[object, object, None]) -> None:
        if key in self._restarting:
            restarting.close()
        else:
            self._restarting[key] = asyncio.create_task(self._finish(key, restarting), name="restart")

    async def _finish(self, key: Hashable, restarting: Coroutine[object, object, None]) -> None:
        try:
            await restarting
        except RemitError as error:  # the next look tries again
            log.warning("an instance cannot be restarted", error=str(error))
        finally:
            del self._restarting[key]

    async def _restart_if_failing(self, key: Hashable, restart: Restart) -> None:
        """The verdict may be old: of a host that was out of reach until now, all instances have failed."""
        if why := await self._watches.ask(key):
            await restart(_why(why))


def _why(message: str) -> str:
    return f"its liveness check failed: {message}"
