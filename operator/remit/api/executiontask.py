"""ExecutionTask: one operation to perform, once or on a schedule. Its status is in `executiontaskstatus`."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal, cast

from pydantic import Field

from remit.api.base import (
    ConfigMapKeySelector,
    EnvFromSource,
    EnvVar,
    Rule,
    SecretKeySelector,
    SpecModel,
    map_by,
)
from remit.api.executiontaskstatus import ExecutionTaskStatus
from remit.api.operationnames import OPERATIONS, Operation
from remit.api.operations import (
    CommandOperation,
    ContainerOperation,
    FileOperation,
    HttpOperation,
    PostgresOperation,
    ProcessOperation,
    RedisOperation,
    ScriptOperation,
    Subject,
)
from remit.api.pods import PodOptions
from remit.api.privatefile import MAX_FILES, NO_FILE_IN_A_FILE, PATH_PART, PrivateFile
from remit.api.quantity import Quantity
from remit.api.resource import CustomResource
from remit.api.volumes import MAX_VOLUMES, Artifact, Result, Volume, VolumeFile, VolumeMount
from remit.sandboxpaths import WORKSPACE

BackendName = Literal["process", "docker", "kubernetes"]
Network = Literal["none", "restricted", "host"]
Seconds = Annotated[int, Field(ge=1, le=31_536_000)]


class Backoff(SpecModel):
    """The wait before a retry: `initialSeconds * factor ** retries`, up to `maxSeconds`, with jitter."""

    initial_seconds: Annotated[float, Field(ge=0, le=86400)] = 1
    """The wait before the first retry, in seconds."""
    factor: Annotated[float, Field(ge=1, le=10)] = 2
    """The factor by which each further wait is longer than the one before."""
    max_seconds: Annotated[float, Field(ge=0, le=86400)] = 60
    """The longest wait, in seconds, before jitter."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The fraction of a wait by which it may be longer or shorter, so that retries of many tasks are spread out."""


class Retry(SpecModel):
    """When a failed attempt is retried."""

    max_retries: Annotated[int, Field(ge=0, le=100)] = 0
    """Number of further attempts after one that failed or timed out. A task that a policy denied is never retried."""
    backoff: Backoff = Backoff.model_construct()
    """The wait before each retry."""
    on_interruption: Literal["Fail", "Retry"] = "Fail"
    """What happens if the operator itself was lost during an attempt, so that it is unknown whether the operation took
    place. `Fail` ends the task, for operations that must not happen twice. `Retry` starts another attempt, up to three
    times; these attempts are not counted in `maxRetries`."""


