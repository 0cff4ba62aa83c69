"""How an attempt ended, in the words of status: for the task itself, for the audit trail and for the run store."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Final, Self

from pydantic import BaseModel
from pydantic.alias_generators import to_camel

from remit.api.base import MicroTime
from remit.api.executiontaskstatus import (
    ArtifactStatus,
    AttemptStatus,
    NetworkStatus,
    OutputStatus,
    ResultStatus,
    SandboxStatus,
    UsageStatus,
)
from remit.backends.egress.usage import DestinationUse, NetworkUse
from remit.backends.outcome import KeptArtifact, Outcome, Usage

_LIMITS: Final[Mapping[str, str]] = {
    "memory_bytes": "memory",
    "cpu_cores": "cpu",
    "pids": "pids",
    "disk_bytes": "disk",
    "file_bytes": "fileSize",
    "open_files": "openFiles",
    "disk_bytes_per_second": "diskBytesPerSecond",
    "network_bytes_per_second": "networkBytesPerSecond",
}
"""The names that users know of the limits of a sandbox."""
_LIMITS_BY_FIELD: Final = {field: name for name, field in _LIMITS.items()}


def closed(attempt: AttemptStatus, outcome: Outcome) -> AttemptStatus:
    """`attempt`, which was open, with its end."""
    return attempt.model_copy(
        update={
            "finished_at": outcome.finished_at,
            "exit_code": outcome.exit_code,
            "reason": str(outcome.reason),
            "exceeded": [str(limit) for limit in outcome.exceeded],
            "usage": usage_status(outcome),
            "network": _network_status(outcome),
        }
    )


def usage_status(outcome: Outcome) -> UsageStatus | None:
    """None where nothing counted it."""
    usage = outcome.usage
    if usage is None:
        return None
    return UsageStatus(
        cpu_seconds=round(usage.cpu_seconds, 3),
        max_memory_bytes=usage.max_memory_bytes,
        read_bytes=usage.read_bytes,
        written_bytes=usage.written_bytes,
        throttled_seconds=round(usage.throttled_seconds, 3),
        max_pids=usage.max_tasks,
    )


def sandbox_status(outcome: Outcome) -> SandboxStatus | None:
    """None for what ran in no sandbox."""
    if not (outcome.layers or outcome.missing or outcome.enforced_by):
        return None
    limits = {_LIMITS.get(name, name): by for name, by in outcome.enforced_by.items()}
    return SandboxStatus(
        layers=[str(layer) for layer in outcome.layers],
        missing=[str(layer) for layer in outcome.missing],
        limits=limits,
    )


def artifact_statuses(outcome: Outcome) -> list[ArtifactStatus]:
    return [ArtifactStatus(**dataclasses.asdict(each)) for each in outcome.artifacts]


def result_statuses(outcome: Outcome) -> list[ResultStatus]:
    return [ResultStatus(name=name, value=value) for name, value in outcome.results.items()]


def destinations(outcome: Outcome) -> list[dict[str, str | int]]:
    """Destinations that it connected to or tried to, for the audit trail."""
    used = outcome.network.destinations if outcome.network else ()
    return [{to_camel(name): value for name, value in dataclasses.asdict(each).items()} for each in used]


def _network_status(outcome: Outcome) -> NetworkStatus | None:
    if outcome.network is None:
        return None
    counted = {name: getattr(outcome.network, name) for name in NetworkStatus.model_fields}
    return NetworkStatus(**counted)


class AttemptRecord(BaseModel):
    """The run store's `outcome.json`. Earlier versions of Remit write and read the same; a later one may use words for
    limits and layers that this one does not know, which stay as they are."""

    reason: str
    message: str
    exit_code: int | None = None
    category: str = ""
    retryable: bool = True
    retry_after_seconds: float = 0.0
    finished_at: MicroTime
    exceeded: list[str] = []
    usage: UsageStatus | None = None
    output: OutputStatus | None = None
    output_digest: str = ""
    sandbox: SandboxStatus | None = None
    network: NetworkStatus | None = None
    destinations: list[dict[str, str | int]] = []
    artifacts: list[ArtifactStatus] = []
    results: list[ResultStatus] = []

    @classmethod
    def of(cls, outcome: Outcome) -> Self:
        return cls(
            reason=str(outcome.reason),
            message=outcome.message,
            exit_code=outcome.exit_code,
            category=outcome.category,
            retryable=outcome.retryable,
            retry_after_seconds=outcome.retry_after_seconds,
            finished_at=outcome.finished_at,
            exceeded=[str(limit) for limit in outcome.exceeded],
            usage=usage_status(outcome),
            output=outcome.output,
            output_digest=outcome.output_digest,
            sandbox=sandbox_status(outcome),
            network=_network_status(outcome),
            destinations=destinations(outcome),
            artifacts=artifact_statuses(outcome),
            results=result_statuses(outcome),
        )

    def outcome(self) -> Outcome:
        """The recorded outcome. `Usage` lacks what status does not tell."""
        sandbox = self.sandbox or SandboxStatus()
        return Outcome(
            reason=self.reason,
            message=self.message,
            exit_code=self.exit_code,
            category=self.category,
            retryable=self.retryable,
            retry_after_seconds=self.retry_after_seconds,
            finished_at=self.finished_at,
            exceeded=tuple(self.exceeded),
            usage=_usage(self.usage) if self.usage else None,
            layers=tuple(sandbox.layers),
            missing=tuple(sandbox.missing),
            enforced_by={_LIMITS_BY_FIELD.get(field, field): by for field, by in sandbox.limits.items()},
            network=_network_use(self.network, self.destinations) if self.network else None,
            output=self.output,
            output_digest=self.output_digest,
            artifacts=tuple(KeptArtifact(**each.model_dump()) for each in self.artifacts),
            results={each.name: each.value for each in self.results},
        )


def _usage(status: UsageStatus) -> Usage:
    counted = status.model_dump()
    return Usage(max_tasks=counted.pop("max_pids"), **counted)


def _network_use(status: NetworkStatus, recorded: list[dict[str, str | int]]) -> NetworkUse:
    names = {to_camel(field.name): field.name for field in dataclasses.fields(DestinationUse)}
    unknown: dict[str, str | int] = {"destination": "", **dict.fromkeys(set(names.values()) - {"destination"}, 0)}
    uses = [unknown | {names[name]: value for name, value in each.items() if name in names} for each in recorded]
    return NetworkUse(**status.model_dump(), destinations=tuple(DestinationUse(**use) for use in uses))  # type: ignore[arg-type]
