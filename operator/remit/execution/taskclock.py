"""The time of day as tasks and releases have it: a clock that is set changes no deadline while this process lives."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)
TOLERANCE: Final = 5.0
"""Seconds by which the clock of the day may leave that of the machine before it has been set, which is told."""


class TaskClock:
    """The clock of each task or Deployment: it begins with the time at its first look, and goes on by `boot`
    (CLOCK_BOOTTIME), which nobody sets.

    What status has from other processes is in the time of day, so each task starts from `wall` as it is at its own
    first look: a task that is created after the clock was set has the new time.
    """

    def __init__(self, wall: Callable[[], datetime.datetime], boot: Callable[[], float]) -> None:
        self._wall, self._boot = wall, boot
        self._offsets: dict[str, float] = {}
        self._start = self._seen = wall().timestamp() - boot()

    def now(self, uid: str) -> datetime.datetime:
        """The present time for the task `uid`, in UTC."""
        boot, offset = self._boot(), self._offset()
        return _utc(boot + self._offsets.setdefault(uid, offset))

    def steady(self) -> float:
        """A steady clock for all tasks, in seconds: the time at the process's start plus what has passed since."""
        return self._boot() + self._start

    def restart(self, uid: str) -> None:
        """Use the present time of day for the task from now on: its end was written with it, or a release is over."""
        self._offsets[uid] = self._offset()

    def forget(self, uid: str) -> None:
        self._offsets.pop(uid, None)

    def _offset(self) -> float:
        offset = self._wall().timestamp() - self._boot()
        if abs(offset - self._seen) > TOLERANCE:
            log.warning(
                "the clock was set; deadlines, retries and waits of tasks and releases that are known go on unchanged",
                seconds=round(offset - self._seen, 1),
            )
            self._seen = offset
        return offset


def _utc(seconds: float) -> datetime.datetime:
    return datetime.datetime.fromtimestamp(seconds, datetime.UTC)