class Resources(SpecModel):
    """Resource limits of an attempt. A policy's defaults apply to limits that are not set."""

    cpu: Quantity | None = None
    """Processor time, in cores, such as `500m`."""
    memory: Quantity | None = None
    """Memory and swap together, in bytes, such as `512Mi`. An attempt that exceeds it ends as OOMKilled."""
    pids: Annotated[int, Field(ge=1, le=4_194_304)] | None = None
    """Number of processes and threads."""
    disk: Quantity | None = None
    """Size of each private disk (`/workspace` and `/tmp`), in bytes."""
    disk_bytes_per_second: Quantity | None = None
    """Disk bandwidth, in bytes per second, if the host can enforce it."""
    network_bytes_per_second: Quantity | None = None
    """Network bandwidth, in bytes per second, if the host can enforce it."""
    open_files: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Number of open files of one process."""
    file_size: Quantity | None = None
    """Size of the largest file that may be written, in bytes."""


_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DAYS = "sun|mon|tue|wed|thu|fri|sat"
_CRON_FIELDS = (
    ("minute", "0 to 59", "0*[1-5]?[0-9]", ""),
    ("hour", "0 to 23", "0*(1?[0-9]|2[0-3])", ""),
    ("day of month", "1 to 31, L or LW", "0*([1-9]|[12][0-9]|3[01])", "|LW?"),
    ("month", "1 to 12 or JAN to DEC", f"(0*([1-9]|1[0-2])|{_MONTHS})", ""),
    ("day of week", "0 to 7 or SUN to SAT", f"(0*[0-7]|{_DAYS})", f"|0*[0-7]L|(0*[0-7]|{_DAYS})#0*[1-5]"),
)
"""For each field: its name, its values in words, a regular expression for a value, and one for further forms that may
stand in place of a value."""


def _cron_rule(index: int, name: str, words: str, value: str, other: str) -> Rule:
    term = rf"(\*|{value}(-{value})?{other})(/0*[1-9][0-9]*)?"
    # An expression without exactly five fields gets only the message about the number of fields.
    pattern = rf"^\s*(\S+\s+){{{index}}}{term}(,{term})*(\s+\S+){{{4 - index}}}\s*$"
    five = r"^\s*\S+(\s+\S+){4}\s*$"
    quoted, counted = (text.replace("\\", "\\\\") for text in (pattern, five))
    return Rule(
        f"!self.cron.matches('{counted}') || self.cron.matches('(?i){quoted}')",
        f"the {name} of cron is {words}, or a list, range or step of these",
        ".cron",
    )


class Schedule(SpecModel):
    """Runs the operation on a schedule, in child tasks that are named after the parent and the minute."""

    rules = (
        Rule(
            r"self.cron.matches('^\\s*\\S+(\\s+\\S+){4}\\s*$')",
            "cron has five fields: minute, hour, day of month, month, day of week",
            ".cron",
        ),
        *(_cron_rule(index, *field) for index, field in enumerate(_CRON_FIELDS)),
        Rule(
            "self.timeZone.matches('^[A-Za-z][A-Za-z0-9_+-]*(/[A-Za-z0-9_+-]+)*$')",
            "timeZone is an IANA name, such as Europe/Paris",
            ".timeZone",
        ),
    )

    cron: Annotated[str, Field(min_length=1, max_length=128)]
    """The times of the runs, as a cron expression with five fields: minute, hour, day of month, month, day of week.

    When the clock of `timeZone` changes, as for daylight saving time: if neither the minute nor the hour begins with
    `*`, times that the clock skips run once, right after the gap, however many were skipped, and times that occur twice
    run only the first time. Otherwise runs follow the clock: a skipped time has no run and a repeated time has two."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """The time zone of `cron`, by its IANA name, such as `Europe/Paris`."""
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Forbid"
    """What happens if a run is due and the last one has not ended: `Allow` runs both, `Forbid` skips the new run, and
    `Replace` cancels the old run."""
    starting_deadline_seconds: Annotated[int, Field(ge=10)] | None = None
    """How late a run may start, in seconds. A run that would start later is skipped."""
    suspend: bool = False
    """Whether to start no further runs. Runs that have started continue."""
    successful_runs_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """Number of successful child tasks that are kept."""
    failed_runs_history_limit: Annotated[int, Field(ge=0, le=100)] = 1
    """Number of failed child tasks that are kept."""


class Output(SpecModel):
    """How standard output and standard error are kept."""

    tail_bytes: Annotated[int, Field(ge=0, le=16384)] = 4096
    """Length of the end of each stream that status shows, in bytes."""
    max_bytes: Quantity = "10Mi"
    """Length of each stream that is kept for `remit logs`, in bytes, at most 256Mi. If the program writes more, the
    middle of the stream is dropped; the program is not stopped."""
    raw: bool = False
    """Whether to keep the output byte for byte, including secrets, such as a dump that will be restored. Only the files
    on the operator's host contain it; status, Events, logs and the audit trail stay redacted. A policy's
    `output.allowRaw` must allow it."""


class StdinSource(SpecModel):
    """The source of standard input. Exactly one of its fields is set."""

    exactly_one = ("secretKeyRef", "configMapKeyRef", "volume")

    secret_key_ref: SecretKeySelector | None = None
    """One key of a Secret. The run receives the value; it is redacted everywhere else."""
    config_map_key_ref: ConfigMapKeySelector | None = None
    """One key of a ConfigMap, of up to 1Mi. `binaryData` can contain data that is not text."""
    volume: VolumeFile | None = None
    """A file of a volume, of any size. The program reads it through a pipe, up to the length that the file has when the
    attempt starts. A policy must allow the volume to be mounted ReadOnly."""


class TaskTemplate(SpecModel):
    """One operation and how to perform it: the fields that tasks and the hooks of releases have in common."""

    exactly_one = cast("tuple[str, ...]", OPERATIONS)
    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "!has(self.backend) || self.backend == 'process' || has(self.command) || has(self.script)"
            " || (has(self.file) && self.backend == 'kubernetes')",
            "backend goes with command and script, and kubernetes also with file; the other operations Remit performs"
            " itself: leave it out",
        ),
        Rule(
            "!has(self.image) || !has(self.backend) || self.backend != 'process'",
            "image goes with backends docker and kubernetes; set another backend",
        ),
        Rule(
            "!has(self.pod) || ((has(self.command) || has(self.script) || has(self.file))"
            " && (!has(self.backend) || self.backend == 'kubernetes'))",
            "pod goes with command, script and file on the backend kubernetes; leave it out",
            ".pod",
        ),
        Rule(
            "!has(self.image) || has(self.command) || has(self.script)",
            "image goes with command and script; leave it out",
            ".image",
        ),
        Rule(
            "!has(self.workingDir) || self.workingDir.matches('^/workspace(/|$)') || (has(self.volumeMounts)"
            " && self.volumeMounts.exists(m, self.workingDir == m.mountPath"
            " || self.workingDir.startsWith(m.mountPath + '/')))",
            "workingDir is /workspace, which is private to the task, a mounted folder, or a folder below one of these",
            ".workingDir",
        ),
        Rule(
            "!has(self.workingDir) || self.workingDir == '/workspace' || has(self.command) || has(self.script)"
            " || (has(self.process) && self.process.action == 'start')",
            "workingDir goes with command, script and the start of a process; leave it out",
            ".workingDir",
        ),
        Rule("!has(self.stdinFrom) || !has(self.stdin) || self.stdin == ''", "set stdin or stdinFrom, not both"),
        Rule(
            "!has(self.stdinFrom) || has(self.command) || has(self.script)"
            " || (has(self.process) && self.process.action == 'start')",
            "stdinFrom goes with command, script and the start of a process; leave it out",
            ".stdinFrom",
        ),
        Rule(
            "!has(self.stdinFrom) || !has(self.stdinFrom.volume) || (has(self.volumes) && self.volumes.exists(v,"
            " v.name == self.stdinFrom.volume.name && (has(v.hostPath) || has(v.workspace) || has(v.artifact))))",
            "stdinFrom.volume: none of volumes that is a hostPath, a workspace or an artifact has that name; for a"
            " ConfigMap or a Secret, set configMapKeyRef or secretKeyRef",
            ".stdinFrom",
        ),
        NO_FILE_IN_A_FILE,
        Rule(
            "!has(self.volumeMounts) || self.volumeMounts.all(m,"
            " has(self.volumes) && self.volumes.exists(v, v.name == m.name))",
            "volumeMounts: a name is not that of any of volumes",
            ".volumeMounts",
        ),
        Rule(
            "!has(self.volumeMounts) || !has(self.volumes) || self.volumeMounts.all(m, !has(m.access)"
            " || m.access == 'ReadOnly'"
            " || !self.volumes.exists(v, v.name == m.name && (has(v.configMap) || has(v.secret) || has(v.artifact)"
            " || has(v.release))))",
            "volumeMounts: ConfigMaps, Secrets, artifacts and releases can only be read; leave access out",
            ".volumeMounts",
        ),
        Rule(
            "has(self.command) || has(self.script) || !(has(self.artifacts) || has(self.results))",
            "artifacts and results go with command and script; leave them out",
        ),
        Rule(
            "has(self.command) || has(self.script) || has(self.file) || !(has(self.volumes) || has(self.volumeMounts))",
            "volumes go with command and script, and with file where it is a Job; leave them out",
        ),
    )

    command: CommandOperation | None = None
    """Run a program."""
    script: ScriptOperation | None = None
    """Run a script with an interpreter."""
    file: FileOperation | None = None
    """Work on files."""
    process: ProcessOperation | None = None
    """Start or manage a supervised process."""
    http: HttpOperation | None = None
    """Make an HTTP request."""
    redis: RedisOperation | None = None
    """Run Redis commands."""
    postgres: PostgresOperation | None = None
    """Run SQL on PostgreSQL."""
    container: ContainerOperation | None = None
    """Work on containers."""

    backend: BackendName | None = None
    """Where the operation runs: `process` is a sandboxed process beside the operator, `docker` a Docker container, and
    `kubernetes` a Kubernetes Job. Not set: the installation's default, which is `kubernetes` on a cluster and `process`
    elsewhere; `status.backend` shows the choice. The operator itself performs a file operation that is not a Job."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """The container image, for the backends docker and kubernetes. A task with an image and without `backend` runs on
    the first of these backends that the operator has. Not set: the installation's default image, if it has one."""
    pod: PodOptions | None = None
    """Options of the pod, for the backend kubernetes: its node, its ServiceAccount and its classes."""
    working_dir: Annotated[str, Field(pattern=rf"^(/({PATH_PART}|\.)?)+$", max_length=4096)] = WORKSPACE
    """The directory that a command, a script or a supervised process is started in: `/workspace`, which is private to
    the task, a mounted folder, or a folder below one of these. It is not created: the attempt ends as StartFailed if
    the folder does not exist."""
    env: Annotated[list[EnvVar], Field(max_length=128, json_schema_extra=map_by("name"))] = []
    """Environment variables. A policy's `environment.allow` must list each name, except for `LANG`, `LANGUAGE`,
    `LC_ALL` and the other categories of C, `TZ`, `TERM`, `NO_COLOR`, `COLUMNS` and `LINES` with a plain `value`.
    Nothing of the operator's own environment is passed on."""
    env_from: Annotated[list[EnvFromSource], Field(max_length=16)] = []
    """ConfigMaps and Secrets all of whose keys become environment variables. `env` overrides them. A policy must list
    every key as a name, as for `env`. A key that is not a valid variable name, such as `app.ini`, ends the task."""
    private_files: Annotated[list[PrivateFile], Field(max_length=MAX_FILES, json_schema_extra=map_by("path"))] = []
    """Files that only the program can read: passwords, keys, configuration. They are placed in memory for each attempt.
    Values of Secrets in them are redacted everywhere else, like those of `env`."""
    volumes: Annotated[list[Volume], Field(max_length=MAX_VOLUMES, json_schema_extra=map_by("name"))] = []
    """Volumes with files for the program, in addition to its private workspace, or for a file operation that is a Job.
    A policy's `volumes` must allow each volume."""
    volume_mounts: Annotated[
        list[VolumeMount], Field(max_length=MAX_VOLUMES, json_schema_extra=map_by("mountPath"))
    ] = []
    """Paths at which the program finds the volumes."""
    artifacts: Annotated[list[Artifact], Field(max_length=MAX_VOLUMES, json_schema_extra=map_by("name"))] = []
    """Files of the program that are kept; `remit cp` and `remit artifacts` read them. A policy's `volumes.artifacts`
    must allow it."""
    results: Annotated[list[Result], Field(max_length=MAX_VOLUMES, json_schema_extra=map_by("name"))] = []
    """Small text files of the program that status shows."""
    stdin: Annotated[str, Field(max_length=262144)] = ""
    """The program's standard input."""
    stdin_from: StdinSource | None = None
    """The source of the program's standard input, instead of `stdin`."""
    timeout_seconds: Seconds | None = None
    """Maximum duration of one attempt, in seconds. Not set: the policy's default, or else 300."""
    deadline_seconds: Seconds | None = None
    """Maximum duration of the whole task, including waiting and retries, in seconds."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] = 5
    """Time that a program has after SIGTERM when it timed out or was cancelled, in seconds. After that, everything that
    it started is killed."""
    retry: Retry = Retry.model_construct()
    """When a failed attempt is retried."""
    resources: Resources = Resources.model_construct()
    """Resource limits of an attempt."""
    network: Network = "none"
    """The program's network access. `none`: no network. `restricted`: the hosts that a policy lists in `egress`,
    through a proxy that variables such as `HTTPS_PROXY` name. `host`: the network of the operator itself."""
    output: Output = Output.model_construct()
    """How the program's output is kept."""

    @property
    def operation(self) -> Operation:
        """The name of the operation that is set."""
        return next(name for name in OPERATIONS if getattr(self, name) is not None)

    @property
    def subject(self) -> Subject:
        """The parameters of the operation that is set."""
        return cast(Subject, getattr(self, self.operation))


