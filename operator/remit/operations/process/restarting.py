"""When a process that ended is started again. Pure."""

from __future__ import annotations

from typing import Final, Literal

RestartPolicy = Literal["Always", "OnFailure", "Never"]
INITIAL_SECONDS: Final = 1.0
MAX_SECONDS: Final = 60.0
STEADY_SECONDS: Final = 60.0
"""What has run for so long was well: the next failure counts as the first."""


def failures_in_row(before: int, ran_seconds: float) -> int:
    """How many ends in a row came too soon, this one included."""
    return 1 if ran_seconds >= STEADY_SECONDS else before + 1


def restart_delay(policy: RestartPolicy, *, succeeded: bool, in_row: int) -> float | None:
    """Seconds to wait before the next start, doubled with each end `in_row` up to a minute; None: leave it."""
    if policy == "Never" or (policy == "OnFailure" and succeeded):
        return None
    return min(MAX_SECONDS, INITIAL_SECONDS * 2.0 ** min(in_row - 1, 10))
