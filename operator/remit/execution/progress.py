"""Status, step by step: each function takes the status so far and gives the one to write. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import (
    AttemptStatus,
    ErrorStatus,
    ExecutionTaskStatus,
    PolicyStatus,
    QueueStatus,
    RecentRun,
    VolumeStatus,
)
from remit.api.phases import Phase
from remit.backends.outcome import INTERRUPTIONS, Outcome
from remit.execution.attemptstatus import artifact_statuses, closed, result_statuses, sandbox_status
from remit.execution.conditions import conditions_for
from remit.execution.durations import human_duration
from remit.execution.lifecycle import Finish, RetryAt
from remit.execution.queue import Place, WaitReason
from remit.telemetry.logs import escape

KEPT_ATTEMPTS = 10
"""Attempts shown in status: the first and the latest nine. The audit trail has them all."""


def waiting(
    task: ExecutionTask,
    phase: Phase,
    reason: str,
    message: str,
    now: datetime.datetime,
    queue: QueueStatus | None = None,
) -> ExecutionTaskStatus:
    """The task waits: for its turn, at its place in the `queue`, or for something that it refers to."""
    queued_at = task.status.queued_at or now
    return _moved(task, phase, reason, message, now, queued_at=queued_at, queue=queue)


def queued(task: ExecutionTask, place: Place, now: datetime.datetime) -> ExecutionTaskStatus:
    """The task waits for its turn."""
    blocked, namespace = place.blocked, task.metadata.namespace
    policy = blocked.policy.removeprefix(f"{namespace}/")
    match blocked.reason:
        case WaitReason.OPERATOR:
            why = f"the operator runs {blocked.limit} at once, all are taken"
        case WaitReason.MEMORY:
            why = f"the operator has {blocked.limit} bytes of memory for its tasks, and those that run leave too few"
        case WaitReason.CONCURRENCY:
            why = f"policy {policy} allows {blocked.limit} at once, all are taken"
        case WaitReason.RATE:
            why = f"policy {policy} allows {blocked.limit} starts a minute, all are used"
        case WaitReason.WORKSPACE:
            why = f"task {blocked.holder.removeprefix(f'{namespace}/')} is writing to workspace {blocked.workspace}"
    where = f"{ordinal(place.position)} of {place.waiting} waiting in namespace {namespace}"
    status = QueueStatus(position=place.position, waiting=place.waiting, reason=blocked.reason, policy=blocked.policy)
    return waiting(task, Phase.QUEUED, "Queued", f"waits for its turn: {why}; {where}", now, status)


def ordinal(number: int) -> str:
    """`1st`, `2nd`, `3rd`, `4th` … `11th` … `21st`."""
    teens = 10 <= number % 100 <= 20
    return f"{number}{'th' if teens else {1: 'st', 2: 'nd', 3: 'rd'}.get(number % 10, 'th')}"


def scheduled(
    task: ExecutionTask,
    now: datetime.datetime,
    *,
    last: datetime.datetime | None,
    upcoming: datetime.datetime | None,
    active: list[str],
    recent: list[RecentRun],
) -> ExecutionTaskStatus:
    """A task that runs by the clock: when it ran last, when it runs next (None: suspended), what of it runs now, and
    the `recent` runs that the next one is compared with."""
    message = f"next run at {upcoming:%FT%TZ}" if upcoming else "suspended: no run is started"
    reason = "Scheduled" if upcoming else "Suspended"
    return _moved(
        task,
        Phase.SCHEDULED,
        reason,
        message,
        now,
        last_schedule_time=last,
        next_schedule_time=upcoming,
        active=active,
        recent_runs=recent,
    )


def begun(
    task: ExecutionTask,
    attempt_id: str,
    policy: PolicyStatus | None,
    now: datetime.datetime,
    lease_transitions: int | None = None,
    volumes: Sequence[VolumeStatus] = (),
) -> ExecutionTaskStatus:
    """Attempt `attempt_id` is about to start. Written before it does. `volumes` are those that are pinned."""
    status = task.status
    number = status.attempt_count + 1
    attempt = AttemptStatus(
        number=number,
        id=attempt_id,
        backend=task.status.backend,
        lease_transitions=lease_transitions,
        started_at=now,
    )
    return _moved(
        task,
        Phase.RUNNING,
        "Running",
        f"attempt {number} is running",
        now,
        policy=policy,
        attempts=_kept([*status.attempts, attempt]),
        attempt_count=number,
        start_time=status.start_time or now,
        next_retry_time=None,
        volumes=list(volumes),
    )


def made(task: ExecutionTask, job_uid: str) -> ExecutionTaskStatus:
    """The open attempt is this Job, and no other one of its name."""
    *earlier, attempt = task.status.attempts
    attempts = [*earlier, attempt.model_copy(update={"job_uid": job_uid})]
    return task.status.model_copy(update={"attempts": attempts})


def attempt_ended(task: ExecutionTask, outcome: Outcome) -> ExecutionTaskStatus:
    """Ends the open attempt. `finished` or `backing_off` follows in the same write."""
    status = task.status
    *earlier, attempt = status.attempts
    return status.model_copy(
        update={
            "attempts": [*earlier, closed(attempt, outcome)],
            "exit_code": outcome.exit_code,
            "artifacts": artifact_statuses(outcome),
            "results": result_statuses(outcome),
            "interruptions": status.interruptions + (outcome.reason in INTERRUPTIONS),
            "output": outcome.output or status.output,
            "sandbox": sandbox_status(outcome) or status.sandbox,
        }
    )


def acknowledged(task: ExecutionTask) -> ExecutionTaskStatus:
    """The task's end, unchanged by an edit of its spec."""
    generation = task.metadata.generation
    conditions = [each.model_copy(update={"observed_generation": generation}) for each in task.status.conditions]
    return task.status.model_copy(update={"observed_generation": generation, "conditions": conditions})


