"""What an ExecutionTask says of itself: where it stands, each attempt, and what is left of it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field

from remit.api.base import Conditions, MicroTime, StatusModel, StatusRecord, Time, map_by
from remit.api.phases import Phase

Stream = Literal["stdout", "stderr"]


class PolicyStatus(StatusModel):
    """The decision that let the task run, or did not."""

    name: str = ""
    """The policy that decided; with its namespace in front where that is another one."""
    rule: str = ""
    """The rule of it that matched, such as `commands.allow[2]`."""
    decision: Literal["Allowed", "Denied"]
    """What it said."""
    audited: list[str] = []
    """What a policy in Audit enforcement would have denied."""


class QueueStatus(StatusModel):
    """Where a queued task waits, and for what. Gone as soon as it is let in."""

    position: int
    """Its place among the waiting tasks of its namespace, counted from 1."""
    waiting: int
    """How many tasks wait in its namespace."""
    reason: str
    """What lets no more in: OperatorCapacity, OperatorMemory, PolicyConcurrency, PolicyRate or Workspace."""
    policy: str = ""
    """The policy, as `namespace/name`, where one does."""


class SandboxStatus(StatusModel):
    """The confinement layers of the last attempt."""

    layers: list[str] = []
    """In force."""
    missing: list[str] = []
    """Not given by this host."""
    limits: dict[str, str] = {}
    """What holds each limit, by its name in `spec.resources`."""


class UsageStatus(StatusModel):
    """What an attempt used."""

    cpu_seconds: float = 0
    """Processor time, in seconds."""
    max_memory_bytes: int = 0
    """Memory at its highest, in bytes."""
    read_bytes: int = 0
    """Read from disk, in bytes."""
    written_bytes: int = 0
    """Written to disk, in bytes."""
    throttled_seconds: float = 0
    """How long it was held back by its limit of processor time, in seconds."""
    max_pids: int = 0
    """Processes and threads at their most, where the kernel counts that."""


class NetworkStatus(StatusModel):
    """What an attempt with `network: restricted` did through its proxy."""

    connections: int = 0
    """How many were made."""
    denied: int = 0
    """How many were refused."""
    sent_bytes: int = 0
    """How much was sent, in bytes."""
    received_bytes: int = 0
    """How much was received, in bytes."""
    last_denied: str = ""
    """Why the last refused one was, and which field of which policy would allow it."""


class AttemptStatus(StatusModel):
    """One run of the operation, recorded before it starts."""

    number: int
    """Counted from 1."""
    id: str
    """The name of the run in the run store, the logs and the audit trail."""
    backend: str = "process"
    """Where it ran; `operator` for what Remit performs itself."""
    lease_transitions: int | None = None
    """The `leaseTransitions` of the Lease when the operator that started it held that. Absent without leader
    election."""
    started_at: MicroTime
    """When it was recorded, just before it started."""
    job_uid: str = Field(default="", alias="jobUID")
    """Of an attempt that is a Job, the Job's uid once the API server has given it: no other one of its name is the
    attempt."""
    finished_at: MicroTime | None = None
    """When nothing of it was alive any more."""
    exit_code: int | None = None
    """The program's exit code; 128 and the signal's number where a signal ended it."""
    reason: str = ""
    """How it ended, as one CamelCase word: Completed, ExitCode, Signal, Timeout, OOMKilled, Cancelled, Interrupted …"""
    exceeded: list[str] = []
    """Limits that it met: Memory, Pids, Time, Output, OpenFiles, FileSize or Disk."""
    usage: UsageStatus | None = None
    """What it used."""
    network: NetworkStatus | None = None
    """With `network: restricted`: its connections."""


class OutputStatus(StatusModel):
    """The last attempt's output."""

    stdout_tail: str = ""
    """The end of standard output, as valid text, with secrets redacted."""
    stderr_tail: str = ""
    """The end of standard error, as valid text, with secrets redacted."""
    stdout_bytes: int = 0
    """How much was written to standard output, in bytes."""
    stderr_bytes: int = 0
    """How much was written to standard error, in bytes."""
    truncated: bool = False
    """Whether more was written than is kept."""
    raw: bool = False
    """Whether the output is kept byte for byte, secrets included (`spec.output.raw`). The ends shown here are redacted,
    and empty where the operator was lost before the attempt ended."""
    redactions: int = 0
    """How many times `[redacted]` took the place of a secret. Unless it is 0 or `raw` is true, what is kept is not what
    was written."""
    redacted_streams: list[Stream] = []
    """In which of them, where that is known."""
    binary_streams: list[Stream] = []
    """Those whose beginning looks binary: it has NUL bytes or is not UTF-8. Their ends shown here are text."""
    ref: str = ""
    """Where `remit logs` finds all that is kept."""

    @property
    def altered(self) -> bool:
        """Whether what is kept is not what was written, because secrets were redacted."""
        return self.redactions > 0 and not self.raw

    def changed(self, attempt: int) -> str:
        """For people: what the redactions in the output of attempt number `attempt` mean."""
        times = "once" if self.redactions == 1 else f"{self.redactions} times"
        where = f" in {' and '.join(self.redacted_streams)}" if self.redacted_streams else ""
        return (
            f"the output kept of attempt {attempt} is not what was written: [redacted] took the place of a secret"
            f" {times}{where}; do not restore a dump from it"
        )

    def looks_binary(self, attempt: int) -> str:
        """For people: what `binary_streams` of attempt number `attempt` mean; empty where there are none."""
        if not self.binary_streams:
            return ""
        names = " and ".join(self.binary_streams)
        verb = "looks" if len(self.binary_streams) == 1 else "look"
        kept = (
            "is kept byte for byte" if self.raw else "is kept with secrets replaced; spec.output.raw keeps every byte"
        )
        return f"{names} of attempt {attempt} {verb} binary: status shows the end of it as text, and it {kept}"


