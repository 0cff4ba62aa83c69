"""A rate for bytes, in both directions together."""

from __future__ import annotations

import asyncio
from typing import Final

_SLACK_SECONDS: Final = 0.05


class Pace:
    """Holds transfers to `bytes_per_second`; None does not hold them at all.

    Each transfer reserves the time that it takes at that rate, after those reserved before it, so that connections
    share the rate in turn. A start that is less than 50 ms away is not waited for: timers are not that fine.
    """

    def __init__(self, bytes_per_second: int | None = None) -> None:
        self._rate = bytes_per_second
        self._free_at = 0.0

    @property
    def chunk(self) -> int:
        """The most bytes to transfer in one go: a tenth of a second's worth, or 64 KiB."""
        return 65536 if self._rate is None else max(1, min(65536, self._rate // 10))

    def reserve(self, count: int, now: float) -> float:
        """Reserve the time for `count` bytes. Gives how long to wait before the next transfer, in seconds."""
        if self._rate is None:
            return 0.0
        self._free_at = max(self._free_at, now) + count / self._rate
        wait = self._free_at - now
        return wait if wait > _SLACK_SECONDS else 0.0

    async def passed(self, count: int) -> None:
        """`count` bytes went over: wait until the next may."""
        if wait := self.reserve(count, asyncio.get_running_loop().time()):
            await asyncio.sleep(wait)
