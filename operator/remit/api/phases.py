"""Where tasks and releases stand. A table of them needs these words and no model."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """Where a task stands, for people. Machines read the conditions."""

    PENDING = "Pending"
    QUEUED = "Queued"
    RUNNING = "Running"
    BACKOFF = "Backoff"
    SUCCEEDED = "Succeeded"
    FAILED = "Failed"
    TIMED_OUT = "TimedOut"
    CANCELLED = "Cancelled"
    DENIED = "Denied"
    SCHEDULED = "Scheduled"

    @property
    def final(self) -> bool:
        return self in FINAL_PHASES


FINAL_PHASES: Final = frozenset({Phase.SUCCEEDED, Phase.FAILED, Phase.TIMED_OUT, Phase.CANCELLED, Phase.DENIED})
FAILED_PHASES: Final = FINAL_PHASES - {Phase.SUCCEEDED, Phase.CANCELLED}


class DeploymentPhase(StrEnum):
    """Where a release stands, for people. Machines read the conditions."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    AWAITING_PROMOTION = "AwaitingPromotion"
    PAUSED = "Paused"
    ROLLING_BACK = "RollingBack"
    HEALTHY = "Healthy"
    PINNED = "Pinned"
    DEGRADED = "Degraded"
    FAILED = "Failed"
    TERMINATING = "Terminating"