def _immutable(*fields: str) -> tuple[Rule, ...]:
    return tuple(
        Rule(
            f"has(self.{field}) == has(oldSelf.{field}) && (!has(self.{field}) || self.{field} == oldSelf.{field})",
            f"{field} cannot be changed after the task is created; delete the task or create another one",
        )
        for field in fields
    )


class ExecutionTaskSpec(TaskTemplate):
    """One operation and how to perform it, once or on a schedule. After creation only `cancel`, `schedule.suspend` and
    `ttlSecondsAfterFinished` may change."""

    rules: ClassVar[tuple[Rule, ...]] = (
        *TaskTemplate.rules,
        Rule(
            "!has(oldSelf.cancel) || !oldSelf.cancel || (has(self.cancel) && self.cancel)",
            "cancel cannot be taken back; create another task instead",
        ),
        *_immutable(*(str(field.alias) for field in TaskTemplate.model_fields.values())),
        Rule("has(self.schedule) == has(oldSelf.schedule)", "schedule cannot be added or removed after creation"),
        Rule(
            "!has(self.schedule) || !has(oldSelf.schedule) || ("
            "self.schedule.cron == oldSelf.schedule.cron"
            " && self.schedule.timeZone == oldSelf.schedule.timeZone"
            " && self.schedule.concurrencyPolicy == oldSelf.schedule.concurrencyPolicy"
            " && has(self.schedule.startingDeadlineSeconds) == has(oldSelf.schedule.startingDeadlineSeconds)"
            " && (!has(self.schedule.startingDeadlineSeconds)"
            " || self.schedule.startingDeadlineSeconds == oldSelf.schedule.startingDeadlineSeconds)"
            " && self.schedule.successfulRunsHistoryLimit == oldSelf.schedule.successfulRunsHistoryLimit"
            " && self.schedule.failedRunsHistoryLimit == oldSelf.schedule.failedRunsHistoryLimit)",
            "of schedule only suspend can be changed after the task is created",
        ),
    )

    schedule: Schedule | None = None
    """Run the operation on a schedule instead of once."""
    cancel: bool = False
    """Set to true to end the task, whether it is queued, running or waiting for a retry."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Time after the end of the task at which it is deleted with its output, in seconds. Not set: it is not deleted,
    except for a task with a generated name, to which the operator's default applies."""


class ExecutionTask(CustomResource):
    """One operation to perform, once or on a schedule, under the policies that select the task."""

    rules = (
        Rule(
            "!has(self.spec.schedule) || size(self.metadata.name) <= 52",
            "a scheduled task's name has at most 52 characters: its runs are named after it and the minute",
            ".metadata.name",
        ),
    )

    kind: Literal["ExecutionTask"] = "ExecutionTask"
    spec: ExecutionTaskSpec
    status: ExecutionTaskStatus = ExecutionTaskStatus.model_construct()


PRINTER_COLUMNS: list[dict[str, Any]] = [
    {"name": "Operation", "type": "string", "jsonPath": ".status.operation"},
    {"name": "Backend", "type": "string", "jsonPath": ".status.backend"},
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Attempts", "type": "integer", "jsonPath": ".status.attemptCount"},
    {"name": "Duration", "type": "string", "jsonPath": ".status.duration"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Policy", "type": "string", "jsonPath": ".status.policy.name", "priority": 1},
    {"name": "Exit", "type": "integer", "jsonPath": ".status.exitCode", "priority": 1},
    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
]
