"""The alerts of which somebody should be notified."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple


class AlertName(StrEnum):
    """The name of an alert in one word: `alerts` of a route, and `alertname` at an Alertmanager."""

    TASK_FAILED = "TaskFailed"
    """A task failed for good or ran into its timeout. Told of for as long as `taskFailedFor` says."""
    TASK_UNUSUAL = "TaskUnusual"
    """A task took much more or less than those before that are like it. Told of for as long as `taskFailedFor` says."""
    SCHEDULE_FAILING = "ScheduleFailing"
    """The newest run of a schedule failed. Over when one succeeds."""
    POLICY_DENIALS = "PolicyDenials"
    """Policies denied many tasks of one namespace in a short time."""
    RELEASE_WAITING = "ReleaseWaiting"
    """A release waits for its promotion."""
    RELEASE_ROLLED_BACK = "ReleaseRolledBack"
    """A release failed, and what was live before it is live again. Over when a release succeeds."""
    RELEASE_FAILED = "ReleaseFailed"
    """A release failed and was not rolled back."""
    DEPLOYMENT_DEGRADED = "DeploymentDegraded"
    """What is live is not as healthy as it should be."""
    AUDIT_UNAVAILABLE = "AuditUnavailable"
    """The audit trail cannot be written, so nothing runs."""
    OPERATOR_UNHEALTHY = "OperatorUnhealthy"
    """A health check of the operator fails."""


CRITICAL = frozenset({AlertName.AUDIT_UNAVAILABLE, AlertName.OPERATOR_UNHEALTHY, AlertName.RELEASE_FAILED})


class AlertKey(NamedTuple):
    """One alert of all that are active. `namespace` is empty for what concerns the operator itself."""

    name: AlertName
    namespace: str
    subject: str
    """What it is about, such as `task/backup`."""


@dataclass(frozen=True, slots=True)
class Alert:
    key: AlertKey
    message: str
    """What is wrong, in one sentence."""
    started_at: datetime.datetime
    ends_at: datetime.datetime | None = None
    """When it is over without anything having changed; it is not told then that it is."""
    labels: Mapping[str, str] = field(default_factory=dict)
    """The labels of the object, which the selector of a route matches."""

    @property
    def severity(self) -> str:
        return "critical" if self.key.name in CRITICAL else "warning"
