"""ExecutionTask: one operation to perform, once or on a schedule. What becomes of it is in `executiontaskstatus`."""

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
    """How long to wait before a retry: `initialSeconds * factor ** retries`, capped, with jitter."""

    initial_seconds: Annotated[float, Field(ge=0, le=86400)] = 1
    """The wait before the first retry, in seconds."""
    factor: Annotated[float, Field(ge=1, le=10)] = 2
    """What each further wait is multiplied by."""
    max_seconds: Annotated[float, Field(ge=0, le=86400)] = 60
    """The longest wait, in seconds, before jitter."""
    jitter: Annotated[float, Field(ge=0, le=1)] = 0.1
    """The fraction of a wait by which it may be longer or shorter, so that retries do not come all at once."""


class Retry(SpecModel):
    """When a failed attempt is followed by another."""

    max_retries: Annotated[int, Field(ge=0, le=100)] = 0
    """How many further attempts are made after one that failed or timed out. What a policy denied is never retried."""
    backoff: Backoff = Backoff.model_construct()
    """How long to wait in between."""
    on_interruption: Literal["Fail", "Retry"] = "Fail"
    """What follows when the operator itself was lost in mid-run, so that nobody can say whether the operation took
    place: `Fail` ends the task, for operations that must not happen twice; `Retry` starts another attempt, which is
    not counted in `maxRetries`, up to three times."""


class Resources(SpecModel):
    """The most that an attempt may use. A policy's defaults fill what is not set."""

    cpu: Quantity | None = None
    """Processor time, in cores, such as `500m`."""
    memory: Quantity | None = None
    """Memory and swap together, such as `512Mi`. Going over it ends the attempt as OOMKilled."""
    pids: Annotated[int, Field(ge=1, le=4_194_304)] | None = None
    """Processes and threads."""
    disk: Quantity | None = None
    """The private disk: `/workspace` and `/tmp`, each."""
    disk_bytes_per_second: Quantity | None = None
    """Disk bandwidth, where the host can hold it."""
    network_bytes_per_second: Quantity | None = None
    """Network bandwidth, where the host can hold it."""
    open_files: Annotated[int, Field(ge=8, le=1_048_576)] | None = None
    """Open files of one process."""
    file_size: Quantity | None = None
    """The largest file that may be written."""


_MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
_DAYS = "sun|mon|tue|wed|thu|fri|sat"
_CRON_FIELDS = (
    ("minute", "0 to 59", "0*[1-5]?[0-9]", ""),
    ("hour", "0 to 23", "0*(1?[0-9]|2[0-3])", ""),
    ("day of month", "1 to 31, L or LW", "0*([1-9]|[12][0-9]|3[01])", "|LW?"),
    ("month", "1 to 12 or JAN to DEC", f"(0*([1-9]|1[0-2])|{_MONTHS})", ""),
    ("day of week", "0 to 7 or SUN to SAT", f"(0*[0-7]|{_DAYS})", f"|0*[0-7]L|(0*[0-7]|{_DAYS})#0*[1-5]"),
)
"""Of each its name, its values in words and as a regular expression, and what else can stand for one."""


def _cron_rule(index: int, name: str, words: str, value: str, other: str) -> Rule:
    term = rf"(\*|{value}(-{value})?{other})(/0*[1-9][0-9]*)?"
    # An expression that has not five fields is told of as that alone.
    pattern = rf"^\s*(\S+\s+){{{index}}}{term}(,{term})*(\s+\S+){{{4 - index}}}\s*$"
    five = r"^\s*\S+(\s+\S+){4}\s*$"
    quoted, counted = (text.replace("\\", "\\\\") for text in (pattern, five))
    return Rule(
        f"!self.cron.matches('{counted}') || self.cron.matches('(?i){quoted}')",
        f"the {name} of cron is {words}, or a list, range or step of these",
        ".cron",
    )


class Schedule(SpecModel):
    """Runs the operation again and again, in child tasks named after the parent and the minute."""

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
    """When, in the five fields of cron: minute, hour, day of month, month, day of week.

    Where the clock of `timeZone` is set: if neither the minute nor the hour begins with `*`, times that are skipped run
    once, right after the gap, however many it skips, and times that come twice run the first time only; otherwise a run
    goes by what the clock shows, so that skipped times have no run and repeated ones two."""
    time_zone: Annotated[str, Field(min_length=1, max_length=64)] = "Etc/UTC"
    """The time zone of `cron`, by its IANA name, such as `Europe/Paris`."""
    concurrency_policy: Literal["Allow", "Forbid", "Replace"] = "Forbid"
    """What to do when a run is due and the last one has not ended: run both, skip, or replace the old one."""
    starting_deadline_seconds: Annotated[int, Field(ge=10)] | None = None
    """How late a run may start. A run that is missed by more is skipped."""
    suspend: bool = False
    """Start no further runs. Those already going are not touched."""
    successful_runs_history_limit: Annotated[int, Field(ge=0, le=100)] = 3
    """How many successful children are kept."""
    failed_runs_history_limit: Annotated[int, Field(ge=0, le=100)] = 1
    """How many failed children are kept."""


class Output(SpecModel):
    """What is kept of standard output and standard error."""

    tail_bytes: Annotated[int, Field(ge=0, le=16384)] = 4096
    """How much of the end of each is shown in status, in bytes."""
    max_bytes: Quantity = "10Mi"
    """How much of each is kept for `remit logs`, at most 256Mi. More than that is dropped from the middle of what was
    said; the program is not stopped."""
    raw: bool = False
    """Keep the output byte for byte, secrets included, such as a dump that is to be restored. Only the files on the
    operator's host hold it; status, Events, logs and the audit trail stay redacted. A policy's `output.allowRaw` must
    allow it."""


