"""Takes a task from its creation to its final status, one idempotent step at a time, over any store of tasks.

`lifecycle` decides which step is next. The order of writes within a step makes it safe to kill the operator at any
point: the decision is on the audit trail and the attempt is in status before the program starts; the outcome is in the
run store and on the audit trail before it is in status; and status reports the end only when every process is dead.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import random
from collections.abc import AsyncIterable, Callable, Collection
from dataclasses import dataclass, field, replace

import structlog

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, PolicyStatus, VolumeStatus
from remit.api.phases import Phase
from remit.backends.outcome import Outcome
from remit.errors import AuditUnavailable, InvalidInput, MissingReference
from remit.execution import anomalies, progress, recording
from remit.execution.admission import Admission, Admitted, Refused, attempt_id, redacted, withheld
from remit.execution.lifecycle import (
    Acknowledge,
    Adopt,
    AwaitEarlierLeader,
    Begin,
    Collect,
    Expire,
    Finish,
    Idle,
    RetryAt,
    Stop,
    after_attempt,
    deadline,
    deadline_after,
    deadline_exceeded,
    next_step,
    waits_since,
)
from remit.execution.queue import Claims, Queue, WaitReason
from remit.execution.resolved import Resolved
from remit.execution.runner import Runner
from remit.execution.store import Run
from remit.execution.taskclock import TaskClock
from remit.execution.taskstore import PolicySource, StatusConflict, StoredTask, TaskStore
from remit.execution.waiting import Waiting
from remit.kube.leadership import Leadership
from remit.policy.deciding import MAX_MESSAGE
from remit.policy.verdict import HELPED_BY_A_RULE
from remit.sandbox.fencing import now as boot_time
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent
from remit.telemetry.encodings import MIN_LENGTH
from remit.telemetry.logs import escape

log = structlog.get_logger(__name__)
_GIVEN_OTHERS = "a Secret that it was given has changed since, so that the old value could not be redacted"


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass
class TaskDriver:
    """Performs one step of a task at each call of `step`."""

    store: TaskStore
    runner: Runner
    turns: Queue
    policies: PolicySource
    admission: Admission
    audit: AuditLog
    now: Callable[[], datetime.datetime] = _utc_now
    """The time of day: what status, Events and the audit trail tell. What is due is compared with `_clock`."""
    boot: Callable[[], float] = boot_time
    waits_for_audit: bool = True
    """Whether a task waits while its decision cannot be recorded; otherwise `step` raises `AuditUnavailable`, for
    somebody who waits for the task and can decide."""
    advice: Callable[[ExecutionTask], str] = lambda task: ""
    """Gives what the user can do when no rule allows the task. It is appended to the message of the denial."""
    leadership: Leadership | None = None
    """None without leader election."""
    stopping: bool = False
    """Set when the process shuts down: outcomes are still written, and no further attempt is started."""
    _ending: dict[str, str] = field(default_factory=dict)
    """Uids of deleted tasks whose processes are still alive, with the names under which they hold their places."""
    _waiting: Waiting = field(init=False)
    _clock: TaskClock = field(init=False)
    _denied: dict[str, AuditEvent] = field(default_factory=dict)
    """Denials by task uid that are on the audit trail but not in status yet, because the status write met a conflict.
    If an edit changes the denial, the new one is recorded as well."""
    _recorded: dict[str, str] = field(default_factory=dict)
    """Ids of attempts by task uid whose end is on the audit trail but not in status yet. The run store remembers the
    same for the next process, if it can be written."""

    def __post_init__(self) -> None:
        self._waiting = Waiting(self.store, lambda: self.now())
        self._clock = TaskClock(lambda: self.now(), self.boot)

    async def step(self, stored: StoredTask) -> float | None:
        """One step for a task that has no schedule. Gives seconds until it wants to be looked at again, or None."""
        metadata, stored = stored.task.metadata, replace(stored, task=self.admission.placed(stored.task))
        with structlog.contextvars.bound_contextvars(task=stored.task.key, uid=metadata.uid):
            try:
                return await self._step(stored)
            except StatusConflict:
                return 0.0

    async def finish(self, stored: StoredTask, finish: Finish, policy: PolicyStatus | None = None) -> float | None:
        """Write the end of the task, once, and tell everyone. Gives seconds until it is to be deleted, or None: our own
        write may come back from the store as nothing new, so nobody else would remember the deletion.

        Raises `StatusConflict`.
        """
        self.leave(stored.task.key)
        status = progress.finished(stored.task, finish, self.now(), policy)
        if unusual := self.store.find_unusual(stored, status):
            status = anomalies.marked(status, unusual, self.now())
        await self.store.write_status(stored, status)
        self._clock.restart(stored.task.metadata.uid)
        self._denied.pop(stored.task.metadata.uid, None)
        self.runner.forget_folders(stored.task.metadata.uid)
        succeeded = finish.phase is Phase.SUCCEEDED
        self.store.record_event(stored, "Normal" if succeeded else "Warning", finish.reason, finish.message)
        if unusual:
            self.store.record_event(stored, "Warning", unusual[0].measure.reason, anomalies.message(unusual))
        self.store.on_finished(stored, finish, status, unusual)
        return stored.task.spec.ttl_seconds_after_finished

    def leave(self, key: str) -> None:
        """Release the task's place in the queue, because it neither runs nor waits, or was deleted."""
        self.turns.leave(key, self._clock.steady())
        self._waiting.over(key)

    def waiting(self, reason: WaitReason) -> int:
        """How many tasks wait for `reason`."""
        return self.turns.waiting(reason, self._clock.steady())

    def deleted(self, key: str, namespace: str, uid: str) -> None:
        """The task was deleted: end its processes, and remove its output and records."""
        self._keep_place(key, uid)
        self.let_go(key, uid)
        self.runner.abandon(namespace, uid)

    def vanished(self, key: str, uid: str) -> None:
        """The server no longer has the task, but nobody saw its deletion: end its processes, and keep its records."""
        self._keep_place(key, uid)
        self.let_go(key, uid)
        self.runner.stop(uid)

    def _keep_place(self, key: str, uid: str) -> None:
        """Keep the place of a deleted task until its processes are dead, so that no other task writes to its
        workspaces. `leave_ended` releases it."""
        if self.runner.running(uid) and uid not in self._ending:
            self._ending[uid] = place = f"{key} (deleted, uid {uid})"
            self.turns.rename(key, place)

    def leave_ended(self) -> None:
        """Release the places of deleted tasks whose processes are all dead."""
        for uid in [uid for uid in self._ending if not self.runner.running(uid)]:
            self.turns.leave(self._ending.pop(uid), self._clock.steady())

    def let_go(self, key: str, uid: str) -> None:
        """Forget everything about the task."""
        self.leave(key)
        self._clock.forget(uid)
        self._denied.pop(uid, None)
        self._recorded.pop(uid, None)
        self.runner.forget_folders(uid)

    async def restore(self, tasks: AsyncIterable[ExecutionTask]) -> None:
        """Restore the queue after a restart: attempts that status reports as running, and recent starts, which count
        towards rates."""
        running: dict[str, tuple[str, Claims]] = {}
        starts: list[tuple[str, Claims, float]] = []
        policies = self.policies.current()
        async for task in tasks:
            namespace, attempts = task.metadata.namespace, task.status.attempts
            claims = policies.charged(task) if attempts else ()
            starts += [(namespace, claims, attempt.started_at.timestamp()) for attempt in attempts]
            if attempts and attempts[-1].finished_at is None and not (task.status.phase and task.status.phase.final):
                running[task.key] = namespace, claims
        self.turns.restore(running, starts, self._clock.steady())

    async def _step(self, stored: StoredTask) -> float | None:
        task, now = stored.task, self._clock.now(stored.task.metadata.uid)
        running = self.runner.running(task.metadata.uid)
        adoptable, seconds = False, 0.0
        if not running and (attempt := _open_attempt(task)) is not None:
            metadata = task.metadata
            adoptable = self.runner.adoptable(
                metadata.namespace, metadata.uid, attempt, task.spec.operation, task.spec.subject
            )
            seconds = self._seconds_until_over(task, attempt)
        match next_step(task, running=running, now=now, adoptable=adoptable, seconds_until_over=seconds):
            case Idle(until=until):
                if not running:
                    self.leave(task.key)
                elif (job_uid := self._unknown_job(task)) and not self.stopping:
                    await self.store.write_status(stored, progress.made(task, job_uid))
                return (until - now).total_seconds() if until else None
            case Stop():
                self.runner.stop(task.metadata.uid)
            case Expire():
                await self.store.delete(stored)
            case Acknowledge():
                await self.store.write_status(stored, progress.acknowledged(task))
                return 0.0
            case Collect(attempt=attempt):
                return await self._collect(stored, attempt)
            case AwaitEarlierLeader(seconds=seconds):
                log.info("waits until an attempt of an earlier leader is over for sure", seconds=round(seconds, 1))
                waits = progress.awaiting_earlier_leader(task, now)
                if task.status.message != waits.message:
                    await self.store.write_status(stored, waits)
                return seconds
            case Adopt(attempt=attempt) if not self.stopping:
                return await self._adopt(stored, attempt)
            case Finish() as finish:
                return await self.finish(stored, finish)
            case Begin(number=number) if not self.stopping:
                try:
                    return await self._begin(stored, number)
                except AuditUnavailable as error:
                    if not self.waits_for_audit:
                        raise
                    return self._in_time(task, await self._waiting.for_audit(stored, escape(str(error))))
        return None

    async def _begin(self, stored: StoredTask, number: int) -> float | None:
        """Ask policy and queue, resolve what the task refers to, record the attempt, start it."""
        if (lost := self._lost(stored.task, number)) is not None:
            return await self._restore(stored, lost)
        policies = self.policies.current()
        verdict = await self.admission.decided(stored.task, policies, stored.environment)
        if isinstance(verdict, Refused) and verdict.by_policy:
            # A policy that was applied just before the task may not have reached the watch yet. A denial is final, so
            # read the policies from the server first.
            fresh = await self.policies.fresh()
            if fresh is not policies:
                verdict = await self.admission.decided(stored.task, fresh, stored.environment)
        if isinstance(verdict, Refused):
            return await self._refuse(stored, verdict)
        task = stored.task
        limit = deadline_after(task, verdict.limits.deadline_seconds)
        task = task.model_copy(update={"status": task.status.model_copy(update={"deadline": limit})})
        stored = replace(stored, task=task)
        now = self._clock.now(task.metadata.uid)
        if limit is not None and now >= limit:
            return await self.finish(stored, deadline_exceeded(task))
        place = self.turns.enter(
            task.key,
            task.metadata.namespace,
            verdict.rates,
            since=waits_since(task, now).timestamp(),
            now=self._clock.steady(),
            memory=verdict.memory,
        )
        if place is not None:
            return self._in_time(task, await self._waiting.for_turn(stored, place))
        try:
            return await self._start(stored, number)
        except MissingReference as error:
            self.leave(task.key)
            return self._in_time(task, await self._waiting.for_reference(stored, escape(str(error))))
        except StatusConflict:
            raise  # the task is retried immediately and keeps its turn
        except BaseException:
            self.leave(task.key)
            raise

    def _lost(self, task: ExecutionTask, number: int) -> str | None:
        """The id of attempt `number`, where the run store has it though status tells nothing of it. Status is written
        before an attempt is on record, so it was taken back since: by somebody who may write it, or by a restore."""
        metadata, id_ = task.metadata, attempt_id(task, number)
        return id_ if self.runner.store.find(metadata.namespace, metadata.uid, id_) is not None else None

    async def _restore(self, stored: StoredTask, id_: str) -> float | None:
        """Collect the outcome of an attempt that is missing from status, instead of starting it a second time."""
        task = stored.task
        message = f"status told nothing of attempt {id_}, which is on record here; it is not started a second time"
        self.store.record_event(stored, "Warning", "StatusRestored", message)
        status = progress.begun(task, id_, task.status.policy, self.now())
        stored = replace(stored, task=task.model_copy(update={"status": status}))
        return await self._collect(stored, status.attempts[-1], "status had been taken back")

    async def _start(self, stored: StoredTask, number: int) -> float | None:
        """It is the task's turn. Raises `MissingReference`, and whatever keeps the attempt from being recorded."""
        task, namespace = stored.task, stored.task.metadata.namespace
        limit = deadline(task)
        resolved = await self.store.resolve(stored)
        # The variables of `envFrom` are known only now.
        verdict = await self.admission.decided(task, self.policies.current(), resolved.env)
        if isinstance(verdict, Refused):
            return await self._refuse(stored, verdict, resolved.secrets)
        # Set since the decision was requested; a run that starts now would be interrupted immediately.
        if self.stopping:
            self.leave(task.key)
            return None
        left = (limit - self._clock.now(task.metadata.uid)).total_seconds() if limit else None
        try:
            pins = await self._lay_out(task, verdict, resolved)
            attempt = self.store.prepare(stored, self.admission.attempt(task, verdict, number, resolved, left))
        except InvalidInput as error:
            return await self.finish(stored, Finish(Phase.FAILED, "Invalid", "Invalid", str(error)), verdict.status)
        with self.runner.redactor.holding(resolved.secrets, namespace) as redactor:
            verdict = redacted(verdict, redactor)
            who = self.store.requester(stored)
            await self.audit.append_async(recording.decision(task, who, verdict, attempt.request.id))
            transitions = self.leadership.transitions if self.leadership else None
            begun = progress.begun(task, attempt.request.id, verdict.status, self.now(), transitions, pins)
            await self.store.write_status(stored, begun)
        self.turns.started(task.key)
        self.runner.start(attempt)
        self._waiting.over(task.key)
        if resolved.exposed and number == 1:
            self.store.record_event(stored, "Warning", "ShortSecret", _exposed(resolved.exposed))
        self.store.on_started(stored, number, verdict)
        return None

    async def _lay_out(
        self, task: ExecutionTask, admitted: Admitted, resolved: Resolved, *, running: bool = False
    ) -> list[VolumeStatus]:
        """Find the folders of its volumes. Raises as `Folders.lay_out`."""
        folders = self.runner.folders
        if folders is None or not task.spec.volumes:
            return []
        return await asyncio.to_thread(folders.lay_out, task, admitted.policies, resolved, running=running)

    async def _refuse(
        self, stored: StoredTask, refused: Refused, secrets: Collection[str] | None = None
    ) -> float | None:
        """Record and tell a denial, without the task's secrets: they are read for that where they were not yet."""
        task = stored.task
        if secrets is None:
            try:
                secrets = await self.store.secrets_of(stored)
            # Without the secrets, the message cannot be redacted, so nothing that could contain one is reported.
            except MissingReference as error:
                refused, secrets = withheld(refused, escape(str(error))), ()
        with self.runner.redactor.holding(secrets, task.metadata.namespace) as redactor:
            refused = redacted(refused, redactor)
            event = recording.decision(task, self.store.requester(stored), refused)
            told = replace(event, asks={})  # labels may change while the refusal is written to status
            if self._denied.get(task.metadata.uid) != told:
                await self.audit.append_async(event)
                self._denied[task.metadata.uid] = told
                self.store.on_denied(stored, refused)
            return await self.finish(stored, self._advised(task, refused), refused.status)

    def _advised(self, task: ExecutionTask, refused: Refused) -> Finish:
        finish, advice = refused.finish, self.advice(task)
        if not refused.by_policy or finish.reason not in HELPED_BY_A_RULE or not advice:
            return finish
        room = MAX_MESSAGE - len(advice)
        message = finish.message if len(finish.message) <= room else f"{finish.message[: room - 2]} …"
        return replace(finish, message=f"{message}{advice}")

    def _unknown_job(self, task: ExecutionTask) -> str:
        """The uid of the Job that the open attempt is, where status does not tell it yet. An operator that has lost
        its records takes up no other Job."""
        attempt, job_uid = _open_attempt(task), self.runner.job_uid(task.metadata.uid)
        return job_uid if attempt is not None and attempt.job_uid != job_uid else ""

    def _seconds_until_over(self, task: ExecutionTask, attempt: AttemptStatus) -> float:
        """How long an earlier leader may still be at work on the open attempt."""
        if self.leadership is None:
            return 0.0
        metadata, seconds = task.metadata, self.leadership.seconds_until_over(attempt.lease_transitions, boot_time())
        return 0.0 if seconds and self.runner.has_ended(metadata.namespace, metadata.uid, attempt) else seconds

    async def _adopt(self, stored: StoredTask, attempt: AttemptStatus) -> float | None:
        """Take up what a process before us started, under the terms of now. What would not be allowed any more ends,
        and so does one whose Secrets are gone or changed, as what it was given could not be redacted."""
        task, metadata = stored.task, stored.task.metadata
        try:
            resolved = await self.store.resolve(stored)
        except MissingReference:
            return await self._collect(stored, attempt)
        if not self.runner.has_secrets_of(metadata.namespace, metadata.uid, attempt, resolved.secret_versions):
            return await self._collect(stored, attempt, _GIVEN_OTHERS)
        verdict = await self.admission.decided(task, self.policies.current(), resolved.env)
        if isinstance(verdict, Refused):
            return await self._collect(stored, attempt)
        if not self.stopping:
            limit = deadline(task)
            allowed = (limit - attempt.started_at).total_seconds() if limit else None
            try:
                await self._lay_out(task, verdict, resolved, running=True)
                again = self.admission.attempt(task, verdict, attempt.number, resolved, allowed)
            except (InvalidInput, MissingReference) as error:
                return await self._collect(stored, attempt, str(error))
            self.runner.start(replace(self.store.prepare(stored, again), job_uid=attempt.job_uid), adopt=True)
            log.info("took up an attempt of the operator before", attempt=attempt.id)
        return None

    async def _collect(self, stored: StoredTask, attempt: AttemptStatus, cause: str = "") -> float | None:
        task, metadata = stored.task, stored.task.metadata
        tail_bytes = task.spec.output.tail_bytes
        outcome = await self.runner.collect(metadata.namespace, metadata.uid, attempt, tail_bytes, cause)
        return await self._settle(stored, attempt, outcome)

    async def _settle(self, stored: StoredTask, attempt: AttemptStatus, outcome: Outcome) -> float | None:
        """An attempt has ended: the end of the task, or a retry. One write says both."""
        task, now = stored.task, self._clock.now(stored.task.metadata.uid)
        self.leave(task.key)
        await self._record_end(stored, attempt, outcome)
        if outcome.output is not None and outcome.output.altered:
            self.store.record_event(stored, "Warning", "OutputRedacted", outcome.output.changed(attempt.number))
        if outcome.output is not None and (binary := outcome.output.looks_binary(attempt.number)):
            self.store.record_event(stored, "Normal", "OutputBinary", binary)
        ended = task.model_copy(update={"status": progress.attempt_ended(task, outcome)})
        match after_attempt(task, outcome, now=now, draw=random.random()):  # noqa: S311 (jitter)
            case Finish() as finish:
                look_again = await self.finish(replace(stored, task=ended), finish)
                self._forget(task, attempt)
                self.store.on_attempt_ended(stored, attempt, outcome, retried=False)
                return look_again
            case RetryAt() as retry:
                await self.store.write_status(stored, progress.backing_off(ended, retry, now))
                self._forget(task, attempt)
                self.store.on_attempt_ended(stored, attempt, outcome, retried=True)
                self.store.record_event(stored, "Warning", "BackOff", f"attempt {attempt.number} {retry.message}")
                return (retry.when - now).total_seconds()

    async def _record_end(self, stored: StoredTask, attempt: AttemptStatus, outcome: Outcome) -> None:
        """Record the end on the audit trail once, even if a restart or a conflict comes before the status write."""
        metadata = stored.task.metadata
        if self._recorded.get(metadata.uid) == attempt.id:
            return
        run: Run | None = None
        with contextlib.suppress(OSError):  # the run store cannot be written, which may be what ended the attempt
            run = self.runner.store.open(metadata.namespace, metadata.uid, attempt.id)
        if run is not None and run.audited:
            return
        who = self.store.requester(stored)
        await self.audit.append_async(recording.execution(stored.task, who, attempt.id, outcome))
        self._recorded[metadata.uid] = attempt.id
        if run is not None:
            with contextlib.suppress(OSError):
                run.mark_audited()

    def _forget(self, task: ExecutionTask, attempt: AttemptStatus) -> None:
        """How the attempt ended is in status."""
        self._recorded.pop(task.metadata.uid, None)
        self.runner.forget(attempt.id)

    def _in_time(self, task: ExecutionTask, seconds: float) -> float:
        """`seconds`, or less where the task's deadline comes first."""
        limit = deadline(task)
        if limit is None:
            return seconds
        return max(0.0, min(seconds, (limit - self._clock.now(task.metadata.uid)).total_seconds()))


def _open_attempt(task: ExecutionTask) -> AttemptStatus | None:
    """The attempt whose end status does not tell yet."""
    attempts = task.status.attempts
    return attempts[-1] if attempts and attempts[-1].finished_at is None else None


def _exposed(names: list[str]) -> str:
    return (
        f"the secret for {', '.join(names)} is shorter than {MIN_LENGTH} bytes, and so is not redacted where the"
        " program prints it; use a longer one"
    )
