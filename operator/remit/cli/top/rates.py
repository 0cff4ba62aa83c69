"""How many tasks were started, have ended and have failed, over the session. Pure."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

BUCKET_SECONDS: Final = 10
"""What one bar of a sparkline stands for."""
_KEPT: Final = 60
_MINUTE: Final = 60 // BUCKET_SECONDS


@dataclass
class Rate:
    """Events by when they came. Moments are seconds of a clock that never goes back."""

    began: float
    total: int = 0
    _buckets: deque[int] = field(default_factory=lambda: deque([0], maxlen=_KEPT))
    _last: int = 0
    """The number of the last bucket, counted from the beginning."""

    def count(self, now: float, events: int = 1) -> None:
        self._advance(now)
        self._buckets[-1] += events
        self.total += events

    def per_minute(self, now: float) -> int:
        """How many there were in the last minute, whose first seconds are left out."""
        self._advance(now)
        return sum(list(self._buckets)[-_MINUTE:])

    def bars(self, now: float) -> list[int]:
        """The newest last."""
        self._advance(now)
        return list(self._buckets)

    def _advance(self, now: float) -> None:
        wanted = int((now - self.began) // BUCKET_SECONDS)
        self._buckets.extend([0] * min(_KEPT, max(0, wanted - self._last)))
        self._last = max(self._last, wanted)


class Rates:
    """How many tasks start and end, over time."""

    def __init__(self, now: float) -> None:
        self.started, self.finished, self.failed = Rate(now), Rate(now), Rate(now)
