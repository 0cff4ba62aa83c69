"""The interface of all backends."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal, Protocol, runtime_checkable

from remit.backends.filetree import Collector
from remit.backends.outcome import Outcome
from remit.policy.egress import Egress
from remit.sandbox import Confinement

JOB_ARTIFACT_BYTES: Final = 64 << 20
"""Limit on the bytes of all artifacts of one attempt that runs as a Job."""
Stream = Literal["stdout", "stderr"]


@dataclass(frozen=True, slots=True)
class Command:
    """The command to execute: `executable` is absolute and already resolved, `argv[0]` the name as it was written."""

    argv: tuple[str, ...]
    executable: str
    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    stdin: bytes = field(default=b"", repr=False)
    public: frozenset[str] = frozenset()
    """The variables whose values anybody may read."""


@dataclass(frozen=True, slots=True)
class TaskReference:
    """The task that an attempt belongs to."""

    namespace: str
    name: str
    uid: str


@dataclass(frozen=True, slots=True)
class KeptFiles:
    """Files that the collector wants, by an absolute `pattern`; `always`: also of an attempt that failed."""

    pattern: str
    most_bytes: int
    always: bool = False


@dataclass(frozen=True, slots=True)
class AttemptRequest:
    """One attempt. `files` are private files placed in the sandbox: absolute path inside → content.

    `timeout_seconds` counts from the start; then, or on a cancel, comes TERM, and KILL `grace_seconds` later. `egress`
    says where it may connect to with `network: restricted`; without any it reaches nothing.
    """

    id: str
    command: Command
    confinement: Confinement
    timeout_seconds: float
    grace_seconds: float = 5.0
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    egress: tuple[Egress, ...] = ()
    image: str = ""
    """The image, for backends that run images."""
    pod: Mapping[str, Any] = field(default_factory=dict)
    """For Jobs: `spec.pod`, as in its YAML."""
    task: TaskReference | None = None
    """The task, for backends that create objects which it owns."""
    secret_versions: Mapping[str, str] = field(default_factory=dict)
    """The uid and resourceVersion of each Secret whose values it was given, by name."""
    texts: tuple[str, ...] = ()
    """Paths of results: files that `collector` wants, of which only the beginning is read."""
    kept: tuple[KeptFiles, ...] = ()
    """The files that `collector` wants whole: artifacts."""
    own_program: bool = False
    """Whether it runs a program of Remit's own, which connects to nothing."""
    collector: Collector | None = field(default=None, repr=False)
    """Called once nothing of the attempt is alive, in a thread, where it is known how it ended."""


@dataclass(frozen=True, slots=True)
class Handle:
    """The data that must be persisted to find an attempt again after the operator was killed. Plain JSON types only."""

    pid: int
    start_time: int
    boot_id: str
    cgroups: tuple[str, ...] = ()
    container: str = ""
    """Instead of a process: the name or the id of a container, or the name of a Job."""
    namespace: str = ""
    """The namespace of the Job; empty for other backends."""
    uid: str = ""
    """The uid of the Job, once the API server has assigned it: another Job may have the same name."""
    operation: str = ""
    """The operation that started it, of those that Remit performs itself; empty: a backend started it."""
    init: int = 0
    """The init of the pid namespace that the process made; 0: none is known."""
    init_start_time: int = 0
    pid_namespace: int = 0
    """The inode of the init's pid namespace. The kernel reuses it, so it means nothing without `init_start_time`."""
    feeding: bool = False
    """For a container: whether its standard input is a file that was not sent completely yet."""
    begun: float = 0.0
    """For a container: when its time began, in seconds of CLOCK_BOOTTIME of the boot `boot_id`; 0 if unknown."""


class OutputSink(Protocol):
    """Receives output. It is called on the event loop for every chunk, and must not block for long."""

    def write(self, stream: Stream, chunk: bytes) -> None: ...


class Backend(Protocol):
    """A place where work runs."""

    name: str

    async def run(
        self,
        request: AttemptRequest,
        sink: OutputSink,
        *,
        cancel: asyncio.Event,
        on_started: Callable[[Handle], None] | None = None,
    ) -> Outcome:
        """Run one attempt; return only when everything that it started is dead.

        `on_started` is called with the handle before the command can run: what it persists is on record first. Where
        processes become known one after the other it is called for each, with all that are known.

        Raises:
            SandboxUnavailable: a required layer is missing on this host.
            InvalidInput: the request cannot be right (a NUL byte, a relative path).
            BackendError: the place failed, not the work; an `OutcomeUnknown` where that may have run, and nobody saw
                how it ended.
        """
        ...

    async def recover(self, handle: Handle) -> bool:
        """After the operator was killed: leave nothing of that attempt alive. True if something still was."""
        ...


@runtime_checkable
class AdoptingBackend(Backend, Protocol):
    """A place where what runs outlives the operator, and is found again by the attempt's id.

    Its `run` and `adopt`, when they are cancelled themselves, leave what runs alone.
    """

    keeps_secret_versions: bool
    """Whether `adopt` itself ends what was given other versions of Secrets than the request says: what the operator had
    on record of them may be lost."""

    def handle_of(self, namespace: str, attempt_id: str) -> Handle:
        """The handle of an attempt without a record, which is found by its name."""
        ...

    async def forget(self, request: AttemptRequest) -> None:
        """How the attempt ended is stored, so nothing of it need be kept. Raises nothing."""
        ...

    async def adopt(
        self,
        request: AttemptRequest,
        sink: OutputSink,
        *,
        cancel: asyncio.Event,
        on_found: Callable[[Handle], None],
        recorded: Handle | None = None,
    ) -> Outcome | None:
        """Take up an attempt that an earlier operator started: all of its output, and its end, as `run` would tell.

        None where nothing of it is there, and then `on_found` was not called. The time that it has had counts, by the
        clock of this machine where what is `recorded` of it says so.

        Raises:
            BackendError: the place failed, not the work.
        """
        ...
