"""Status of an ExecutionTask: its phase and conditions, its attempts, and what it left."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from remit.api.base import Conditions, MicroTime, StatusModel, StatusRecord, Time, map_by
from remit.api.phases import Phase

Stream = Literal["stdout", "stderr"]


class PolicyStatus(StatusModel):
    """The policy decision on the task."""

    name: str = ""
    """The policy that decided, as `namespace/name` if it is in another namespace than the task."""
    rule: str = ""
    """The rule of the policy that matched, such as `commands.allow[2]`."""
    decision: Literal["Allowed", "Denied"]
    """The decision."""
    audited: list[str] = []
    """What policies with enforcement Audit would have denied."""


class QueueStatus(StatusModel):
    """The place of a queued task and what it waits for. Removed when the task is admitted."""

    position: int
    """Position among the waiting tasks of its namespace, counted from 1."""
    waiting: int
    """Number of waiting tasks in its namespace."""
    reason: str
    """Why the task is not admitted: OperatorCapacity, OperatorMemory, PolicyConcurrency, PolicyRate or Workspace."""
    policy: str = ""
    """The policy whose limit is reached, as `namespace/name`, if the reason is a policy's limit."""


class SandboxStatus(StatusModel):
    """The confinement layers of the last attempt."""

    layers: list[str] = []
    """Layers that were in force."""
    missing: list[str] = []
    """Layers that the host does not support."""
    limits: dict[str, str] = {}
    """What enforces each limit, by the limit's name in `spec.resources`."""


class UsageStatus(StatusModel):
    """Resource usage of an attempt."""

    cpu_seconds: float = 0
    """Processor time, in seconds."""
    max_memory_bytes: int = 0
    """Peak memory usage, in bytes."""
    read_bytes: int = 0
    """Data read from disk, in bytes."""
    written_bytes: int = 0
    """Data written to disk, in bytes."""
    throttled_seconds: float = 0
    """Time for which the limit on processor time held the attempt back, in seconds."""
    max_pids: int = 0
    """Highest number of processes and threads, if the kernel counts it."""


class NetworkStatus(StatusModel):
    """Connections that an attempt with `network: restricted` made through its proxy."""

    connections: int = 0
    """Number of connections that were made."""
    denied: int = 0
    """Number of connections that were refused."""
    sent_bytes: int = 0
    """Data sent, in bytes."""
    received_bytes: int = 0
    """Data received, in bytes."""
    last_denied: str = ""
    """Why the last refused connection was refused, and which field of which policy would allow it."""


class AttemptStatus(StatusModel):
    """One run of the operation. It is recorded before it starts."""

    number: int
    """Number of the attempt, counted from 1."""
    id: str
    """Name of the attempt in the run store, the logs and the audit trail."""
    backend: str = "process"
    """Backend that ran the attempt; `operator` if the operator performed the operation itself."""
    lease_transitions: int | None = None
    """The `leaseTransitions` of the Lease while the operator that started the attempt held it. Not set without leader
    election."""
    started_at: MicroTime
    """When the attempt was recorded, just before it started."""
    job_uid: str = Field(default="", alias="jobUID")
    """The uid of the Job if the attempt is one, as soon as the API server has assigned it. Another Job of the same name
    is not the attempt."""
    finished_at: MicroTime | None = None
    """When the last process of the attempt had ended."""
    exit_code: int | None = None
    """The program's exit code, or 128 plus the signal's number if a signal ended the program."""
    reason: str = ""
    """How it ended, as one CamelCase word: Completed, ExitCode, Signal, Timeout, OOMKilled, Cancelled, Interrupted …"""
    exceeded: list[str] = []
    """Limits that the attempt reached: Memory, Pids, Time, Output, OpenFiles, FileSize or Disk."""
    usage: UsageStatus | None = None
    """Resource usage of the attempt."""
    network: NetworkStatus | None = None
    """Connections of the attempt, with `network: restricted`."""


class OutputStatus(StatusModel):
    """The last attempt's output."""

    stdout_tail: str = ""
    """The end of standard output, as valid text, with secrets redacted."""
    stderr_tail: str = ""
    """The end of standard error, as valid text, with secrets redacted."""
    stdout_bytes: int = 0
    """Amount written to standard output, in bytes."""
    stderr_bytes: int = 0
    """Amount written to standard error, in bytes."""
    truncated: bool = False
    """Whether the program wrote more than is kept."""
    raw: bool = False
    """Whether the output is kept byte for byte, including secrets (`spec.output.raw`). The ends shown here are
    redacted; they are empty if the operator was lost before the attempt ended."""
    redactions: int = 0
    """Number of secrets that `[redacted]` replaced. If it is not 0 and `raw` is false, the output that is kept differs
    from what the program wrote."""
    redacted_streams: list[Stream] = []
    """The streams with redacted secrets, if they are known."""
    binary_streams: list[Stream] = []
    """The streams whose beginning looks binary: it contains NUL bytes or is not UTF-8. Their ends are shown here as
    text."""
    ref: str = ""
    """Where `remit logs` finds all output that is kept."""

    @property
    def altered(self) -> bool:
        """Whether the output that is kept differs from what the program wrote, because secrets were redacted."""
        return self.redactions > 0 and not self.raw

    def changed(self, attempt: int) -> str:
        """Returns a message for people about the redactions in the output of attempt number `attempt`."""
        times = "once" if self.redactions == 1 else f"{self.redactions} times"
        where = f" in {' and '.join(self.redacted_streams)}" if self.redacted_streams else ""
        return (
            f"the output kept of attempt {attempt} is not what was written: [redacted] took the place of a secret"
            f" {times}{where}; do not restore a dump from it"
        )

    def looks_binary(self, attempt: int) -> str:
        """Returns a message for people about `binary_streams` of attempt number `attempt`; empty if there are none."""
        if not self.binary_streams:
            return ""
        names = " and ".join(self.binary_streams)
        verb = "looks" if len(self.binary_streams) == 1 else "look"
        kept = (
            "is kept byte for byte" if self.raw else "is kept with secrets replaced; spec.output.raw keeps every byte"
        )
        return f"{names} of attempt {attempt} {verb} binary: status shows the end of it as text, and it {kept}"


