"""Runs tasks in this process: the driver of tasks, over a state folder and what callers gave, with no API server."""

from __future__ import annotations

import asyncio
import functools
import uuid
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from remit.agent.executions import Execution, ExecutionStore, OwnPolicies
from remit.agent.folder import Folder
from remit.api.executiontask import ExecutionTask
from remit.api.result import ResultArtifact
from remit.backends.base import Backend
from remit.backends.process import ProcessBackend
from remit.errors import AuditUnavailable, ExecutionError
from remit.execution import progress
from remit.execution.admission import Admission, default_limits
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.saving import save
from remit.execution.artifacts.store import ARTIFACT_BYTES
from remit.execution.folders import Folders
from remit.execution.queue import Queue
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.execution.taskdriver import TaskDriver
from remit.execution.taskstore import StoredTask
from remit.execution.workspaces import WorkspaceStore
from remit.operations import executors
from remit.policy.compile import CompiledPolicy
from remit.sandbox import probe_host
from remit.telemetry.audit import AuditLog
from remit.telemetry.logs import embedded
from remit.telemetry.redact import Redactor
from remit.userpaths import default_state_dir

KEPT_RUNS = 64
"""Finished tasks whose output stays in the state folder."""


@dataclass
class Engine:
    """Lives on the background loop; `start` first, `close` last."""

    root: Path
    policies: Sequence[CompiledPolicy]
    who: str
    output_cap: int
    max_concurrent: int
    backend: Backend | None = None
    executions: dict[str, Execution] = field(default_factory=dict)
    """What was started, by the caller in its own thread, and has not ended."""
    folder: Folder | None = None
    before_close: list[Callable[[], Awaitable[None]]] = field(default_factory=list)
    """What has to let go of this engine first."""
    _closed: bool = False
    _done: list[tuple[str, str]] = field(default_factory=list)
    _starting: asyncio.Lock = field(default_factory=asyncio.Lock)
    _idle: asyncio.Event = field(default_factory=asyncio.Event)
    _redactor: Redactor = field(default_factory=embedded)
    _runner: Runner = field(init=False)
    _folders: Folders = field(init=False)
    _audit: AuditLog = field(init=False)
    _admission: Admission = field(init=False)
    _driver: TaskDriver = field(init=False)

    async def start(self) -> None:
        """Claim a state folder. Raises `ResourceError` and `AuditUnavailable`."""
        if self._closed:  # checked before taking the lock, which `close` holds while it waits for running executions
            raise ExecutionError("this agent is closed; make a new one")
        async with self._starting:
            if self.folder is None:
                self.folder = await asyncio.to_thread(self._open)

    def _open(self) -> Folder:
        host = probe_host()
        folder = Folder(self.root)
        try:
            self._audit = AuditLog(folder.path / "audit" / "audit.jsonl", redactor=self._redactor)
        except BaseException:
            folder.release()
            raise
        store = RunStore(folder.path / "runs")
        self._done = sorted(store.tasks(), key=lambda task: (store.root / task[0] / task[1]).stat().st_mtime)
        self._folders = Folders(FolderStore(folder.path / "artifacts"), WorkspaceStore(folder.path / "workspaces"))
        self._folders.artifacts.prune(ARTIFACT_BYTES)
        operation_executors = executors(folder.path, host)
        self._runner = Runner(
            {"process": self.backend or ProcessBackend(host, protected=[str(folder.path), str(default_state_dir())])},
            store,
            self._redactor,
            self._wake,
            operation_executors,
            self._folders,
        )
        self._admission = Admission(
            defaults=default_limits(host), performed=frozenset(operation_executors), memory=host.memory
        )
        self._driver = TaskDriver(
            ExecutionStore(self.who, self.output_cap),
            self._runner,
            Queue(self.max_concurrent, wake=self._wake_after, memory=host.memory.total),
            OwnPolicies(self.policies),
            self._admission,
            self._audit,
            waits_for_audit=False,
        )
        return folder

    async def close(self) -> None:
        """End everything and let go of the state folder."""
        self._closed = True
        for let_go in self.before_close:
            await let_go()
        async with self._starting:
            if self.folder is None:
                return
            going = list(self.executions.values())
            for execution in going:
                execution.cancel()
            if self.executions:
                await self._idle.wait()
            await self._runner.shutdown()
            await self._runner.close()
            await asyncio.to_thread(self._audit.close)
            self.folder.release()
            self.folder = None

    @property
    def audit(self) -> AuditLog:
        """The audit log of what was started."""
        return self._audit

    @property
    def redactor(self) -> Redactor:
        """The redactor of the audit trail and of everything that is logged."""
        return self._redactor

    @property
    def admission(self) -> Admission:
        """The admission of what was started."""
        return self._admission

    def pids(self) -> dict[str, int]:
        """The process of each running id from which all of its processes descend."""
        found: dict[str, int] = {}
        for execution in list(self.executions.values()):
            metadata, attempts = execution.task.metadata, execution.task.status.attempts
            if attempts and attempts[-1].finished_at is None:
                run = self._runner.store.find(metadata.namespace, metadata.uid, attempts[-1].id)
                if run is not None and run.process is not None:
                    found[execution.uid] = int(run.process["pid"])
        return found

    async def run(self, execution: Execution) -> Execution:
        """One of `executions` to its end; cancelled, it waits until nothing of the execution is alive."""
        self._idle.clear()
        try:
            await self.start()
            driving = asyncio.ensure_future(self._drive(execution))
            while not driving.done():
                try:
                    await asyncio.shield(driving)
                except asyncio.CancelledError:
                    if driving.done():
                        raise
                    execution.cancel()
            return driving.result()
        finally:
            self.executions.pop(execution.task.key, None)
            if not self.executions:
                self._idle.set()

    async def _drive(self, execution: Execution) -> Execution:
        try:
            while not _is_final(execution.task):
                execution.changed.clear()
                task = execution.task
                seconds = await self._driver.step(StoredTask(task, execution, execution.resolved.env))
                if not _is_final(execution.task):
                    await _changed(execution, seconds)
        except AuditUnavailable:
            await self._close_attempt(execution)
            raise
        finally:
            self._driver.let_go(execution.task.key, execution.task.metadata.uid)
            if execution.timer is not None:
                execution.timer.cancel()
            self._keep(execution)
        if execution.task.status.artifacts:
            execution.artifacts = await asyncio.to_thread(self._left, execution.task)
        return execution

    def _left(self, task: ExecutionTask) -> dict[str, ResultArtifact]:
        """The kept files of an execution."""
        store, metadata = self._folders.artifacts, task.metadata
        found = (
            store.find(metadata.namespace, metadata.name, each.name, each.digest) for each in task.status.artifacts
        )
        return {
            each.name: ResultArtifact(
                name=each.name,
                digest=each.digest,
                bytes=each.bytes,
                files=tuple(file.path for file in each.files),
                _save=functools.partial(save, store, each),
            )
            for each in found
            if each is not None
        }

    async def _close_attempt(self, execution: Execution) -> None:
        """An attempt may have ended, and only that could not be recorded: the caller is told how it ended."""
        task, attempts = execution.task, execution.task.status.attempts
        if attempts and attempts[-1].finished_at is None:
            outcome = await self._runner.collect(task.metadata.namespace, execution.uid, attempts[-1], self.output_cap)
            self._runner.forget(attempts[-1].id)
            execution.task = task.model_copy(update={"status": progress.attempt_ended(task, outcome)})

    def _keep(self, execution: Execution) -> None:
        self._done.append((execution.task.metadata.namespace, execution.uid))
        while len(self._done) > KEPT_RUNS:
            self._runner.forget_task(*self._done.pop(0))

    def _wake_after(self, key: str, seconds: float) -> None:
        """Only the latest of such calls counts: it knows best."""
        if seconds <= 0:
            self._wake(key)
        elif (execution := self.executions.get(key)) is not None:
            if execution.timer is not None:
                execution.timer.cancel()
            execution.timer = asyncio.get_running_loop().call_later(seconds, self._wake, key)

    def _wake(self, key: str) -> None:
        if (execution := self.executions.get(key)) is not None:
            execution.changed.set()


async def _changed(execution: Execution, seconds: float | None) -> None:
    """Wait until something happened to the task, but at most for `seconds`."""
    waiting = asyncio.ensure_future(execution.changed.wait())
    await asyncio.wait({waiting}, timeout=seconds)
    waiting.cancel()


def _is_final(task: ExecutionTask) -> bool:
    return task.status.phase is not None and task.status.phase.final


def new_uid() -> str:
    return str(uuid.uuid4())
