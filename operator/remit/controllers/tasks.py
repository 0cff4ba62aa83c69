"""ExecutionTasks: one look at a task, one idempotent step. What the step is, `remit.execution.lifecycle` decides."""

from __future__ import annotations

import asyncio
import datetime
import random
from collections.abc import Callable, Collection
from dataclasses import dataclass, field

import structlog

from remit.api import ExecutionTask, Phase
from remit.api.executiontaskstatus import AttemptStatus, PolicyStatus
from remit.controllers.policies import Policies
from remit.controllers.requester import Requester
from remit.controllers.schedules import ScheduleReconciler, parent_key
from remit.controllers.values import resolve, secrets_of
from remit.controllers.waiting import Waiting
from remit.errors import AuditUnavailable, InvalidInput, MissingReference
from remit.execution import progress, recording
from remit.execution.admission import Admission, Refused, redacted
from remit.execution.attemptresult import AttemptResult
from remit.execution.lifecycle import (
    Adopt,
    Begin,
    Collect,
    Expire,
    Finish,
    Idle,
    Stop,
    after_attempt,
    deadline,
    deadline_after,
    deadline_exceeded,
    next_step,
    waits_since,
)
from remit.execution.queue import Claims, Queue, WaitReason
from remit.execution.runner import Runner
from remit.kube.client import TASKS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.indexer import key_of
from remit.kube.reflector import Reflector
from remit.kube.status import Outdated, StatusWriter
from remit.telemetry import AuditEvent, AuditLog, Metrics, escape
from remit.telemetry.spellings import MIN_LENGTH

log = structlog.get_logger(__name__)
_TASKS_PER_TURN = 100
"""Tasks that are read as the operator starts before others have a turn on the event loop."""
_GIVEN_OTHERS = "a Secret that it was given has changed since, so that the old value could not be redacted"