class ArtifactStatus(StatusModel):
    """Files of the task that are kept."""

    name: str
    """Name of the artifact in `spec.artifacts`."""
    files: int = 0
    """Number of its files."""
    bytes: int = 0
    """Total size of its files, in bytes."""
    digest: str = ""
    """`sha256:` and the SHA-256 of what `sha256sum` prints for the files, in the order of their paths."""


class ResultStatus(StatusModel):
    """A small text that the task left."""

    name: str
    """Name of the result in `spec.results`."""
    value: str = ""
    """The text, with secrets redacted."""


class VolumeStatus(StatusModel):
    """The content of a volume."""

    name: str
    """Name of the volume in `spec.volumes`."""
    digest: str = ""
    """Digest of the content of an artifact or a release. Every attempt mounts this content."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentRun(StatusRecord):
    """Measurements of a run that succeeded, from its last attempt."""

    name: str
    """Name of the run's task."""
    finished_at: MicroTime
    """When the run ended."""
    duration_seconds: float
    """Time from the start to the end of the run, in seconds."""
    cpu_seconds: float | None = None
    """Processor time, in seconds, if the backend measures it."""
    max_memory_bytes: int | None = None
    """Peak memory usage, in bytes, if the backend measures it."""


class ErrorStatus(StatusModel):
    """Why the task failed."""

    reason: str = ""
    """The reason, as one stable CamelCase word, as in the conditions. `remit errors REASON` explains what to do."""
    category: str
    """The kind of failure: Denied, Invalid, Sandbox, ExitCode, Timeout, Deadline, Resources, Interrupted, Cancelled,
    Artifacts, Operation or Infrastructure."""
    message: str
    """What went wrong and what to do about it."""
    retryable: bool = False
    """Whether the same task may succeed if it runs again."""


class ExecutionTaskStatus(StatusModel):
    """Progress and outcome of the task."""

    observed_generation: int = -1
    """The `metadata.generation` that this status describes."""
    phase: Phase | None = None
    """State of the task for people. Programs should read the conditions."""
    conditions: Conditions = []
    """Succeeded (True, False or Unknown), Finished, Reconciling and Stalled. Wait for Finished, then read Succeeded.
    Unusual (True) is present if the run differs much from earlier runs."""
    operation: str = ""
    """Name of the operation, for the table of `kubectl get`."""
    backend: str = ""
    """Where the task runs: `spec.backend`, or the backend that the installation chose when it first processed the task;
    `operator` if the operator performs the operation itself."""
    image: str = ""
    """The container image of the task, if the backend runs images."""
    message: str = ""
    """The last event, in one sentence."""
    policy: PolicyStatus | None = None
    """The policy decision on the task."""
    sandbox: SandboxStatus | None = None
    """The confinement of the last attempt."""
    attempts: list[AttemptStatus] = []
    """The first attempt and the latest nine."""
    attempt_count: int = 0
    """Number of attempts so far."""
    interruptions: int = 0
    """Number of attempts that were lost because the operator was lost."""
    output: OutputStatus | None = None
    """Output of the last attempt."""
    volumes: Annotated[list[VolumeStatus], Field(json_schema_extra=map_by("name"))] = []
    """The artifacts and releases among the task's volumes. Their content is fixed when the first attempt starts."""
    artifacts: Annotated[list[ArtifactStatus], Field(json_schema_extra=map_by("name"))] = []
    """Files of the last attempt that are kept."""
    results: Annotated[list[ResultStatus], Field(json_schema_extra=map_by("name"))] = []
    """Small texts that the last attempt left."""
    exit_code: int | None = None
    """Exit code of the last attempt."""
    error: ErrorStatus | None = None
    """Why the task failed."""
    queue: QueueStatus | None = None
    """The place of the task in the queue, updated at most every half a minute. Set only while the task waits."""
    queued_at: MicroTime | None = None
    """When the task first had to wait in the queue."""
    start_time: MicroTime | None = None
    """When the first attempt started."""
    deadline: MicroTime | None = None
    """When the task must have ended, by its own `deadlineSeconds` or by a policy's."""
    completion_time: MicroTime | None = None
    """When the task ended."""
    expiration_time: Time | None = None
    """When the task is deleted with its output, by its `ttlSecondsAfterFinished`, or by the operator's default for
    tasks with generated names."""
    duration: str = ""
    """Time from the start of the first attempt to the end of the task, for people."""
    next_retry_time: MicroTime | None = None
    """When the next attempt is due."""
    next_schedule_time: Time | None = None
    """When the next scheduled run is due."""
    last_schedule_time: Time | None = None
    """When the last scheduled run was due."""
    active: list[str] = []
    """Names of the scheduled runs that have not ended."""
    recent_runs: list[RecentRun] = []
    """Measurements of the latest 20 successful runs of a schedule. The next run is compared with them."""