def awaiting_earlier_leader(task: ExecutionTask, now: datetime.datetime) -> ExecutionTaskStatus:
    """The open attempt is that of an earlier leader, which may still be at work on it."""
    number = task.status.attempt_count
    why = f"attempt {number} was started by an earlier leader; it is left alone until that has stopped for certain"
    return _moved(task, Phase.RUNNING, "AwaitingEarlierLeader", why, now)


def backing_off(task: ExecutionTask, retry: RetryAt, now: datetime.datetime) -> ExecutionTaskStatus:
    """Another attempt follows, later."""
    return _moved(task, Phase.BACKOFF, "Backoff", retry.message, now, next_retry_time=retry.when)


def finished(
    task: ExecutionTask, finish: Finish, now: datetime.datetime, policy: PolicyStatus | None = None
) -> ExecutionTaskStatus:
    """The end. `policy` is the decision where that is what ended it."""
    started, ttl = task.status.start_time, task.spec.ttl_seconds_after_finished
    error = None
    if finish.phase is not Phase.SUCCEEDED:
        error = ErrorStatus(
            reason=finish.reason,
            category=finish.category,
            message=escape(finish.message),
            retryable=finish.retryable,
        )
    return _moved(
        task,
        finish.phase,
        finish.reason,
        finish.message,
        now,
        completion_time=now,
        expiration_time=None if ttl is None else now + datetime.timedelta(seconds=ttl),
        duration=human_duration(now - started) if started else "",
        next_retry_time=None,
        error=error,
        policy=policy or task.status.policy,
    )


def _moved(
    task: ExecutionTask, phase: Phase, reason: str, message: str, now: datetime.datetime, **changes: object
) -> ExecutionTaskStatus:
    message = escape(message)  # parts of the message come from users, and it is shown on terminals
    conditions = conditions_for(
        phase, reason, message, before=task.status.conditions, generation=task.metadata.generation, now=now
    )
    return task.status.model_copy(
        update={
            "observed_generation": task.metadata.generation,
            "phase": phase,
            "operation": task.spec.operation,
            "message": message,
            "conditions": conditions,
            "queue": None,
            **changes,
        }
    )


def _kept(attempts: list[AttemptStatus]) -> list[AttemptStatus]:
    if len(attempts) <= KEPT_ATTEMPTS:
        return attempts
    return [attempts[0], *attempts[-(KEPT_ATTEMPTS - 1) :]]
