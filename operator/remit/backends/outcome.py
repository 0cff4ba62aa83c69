"""How an attempt ended: one type, from the backend or the operation that saw it to status and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Final, Literal

from remit.backends.egress.usage import NetworkUse

if TYPE_CHECKING:
    # Supervisors of processes import this module and must not import pydantic.
    from remit.api.executiontaskstatus import OutputStatus


class ExitReason(StrEnum):
    """Why an attempt ended. The values are API: they appear in `status.attempts[].reason`."""

    COMPLETED = "Completed"
    EXIT_CODE = "ExitCode"
    SIGNALED = "Signal"
    TIMED_OUT = "Timeout"
    CANCELLED = "Cancelled"
    INTERRUPTED = "Interrupted"
    """The operator went, and the attempt with it; or what it ran in was taken away."""
    EVICTED = "Evicted"
    """The cluster needed its place, or it used more of a node than it may."""
    NODE_LOST = "NodeLost"
    GATEWAY_LOST = "GatewayLost"
    """The egress gateway of its restricted network, on a cluster."""
    IMAGE_PULL_FAILED = "ImagePullFailed"
    QUOTA_EXCEEDED = "QuotaExceeded"
    """The namespace's, on a cluster."""
    ADMISSION_REFUSED = "AdmissionRefused"
    """The cluster does not admit what it would run in."""
    DENIED = "Denied"
    OOM_KILLED = "OOMKilled"
    PIDS_EXCEEDED = "PidsExceeded"
    OPEN_FILES_EXCEEDED = "OpenFilesExceeded"
    FILE_SIZE_EXCEEDED = "FileSizeExceeded"
    DISK_EXCEEDED = "DiskExceeded"
    ARTIFACT_MISSING = "ArtifactMissing"
    ARTIFACT_TOO_LARGE = "ArtifactTooLarge"
    ARTIFACT_UNREADABLE = "ArtifactUnreadable"
    """What it left cannot be kept: a name that is no text, or a store that is full."""
    ARTIFACT_NOT_STORED = "ArtifactNotStored"
    """Object storage did not take what it left."""
    START_FAILED = "StartFailed"
    SANDBOX_UNAVAILABLE = "SandboxUnavailable"
    BACKEND_ERROR = "BackendError"
    INTERNAL_ERROR = "InternalError"
    """A mistake of Remit's own."""


INTERRUPTIONS: Final = frozenset(
    {ExitReason.INTERRUPTED, ExitReason.EVICTED, ExitReason.NODE_LOST, ExitReason.GATEWAY_LOST}
)
"""Ends that are not the program's doing, and that came while it may have run: `onInterruption` says what follows."""


@dataclass(frozen=True, slots=True)
class Usage:
    """The usage of the attempt's whole process tree. `source` says how it is known.

    `cgroup` counts everything. `sampled` looks at the processes a few times a second, so the last moments and
    short-lived children may be missing; its memory is the sum of resident sets. I/O is of block devices.
    """

    cpu_seconds: float = 0.0
    max_memory_bytes: int = 0
    read_bytes: int = 0
    written_bytes: int = 0
    wall_seconds: float = 0.0
    throttled_seconds: float = 0.0
    max_tasks: int = 0
    source: Literal["cgroup", "sampled", "none"] = "none"


@dataclass(frozen=True, slots=True)
class KeptArtifact:
    """The kept files of an attempt, under the name that the task has for it."""

    name: str
    files: int
    bytes: int
    digest: str
    """`sha256:` and the SHA-256 of its listing: see `remit.execution.artifacts`."""


def _now() -> datetime:
    return datetime.now(UTC)


@dataclass(frozen=True, slots=True)
class Outcome:
    """How an attempt ended.

    `reason` is an `ExitReason`, or the word of an operation that failed, such as `StatusMismatch`. `exit_code` is
    128 + signal for a command that a signal ended, as a shell reports it; None where nothing was executed or the end
    was not seen.
    """

    reason: str
    message: str
    exit_code: int | None = None
    category: str = ""
    """The kind of failure; empty: what the reason says."""
    retryable: bool = True
    """False where the same, tried again, ends the same."""
    retry_after_seconds: float = 0.0
    """How long a server asks to be left alone before a retry."""
    finished_at: datetime = field(default_factory=_now)
    """In UTC: when nothing of it was alive any more."""
    exceeded: tuple[str, ...] = ()
    """Limits that were met (`Exceeded`), whether or not that is why it ended."""
    usage: Usage | None = None
    """None where nothing counts it."""
    layers: tuple[str, ...] = ()
    """Confinement in force (`Layer`); with `missing`, empty for what runs in no sandbox."""
    missing: tuple[str, ...] = ()
    enforced_by: Mapping[str, str] = field(default_factory=dict)
    """What holds each limit, as `Plan.enforced_by`."""
    network: NetworkUse | None = None
    """With `network: restricted`: what went through the proxy."""
    output: OutputStatus | None = None
    """What was kept of its output: filled in by who keeps it."""
    output_digest: str = ""
    artifacts: tuple[KeptArtifact, ...] = ()
    results: Mapping[str, str] = field(default_factory=dict)
    """Small texts that it left, by name."""
