"""Phases of tasks and releases, separate from the models so that tables can be printed without importing these."""

from __future__ import annotations

from enum import StrEnum
from typing import Final


class Phase(StrEnum):
    """State of a task for people. Programs should read the conditions."""

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
    """State of a release for people. Programs should read the conditions."""

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
