"""Takes tasks from their beginning to their end in this process: the operator's steps, with no API server."""

from __future__ import annotations

import asyncio
import datetime
import random
import uuid
from collections.abc import Awaitable, Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, replace
from pathlib import Path

from remit.agent.folder import Folder
from remit.api import ExecutionTask
from remit.backends import AttemptRequest, Backend, ProcessBackend, Stream
from remit.errors import ExecutionError
from remit.execution import progress, recording
from remit.execution.admission import Admission, PolicySet, Refused, default_limits, redacted
from remit.execution.lifecycle import (
    Begin,
    Collect,
    Finish,
    Stop,
    after_attempt,
    deadline_after,
    next_step,
    waits_since,
)
from remit.execution.output import Listener
from remit.execution.queue import Queue
from remit.execution.resolved import Resolved
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.operations import performers
from remit.policy import CompiledPolicy
from remit.sandbox import probe_host
from remit.telemetry import AuditLog, Redactor
from remit.telemetry.logs import embedded

KEPT_RUNS = 64
"""Finished tasks whose output stays in the state folder."""


@dataclass(eq=False)
class Execution:
    """One task on its way. What a manifest cannot say stands beside it."""

    task: ExecutionTask
    resolved: Resolved
    timeout: float | None = None
    stdin: bytes | None = None
    listener: Listener | None = None
    failure: Exception | None = None
    """What the listener raised."""
    refused: Refused | None = None
    """Why it never ran, if that is how it ended."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)
    timer: asyncio.TimerHandle | None = None
    """Rings when its turn may have come."""

    @property
    def uid(self) -> str:
        return self.task.metadata.uid

    def hear(self, stream: Stream, data: bytes) -> None:
        """Tell the listener. What it raises ends the execution."""
        if self.listener is None or self.failure is not None:
            return
        try:
            self.listener(stream, data)
        except Exception as error:
            self.failure = error
            self.cancel()

    def cancel(self) -> None:
        spec = self.task.spec.model_copy(update={"cancel": True})
        self.task = self.task.model_copy(update={"spec": spec})
        self.changed.set()


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
    _audit: AuditLog = field(init=False)
    _admission: Admission = field(init=False)
    _turns: Queue = field(init=False)

    async def start(self) -> None:
        """Claim a state folder. Raises `ResourceError` and `AuditUnavailable`."""
        if self._closed:  # asked before the lock: `close` holds it while it waits for those that run
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
        performing = performers(folder.path, host)
        self._runner = Runner(
            {"process": self.backend or ProcessBackend(host)}, store, self._redactor, self._wake, performing
        )
        self._admission = Admission(defaults=default_limits(host), performed=frozenset(performing), memory=host.memory)
        self._turns = Queue(self.max_concurrent, wake=self._wake_after, memory=host.memory.total)
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
        """Of what was started."""
        return self._audit

    @property
    def admission(self) -> Admission:
        """Of what was started."""
        return self._admission

    def pids(self) -> dict[str, int]:
        """By the ids of what runs now, the process that all of its processes descend from."""
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
            while True:
                execution.changed.clear()
                task, now = execution.task, _now()
                until: datetime.datetime | None = None
                match next_step(task, running=self._runner.running(execution.uid), now=now):
                    case Stop():
                        self._runner.stop(execution.uid)
                    case Finish() as finish:
                        return self._finish(execution, finish)
                    case Begin(number=number):
                        if (wait := await self._begin(execution, number)) is not None:
                            until = now + datetime.timedelta(seconds=wait)
                        elif execution.refused is not None:
                            return execution
                    case Collect():
                        if await self._settle(execution):
                            return execution
                        continue
                    case step:
                        until = getattr(step, "until", None)
                await _changed(execution, until)
        finally:
            self._turns.leave(execution.task.key, _now().timestamp())
            if execution.timer is not None:
                execution.timer.cancel()
            self._keep(execution)

    async def _begin(self, execution: Execution, number: int) -> float | None:
        """Start an attempt, or refuse it. Seconds to wait for its turn, or None."""
        task = execution.task
        policies = PolicySet({task.metadata.namespace: self.policies}, "")
        verdict = await self._admission.decided(task, policies, execution.resolved.env)
        if isinstance(verdict, Refused):
            with self._holding(execution) as redactor:
                verdict = redacted(verdict, redactor)
                await self._audit.append_async(recording.decision(task, self.who, verdict))
            self._finish(execution, verdict.finish)
            execution.refused = verdict
            return None
        limit = deadline_after(task, verdict.limits.deadline_seconds)
        task = task.model_copy(update={"status": task.status.model_copy(update={"deadline": limit})})
        execution.task = task
        if limit is not None and _now() >= limit:
            return 0.0
        now = _now()
        since = waits_since(task, now).timestamp()
        namespace = task.metadata.namespace
        if self._turns.enter(
            task.key, namespace, verdict.rates, since=since, now=now.timestamp(), memory=verdict.memory
        ):
            return 60.0 if limit is None else max(0.0, min(60.0, (limit - now).total_seconds()))
        left_seconds = (limit - _now()).total_seconds() if limit else None
        attempt = self._admission.attempt(task, verdict, number, execution.resolved, left_seconds)
        request = attempt.request
        if execution.timeout is not None:
            request = replace(request, timeout_seconds=min(request.timeout_seconds, execution.timeout))
        if execution.stdin is not None and isinstance(request, AttemptRequest):
            request = replace(request, command=replace(request.command, stdin=execution.stdin))
        with self._holding(execution) as redactor:
            verdict = redacted(verdict, redactor)
            await self._audit.append_async(recording.decision(task, self.who, verdict, request.id))
        # Whatever was asked while it was recorded (a cancel) must not be lost: only the status is new.
        task = execution.task
        status = progress.begun(task, request.id, verdict.status, _now())
        execution.task = task.model_copy(update={"status": status})
        self._turns.started(task.key)
        self._runner.start(replace(attempt, request=request, tail_bytes=self.output_cap, listener=execution.hear))
        return None

    def _holding(self, execution: Execution) -> AbstractContextManager[Redactor]:
        return self._redactor.holding(execution.resolved.secrets, execution.task.metadata.namespace)

    async def _settle(self, execution: Execution) -> bool:
        """An attempt has ended. Whether the task has, too."""
        task = execution.task
        self._turns.leave(task.key, _now().timestamp())
        attempt = task.status.attempts[-1]
        outcome = await self._runner.collect(task.metadata.namespace, execution.uid, attempt, self.output_cap)
        ended = task.model_copy(update={"status": progress.attempt_ended(task, outcome)})
        execution.task = ended.model_copy(update={"spec": execution.task.spec})
        await self._audit.append_async(recording.execution(task, self.who, attempt.id, outcome))
        task = task.model_copy(update={"spec": execution.task.spec})  # a cancel that was asked for meanwhile
        what_follows = after_attempt(task, outcome, now=_now(), draw=random.random())  # noqa: S311 (jitter)
        self._runner.forget(attempt.id)
        if isinstance(what_follows, Finish):
            self._finish(execution, what_follows)
            return True
        status = progress.backing_off(execution.task, what_follows, _now())
        execution.task = execution.task.model_copy(update={"status": status})
        return False

    def _finish(self, execution: Execution, finish: Finish) -> Execution:
        status = progress.finished(execution.task, finish, _now())
        execution.task = execution.task.model_copy(update={"status": status})
        return execution

    def _keep(self, execution: Execution) -> None:
        self._done.append((execution.task.metadata.namespace, execution.uid))
        while len(self._done) > KEPT_RUNS:
            self._runner.store.forget(*self._done.pop(0))

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


async def _changed(execution: Execution, until: datetime.datetime | None) -> None:
    """Until something happened to it, or until then."""
    seconds = None if until is None else max(0.0, (until - _now()).total_seconds())
    waiting = asyncio.ensure_future(execution.changed.wait())
    await asyncio.wait({waiting}, timeout=seconds)
    waiting.cancel()


def new_uid() -> str:
    return str(uuid.uuid4())


def _now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)