class ArtifactStatus(StatusModel):
    """Files that the task left and that are kept."""

    name: str
    """Its name in `spec.artifacts`."""
    files: int = 0
    """How many files it has."""
    bytes: int = 0
    """How much they have together, in bytes."""
    digest: str = ""
    """`sha256:` and the SHA-256 of what `sha256sum` prints for the files, in the order of their paths."""


class ResultStatus(StatusModel):
    """A small text that the task left."""

    name: str
    """Its name in `spec.results`."""
    value: str = ""
    """The text, with secrets redacted."""


class VolumeStatus(StatusModel):
    """What a volume turned out to be."""

    name: str
    """Its name in `spec.volumes`."""
    digest: str = ""
    """Of an artifact, or of a release: which content is mounted, in every attempt."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RecentRun(StatusRecord):
    """What a run that succeeded took, in its last attempt."""

    name: str
    """The name of its task."""
    finished_at: MicroTime
    """When it ended."""
    duration_seconds: float
    """From its start to its end, in seconds."""
    cpu_seconds: float | None = None
    """Processor time, in seconds, where the backend counts it."""
    max_memory_bytes: int | None = None
    """Memory at its highest, in bytes, where the backend counts it."""


class ErrorStatus(StatusModel):
    """Why the task failed."""

    reason: str = ""
    """Why, as one stable CamelCase word: the same as in the conditions. `remit errors REASON` says what to do."""
    category: str
    """The kind of failure: Denied, Invalid, Sandbox, ExitCode, Timeout, Deadline, Resources, Interrupted, Cancelled,
    Artifacts, Operation or Infrastructure."""
    message: str
    """What went wrong and what to do about it."""
    retryable: bool = False
    """Whether the same task, run again, may succeed."""


class ExecutionTaskStatus(StatusModel):
    """What became of the task."""

    observed_generation: int = -1
    """The `metadata.generation` that this status speaks of."""
    phase: Phase | None = None
    """Where the task stands, for people. Machines read the conditions."""
    conditions: Conditions = []
    """Succeeded (True, False or Unknown), Finished, Reconciling and Stalled. Wait for Finished, then read Succeeded.
    Unusual (True) is there where the run differs much from those before it."""
    operation: str = ""
    """Which operation it is, for the table."""
    backend: str = ""
    """Where it runs: what `spec.backend` says, or else what the installation chose when it was first looked at;
    `operator` for what Remit performs itself."""
    image: str = ""
    """Of which container image, where the backend runs images."""
    message: str = ""
    """The last thing that happened, in one sentence."""
    policy: PolicyStatus | None = None
    """The policy decision."""
    sandbox: SandboxStatus | None = None
    """The confinement in force."""
    attempts: list[AttemptStatus] = []
    """The runs: the first one and the latest nine."""
    attempt_count: int = 0
    """How many runs there were."""
    interruptions: int = 0
    """How many of them were lost with the operator."""
    output: OutputStatus | None = None
    """The last run's output."""
    volumes: Annotated[list[VolumeStatus], Field(json_schema_extra=map_by("name"))] = []
    """The artifacts and releases among its volumes, pinned when the first run started."""
    artifacts: Annotated[list[ArtifactStatus], Field(json_schema_extra=map_by("name"))] = []
    """What is kept of the files that the last run made."""
    results: Annotated[list[ResultStatus], Field(json_schema_extra=map_by("name"))] = []
    """Small texts that the last run left."""
    exit_code: int | None = None
    """The last run's exit code."""
    error: ErrorStatus | None = None
    """Why it failed."""
    queue: QueueStatus | None = None
    """Its place in the queue, no fresher than half a minute. Only while it waits."""
    queued_at: MicroTime | None = None
    """When it first had to wait for its turn."""
    start_time: MicroTime | None = None
    """When the first run started."""
    deadline: MicroTime | None = None
    """When it must be over: by its own `deadlineSeconds`, or by a policy's."""
    completion_time: MicroTime | None = None
    """When it ended."""
    expiration_time: Time | None = None
    """When it is deleted with its output: by its `ttlSecondsAfterFinished`, or by the operator's default for tasks with
    generated names."""
    duration: str = ""
    """How long it took from the first run's start to its end, for people."""
    next_retry_time: MicroTime | None = None
    """When the next attempt is due."""
    next_schedule_time: Time | None = None
    """When the next scheduled run is due."""
    last_schedule_time: Time | None = None
    """When the last scheduled run was due."""
    active: list[str] = []
    """Names of the scheduled runs that have not ended."""
    recent_runs: list[RecentRun] = []
    """What the latest 20 runs of a schedule that succeeded took. The next one is compared with them."""