@dataclass
class TaskReconciler:
    """Takes tasks from their creation to their one honest end."""

    kube: Kube
    reflector: Reflector
    runner: Runner
    turns: Queue
    policies: Policies
    admission: Admission
    audit: AuditLog
    metrics: Metrics
    events: Recorder
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    requester: Callable[[Object], str] = field(default_factory=Requester)
    on_finished: Callable[[Object], None] = lambda task: None
    """Called with each task whose end was written."""
    stopping: bool = False
    """Set once the operator goes: what ends is still written, and nothing more is started."""
    _writer: StatusWriter = field(init=False)
    _waiting: Waiting = field(init=False)
    _schedules: ScheduleReconciler = field(init=False)
    _refused: dict[str, AuditEvent] = field(default_factory=dict)
    """Denials that are on record but not yet in status, by task uid: somebody else wrote in between. An edit that
    changes the denial is another one, and recorded."""

    def __post_init__(self) -> None:
        self._writer = StatusWriter(self.kube, self.reflector, self.metrics, "ExecutionTask")
        self._waiting = Waiting(self._writer, self.events, lambda: self.now())
        self._schedules = ScheduleReconciler(
            self.kube, self.reflector, self.metrics, self.events, lambda: self.now(), self._wake
        )

    async def reconcile(self, key: str) -> float | None:
        """One step for the task `key`. Gives seconds until it wants to be looked at again, or None."""
        obj = self.reflector.objects.get(key)
        if obj is None:
            self._leave(key)
            return None
        try:
            task = ExecutionTask.parse(obj)
        except InvalidInput as error:
            await self._refuse_unreadable(obj, error)
            return None
        uid = task.metadata.uid
        with structlog.contextvars.bound_contextvars(task=key, uid=uid):
            try:
                return await self._step(task, obj)
            except Outdated:
                return 0.0

    def deleted(self, obj: Object) -> None:
        """The task is gone: whatever of it still runs must end, and what was kept of it goes too."""
        metadata = obj["metadata"]
        self._leave(key_of(obj))
        self._refused.pop(metadata["uid"], None)
        self.runner.abandon(metadata["namespace"], metadata["uid"])

    async def sweep(self) -> None:
        """Remove what is kept of tasks that are gone."""
        store, tasks = self.runner.store, self.reflector
        for namespace, uid in await asyncio.to_thread(lambda: list(store.tasks())):
            served = not tasks.namespaces or namespace in tasks.namespaces
            if served and uid not in tasks.objects and not self.runner.running(uid):
                self.runner.abandon(namespace, uid)

    async def _step(self, task: ExecutionTask, obj: Object) -> float | None:
        now, phase = self.now(), task.status.phase
        if task.spec.schedule is not None and not (phase and phase.final) and not task.metadata.deletion_timestamp:
            return await self._by_the_clock(task, obj)
        running = self.runner.running(task.metadata.uid)
        match next_step(task, running=running, now=now, adoptable=not running and self._adoptable(task)):
            case Idle(until=until):
                if not running:
                    self._leave(task.key)
                return (until - now).total_seconds() if until else None
            case Stop():
                self.runner.stop(task.metadata.uid)
            case Expire():
                await self._expire(task)
            case Collect(attempt=attempt):
                return await self._collect(task, obj, attempt)
            case Adopt(attempt=attempt) if not self.stopping:
                return await self._adopt(task, obj, attempt)
            case Finish() as finish:
                return await self._finish(task, obj, finish)
            case Begin(number=number) if not self.stopping:
                try:
                    return await self._begin(task, obj, number)
                except AuditUnavailable as error:
                    return self._in_time(task, await self._waiting.for_audit(task, obj, escape(str(error))))
        return None

    def _adoptable(self, task: ExecutionTask) -> bool:
        attempts, metadata = task.status.attempts, task.metadata
        return bool(attempts) and self.runner.adoptable(metadata.namespace, metadata.uid, attempts[-1])

    async def _adopt(self, task: ExecutionTask, obj: Object, attempt: AttemptStatus) -> float | None:
        """Take up what an operator before us started, under the terms of now. What would not be allowed any more, or
        whose Secrets are gone or changed, so that what it was given could not be redacted, ends."""
        try:
            resolved = await resolve(self.kube, task.metadata.namespace, task.spec)
        except MissingReference:
            return await self._collect(task, obj, attempt)
        metadata = task.metadata
        if not self.runner.has_secrets_of(metadata.namespace, metadata.uid, attempt, resolved.secret_versions):
            return await self._collect(task, obj, attempt, _GIVEN_OTHERS)
        verdict = await self.admission.decided(task, self.policies.current(), resolved.env)
        if isinstance(verdict, Refused):
            return await self._collect(task, obj, attempt)
        if not self.stopping:
            limit = deadline(task)
            allowed = (limit - attempt.started_at).total_seconds() if limit else None
            again = self.admission.attempt(task, verdict, attempt.number, resolved, allowed)
            self.runner.start(again, adopt=True)
            log.info("took up an attempt of the operator before", attempt=attempt.id)
        return None

    async def _collect(self, task: ExecutionTask, obj: Object, attempt: AttemptStatus, cause: str = "") -> float | None:
        result = await self.runner.collect(
            task.metadata.namespace, task.metadata.uid, attempt, task.spec.output.tail_bytes, cause
        )
        return await self._settle(task, obj, result)

    async def _by_the_clock(self, task: ExecutionTask, obj: Object) -> float | None:
        if self.stopping:
            return None
        try:
            return await self._schedules.step(task, obj)
        except InvalidInput as error:
            return await self._finish(task, obj, Finish(Phase.FAILED, "InvalidSchedule", "Invalid", str(error)))

    async def _begin(self, task: ExecutionTask, obj: Object, number: int) -> float | None:
        """Ask policy and queue, resolve what the task refers to, record the attempt, start it."""
        verdict = await self.admission.decided(task, self.policies.current())
        if isinstance(verdict, Refused) and verdict.by_policy:
            # A policy applied just before the task may not have come by our watch yet. No is final: ask the server.
            verdict = await self.admission.decided(task, await self.policies.fresh())
        if isinstance(verdict, Refused):
            return await self._refuse(task, obj, verdict)
        limit = deadline_after(task, verdict.limits.deadline_seconds)
        task = task.model_copy(update={"status": task.status.model_copy(update={"deadline": limit})})
        if limit is not None and self.now() >= limit:
            return await self._finish(task, obj, deadline_exceeded(task))
        now = self.now()
        since = waits_since(task, now).timestamp()
        place = self.turns.enter(
            task.key,
            task.metadata.namespace,
            verdict.rates,
            since=since,
            now=now.timestamp(),
            memory=verdict.memory,
        )
        if place is not None:
            return self._in_time(task, await self._waiting.for_turn(task, obj, place))
        try:
            return await self._run(task, obj, number)
        except MissingReference as error:
            self._leave(task.key)
            return self._in_time(task, await self._waiting.for_reference(task, obj, escape(str(error))))
        except Outdated:
            raise  # asked again at once, and still its turn
        except BaseException:
            self._leave(task.key)
            raise

    async def _run(self, task: ExecutionTask, obj: Object, number: int) -> float | None:
        """It is the task's turn. Raises `MissingReference`, and whatever keeps the attempt from being recorded."""
        limit = deadline(task)
        resolved = await resolve(self.kube, task.metadata.namespace, task.spec)
        # Only now is it known which names `envFrom` brings.
        verdict = await self.admission.decided(task, self.policies.current(), resolved.env)
        if isinstance(verdict, Refused):
            return await self._refuse(task, obj, verdict, resolved.secrets)
        if self.stopping:  # since it was asked: a run that is started now would be lost at once
            self._leave(task.key)
            return None
        left = (limit - self.now()).total_seconds() if limit else None
        attempt = self.admission.attempt(task, verdict, number, resolved, left)
        with self.runner.redactor.holding(resolved.secrets, task.metadata.namespace) as redactor:
            verdict = redacted(verdict, redactor)
            await self.audit.append_async(recording.decision(task, self.requester(obj), verdict, attempt.request.id))
            await self._writer.write(obj, progress.begun(task, attempt.request.id, verdict.status, self.now()))
        self.turns.started(task.key)
        self.runner.start(attempt)
        self._waiting.over(task.key)
        if resolved.exposed and number == 1:
            self.events.record(obj, "Warning", "ShortSecret", _exposed(resolved.exposed))
        self.policies.count(task.metadata.namespace, task.metadata.name, verdict.status)
        if number == 1 and task.metadata.creation_timestamp is not None:
            self.metrics.task_queue.observe((self.now() - task.metadata.creation_timestamp).total_seconds())
        self.metrics.policy_decisions.labels("Audited" if verdict.status.audited else "Allowed").inc()
        return None

    def queued(self, reason: WaitReason) -> int:
        """How many tasks wait for `reason`."""
        return self.turns.waiting(reason, self.now().timestamp())

    async def restore(self) -> None:
        """Take over from the operator before: what is on record as running, and the starts that rates look back on."""
        running: dict[str, tuple[str, Claims]] = {}
        starts: list[tuple[str, Claims, float]] = []
        policies = self.policies.current()
        for count, obj in enumerate(self.reflector.objects.list(), 1):
            if count % _TASKS_PER_TURN == 0:
                await asyncio.sleep(0)
            try:
                task = ExecutionTask.parse(obj)
            except InvalidInput:
                continue  # told of in its status, by and by
            namespace, attempts = task.metadata.namespace, task.status.attempts
            claims = policies.charged(task) if attempts else ()
            starts += [(namespace, claims, attempt.started_at.timestamp()) for attempt in attempts]
            if attempts and attempts[-1].finished_at is None and not (task.status.phase and task.status.phase.final):
                running[task.key] = namespace, claims
        self.turns.restore(running, starts, self.now().timestamp())

    def _wake(self, key: str) -> None:
        self.turns.wake(key, 0.0)

    def _leave(self, key: str) -> None:
        self.turns.leave(key, self.now().timestamp())
        self._waiting.over(key)

    def _in_time(self, task: ExecutionTask, seconds: float) -> float:
        """`seconds`, or less where the task's deadline comes first."""
        limit = deadline(task)
        return seconds if limit is None else max(0.0, min(seconds, (limit - self.now()).total_seconds()))

    async def _settle(self, task: ExecutionTask, obj: Object, result: AttemptResult) -> float | None:
        """An attempt has ended: the end of the task, or a retry. One write says both."""
        self._leave(task.key)
        now = self.now()
        what_follows = after_attempt(task, result.ended, now=now, draw=random.random())  # noqa: S311 (jitter)
        attempt = task.status.attempts[-1]
        closed = progress.attempt_ended(task, result)
        run = self.runner.store.open(task.metadata.namespace, task.metadata.uid, attempt.id)
        if not run.audited:
            await self.audit.append_async(recording.execution(task, self.requester(obj), attempt.id, result))
            run.mark_audited()
        if result.output is not None and result.output.altered:
            self.events.record(obj, "Warning", "OutputRedacted", result.output.changed(attempt.number))
        task = task.model_copy(update={"status": closed})
        if isinstance(what_follows, Finish):
            look_again = await self._finish(task, obj, what_follows)
            self.runner.forget(attempt.id)
            return look_again
        status = progress.backing_off(task, what_follows, now)
        await self._writer.write(obj, status)
        self.runner.forget(attempt.id)
        self.events.record(obj, "Warning", "BackOff", f"attempt {attempt.number} {what_follows.message}")
        return (what_follows.when - now).total_seconds()

    async def _finish(
        self, task: ExecutionTask, obj: Object, finish: Finish, policy: PolicyStatus | None = None
    ) -> float | None:
        """Write the end of the task, once, and tell everyone. Gives seconds until it is to be deleted, or None.

        Our own write may come back by the watch as nothing new, so nobody else would remember the deletion.
        """
        self._leave(task.key)
        status = progress.finished(task, finish, self.now(), policy)
        await self._writer.write(obj, status)
        succeeded = finish.phase is Phase.SUCCEEDED
        self.events.record(obj, "Normal" if succeeded else "Warning", finish.reason, finish.message)
        labels = task.spec.operation, task.spec.backend
        self.metrics.task_finished.labels(*labels, finish.reason).inc()
        if status.start_time is not None and status.completion_time is not None:
            seconds = (status.completion_time - status.start_time).total_seconds()
            self.metrics.task_duration.labels(*labels).observe(seconds)
        if (parent := parent_key(obj)) is not None:  # the watch will bring nothing new of what we wrote ourselves
            self._wake(parent)
        self.on_finished(obj)
        log.info("task finished", phase=str(finish.phase), reason=finish.reason)
        return task.spec.ttl_seconds_after_finished

    async def _refuse(
        self, task: ExecutionTask, obj: Object, refused: Refused, secrets: Collection[str] | None = None
    ) -> float | None:
        """Record and tell a denial, without the task's secrets: they are read for that where they were not yet."""
        namespace = task.metadata.namespace
        if secrets is None:
            try:
                secrets = await secrets_of(self.kube, namespace, task.spec)
            except MissingReference as error:
                return self._in_time(task, await self._waiting.for_reference(task, obj, escape(str(error))))
        with self.runner.redactor.holding(secrets, namespace) as redactor:
            return await self._denied(task, obj, redacted(refused, redactor))

    async def _denied(self, task: ExecutionTask, obj: Object, refused: Refused) -> float | None:
        event = recording.decision(task, self.requester(obj), refused)
        if self._refused.get(task.metadata.uid) != event:
            await self.audit.append_async(event)
            self._refused[task.metadata.uid] = event
            if refused.by_policy and (status := refused.status) is not None:
                self.metrics.policy_decisions.labels("Denied").inc()
                self.policies.count(task.metadata.namespace, task.metadata.name, status, refused.finish.message)
        look_again = await self._finish(task, obj, refused.finish, refused.status)
        self._refused.pop(task.metadata.uid, None)
        return look_again

    async def _refuse_unreadable(self, obj: Object, error: InvalidInput) -> None:
        """The object passed the API server, and is still not one: an older CRD, or a newer one, is installed."""
        if (obj.get("status") or {}).get("phase") in set(Phase):
            return
        blank = ExecutionTask.parse({**obj, "spec": {"command": {"argv": ["-"]}}, "status": {}})
        finish = Finish(Phase.FAILED, "Invalid", "Invalid", f"{error}; install the CRDs of this version of Remit")
        status = progress.finished(blank, finish, self.now()).model_copy(update={"operation": ""})
        await self._writer.write(obj, status)
        self.events.record(obj, "Warning", "Invalid", finish.message)

    async def _expire(self, task: ExecutionTask) -> None:
        metadata = task.metadata
        await self.kube.discard(TASKS, metadata.namespace, metadata.name, uid=metadata.uid)
        self.metrics.api_writes.labels("delete", "ExecutionTask").inc()


def _exposed(names: list[str]) -> str:
    return (
        f"the secret for {', '.join(names)} is shorter than {MIN_LENGTH} bytes, and so is not redacted where the"
        " program prints it; use a longer one"
    )
