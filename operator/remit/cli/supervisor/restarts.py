"""When a process that ended is started again, and when no more. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

INITIAL_SECONDS: Final = 0.5
MAX_SECONDS: Final = 30.0
STEADY_SECONDS: Final = 60.0
"""What was ready for so long was well: its end counts as the first."""
MAX_FAILED_STARTS: Final = 5


@dataclass(frozen=True, slots=True)
class Restarts:
    """Remembers the ends of a process."""

    in_row: int = 0
    """How many came too soon, one after the other."""
    failed_starts: int = 0
    """How many of the last ones came before it was ready."""

    def after_end(self, ready_seconds: float | None) -> Restarts:
        """One more end, of a process that was ready for so long; None: never."""
        if ready_seconds is None:
            return Restarts(self.in_row + 1, self.failed_starts + 1)
        return Restarts(1 if ready_seconds >= STEADY_SECONDS else self.in_row + 1)

    @property
    def delay(self) -> float | None:
        """Seconds until the next start, doubled with each end in a row; None: it never comes up, so leave it."""
        if self.failed_starts >= MAX_FAILED_STARTS:
            return None
        return min(MAX_SECONDS, INITIAL_SECONDS * 2.0 ** min(self.in_row - 1, 10))