class StdinSource(SpecModel):
    """Where standard input comes from. Exactly one of its fields is set."""

    exactly_one = ("secretKeyRef", "configMapKeyRef", "volume")

    secret_key_ref: SecretKeySelector | None = None
    """One key of a Secret. The value is given to the run and redacted everywhere else."""
    config_map_key_ref: ConfigMapKeySelector | None = None
    """One key of a ConfigMap, of up to 1Mi; `binaryData` holds what is no text."""
    volume: VolumeFile | None = None
    """A file of a volume, of any size. It comes through a pipe, as far as it goes when the attempt starts. A policy
    must allow the volume to be mounted ReadOnly."""


class TaskTemplate(SpecModel):
    """One operation and how to perform it: what a task has in common with the tasks of a release's stages."""

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
    """Start or look after a supervised process."""
    http: HttpOperation | None = None
    """Make an HTTP request."""
    redis: RedisOperation | None = None
    """Run Redis commands."""
    postgres: PostgresOperation | None = None
    """Run SQL on PostgreSQL."""
    container: ContainerOperation | None = None
    """Work on containers."""

    backend: BackendName | None = None
    """Where it runs: a sandboxed process beside the operator, a Docker container, or a Kubernetes Job. Not set: on the
    installation's default, `kubernetes` on a cluster and `process` elsewhere. `status.backend` has the choice. A file
    operation that is no Job is performed by the operator."""
    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """The container image, for the backends docker and kubernetes. A task with an image and without `backend` runs on
    the first of these that the operator has. By default the installation's, where it has one."""
    pod: PodOptions | None = None
    """For the backend kubernetes: where the pod goes, as whom it runs, and with what."""
    working_dir: Annotated[str, Field(pattern=rf"^(/({PATH_PART}|\.)?)+$", max_length=4096)] = WORKSPACE
    """The directory that a command, a script or a supervised process is started in: `/workspace`, which is private to
    the task, a mounted folder, or a folder below one of these. Nothing is made: the attempt ends as StartFailed where
    the folder is not there."""
    env: Annotated[list[EnvVar], Field(max_length=128, json_schema_extra=map_by("name"))] = []
    """Environment variables. A policy's `environment.allow` must list each name, except for `LANG`, `LANGUAGE`,
    `LC_ALL` and the other categories of C, `TZ`, `TERM`, `NO_COLOR`, `COLUMNS` and `LINES` with a plain `value`.
    Nothing of the operator's own environment is passed on."""
    env_from: Annotated[list[EnvFromSource], Field(max_length=16)] = []
    """ConfigMaps and Secrets whose keys all become environment variables; `env` wins over them. A policy must list
    every key as a name, as for `env`; a key that no variable can be named after, such as `app.ini`, ends the task."""
    private_files: Annotated[list[PrivateFile], Field(max_length=MAX_FILES, json_schema_extra=map_by("path"))] = []
    """Files that the program finds and nobody else: passwords, keys, configuration. They are placed in memory for each
    attempt; values of Secrets in them are redacted everywhere else, as those of `env` are."""
    volumes: Annotated[list[Volume], Field(max_length=MAX_VOLUMES, json_schema_extra=map_by("name"))] = []
    """Files that the program finds besides its private workspace, or that a file operation works on where it is a Job.
    A policy's `volumes` must allow each."""
    volume_mounts: Annotated[
        list[VolumeMount], Field(max_length=MAX_VOLUMES, json_schema_extra=map_by("mountPath"))
    ] = []
    """Where it finds them."""
    artifacts: Annotated[list[Artifact], Field(max_length=MAX_VOLUMES, json_schema_extra=map_by("name"))] = []
    """Files that are kept of those that the program makes; `remit cp` and `remit artifacts` get at them. A policy's
    `volumes.artifacts` must allow it."""
    results: Annotated[list[Result], Field(max_length=MAX_VOLUMES, json_schema_extra=map_by("name"))] = []
    """Small texts of what it makes, shown in status."""
    stdin: Annotated[str, Field(max_length=262144)] = ""
    """What the program reads from its standard input."""
    stdin_from: StdinSource | None = None
    """Where that comes from, instead of `stdin`."""
    timeout_seconds: Seconds | None = None
    """How long one attempt may take. The policy's default fills it in, or else 300."""
    deadline_seconds: Seconds | None = None
    """How long the whole task may take, waiting and retries included."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] = 5
    """How long a program that is timed out or cancelled has after SIGTERM, before everything it started is killed."""
    retry: Retry = Retry.model_construct()
    """When a failed attempt is followed by another."""
    resources: Resources = Resources.model_construct()
    """The most that an attempt may use."""
    network: Network = "none"
    """What the program sees of the network: nothing; the hosts that a policy lists in `egress`, through a proxy that
    `HTTPS_PROXY` and its kin lead to; or what the operator itself sees."""
    output: Output = Output.model_construct()
    """What is kept of its output."""

    @property
    def operation(self) -> Operation:
        """The one that is set."""
        return next(name for name in OPERATIONS if getattr(self, name) is not None)

    @property
    def subject(self) -> Subject:
        """What that one says."""
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
    """Run it by the clock instead of once."""
    cancel: bool = False
    """Set to true to end the task, whatever it is doing: queued, running or waiting to be retried."""
    ttl_seconds_after_finished: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Delete the task, its output included, this long after it ended. Not set: never."""


class ExecutionTask(CustomResource):
    """One operation to perform, once or on a schedule, under the policies that select it."""

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
