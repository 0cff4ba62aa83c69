"""Decides what a task needs next: a pure function of the task, of what this process is running, and of the time.

Reading this file is reading the state machine. Every answer is idempotent: asked again about the same world it says
the same, so the operator may be killed between any two steps.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Final

from remit import reasons
from remit.api.executiontask import Backoff, ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus
from remit.api.phases import Phase
from remit.backends.failure import LONGEST_RETRY_AFTER
from remit.backends.outcome import INTERRUPTIONS, ExitReason, Outcome

MAX_INTERRUPTIONS = 3
"""How often a task with `onInterruption: Retry` is started again. More than that, and it is likely the task itself
that takes the operator down."""


@dataclass(frozen=True, slots=True)
class Idle:
    """Nothing, until something changes or until `until`."""

    until: datetime.datetime | None = None


@dataclass(frozen=True, slots=True)
class Expire:
    """Delete the task, because its time to live has passed."""


@dataclass(frozen=True, slots=True)
class Acknowledge:
    """Write that status, which is final, holds of the spec as it was edited since."""


@dataclass(frozen=True, slots=True)
class Stop:
    """End the run that is going: the user cancelled."""


@dataclass(frozen=True, slots=True)
class Collect:
    """Find out how the open attempt ended: it is not going any more, or an earlier process left it behind."""

    attempt: AttemptStatus


@dataclass(frozen=True, slots=True)
class Adopt:
    """Take up the open attempt: an earlier process left it, and its backend may have it running still."""

    attempt: AttemptStatus


@dataclass(frozen=True, slots=True)
class AwaitEarlierLeader:
    """Leave the open attempt as it is for so many seconds: an earlier leader may have it running still."""

    seconds: float


@dataclass(frozen=True, slots=True)
class Begin:
    """Ask policy and queue, and start attempt `number`."""

    number: int


@dataclass(frozen=True, slots=True)
class Finish:
    """Write the one final status."""

    phase: Phase
    reason: str
    category: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class RetryAt:
    """Write that the attempt failed and when the next one is due."""

    when: datetime.datetime
    message: str


Step = Idle | Expire | Acknowledge | Stop | Collect | Adopt | AwaitEarlierLeader | Begin | Finish


def deadline(task: ExecutionTask) -> datetime.datetime | None:
    """When the whole task must be over: what its admission found, or else what it asks for."""
    return task.status.deadline or deadline_after(task, task.spec.deadline_seconds)


def deadline_after(task: ExecutionTask, seconds: int | None) -> datetime.datetime | None:
    """The time that is so many seconds after the task's creation."""
    created = task.metadata.creation_timestamp
    return None if seconds is None or created is None else created + datetime.timedelta(seconds=seconds)


def waits_since(task: ExecutionTask, now: datetime.datetime) -> datetime.datetime:
    """Since when the task could have started but for its turn: since it was made, or since its retry is due."""
    return task.status.next_retry_time or task.metadata.creation_timestamp or now


def next_step(
    task: ExecutionTask,
    *,
    running: bool,
    now: datetime.datetime,
    adoptable: bool = False,
    seconds_until_over: float = 0.0,
) -> Step:
    """The next step for `task`; `running` tells whether this process has an attempt of it going, `adoptable` whether
    its open attempt may be going all the same, and `seconds_until_over` when an earlier leader's work on that is over
    for sure (see `remit.kube.leadership`)."""
    status, spec = task.status, task.spec
    if task.metadata.deletion_timestamp is not None:
        return Stop() if running else Idle()
    if status.phase is not None and status.phase.final:
        return _after_the_end(task, now)
    if running:
        return Stop() if spec.cancel else Idle()
    if status.attempts and status.attempts[-1].finished_at is None:
        if seconds_until_over > 0:
            return AwaitEarlierLeader(seconds_until_over)
        return Adopt(status.attempts[-1]) if adoptable else Collect(status.attempts[-1])
    if spec.cancel:
        return cancelled()
    limit = deadline(task)
    if limit is not None and now >= limit:
        return deadline_exceeded(task)
    due = status.next_retry_time
    # A time beyond the longest possible delay was written by a clock that was ahead: that of another machine, or ours
    # before it was set back.
    longest = max(longest_retry_delay(spec.retry.backoff), LONGEST_RETRY_AFTER if spec.http or spec.file else 0.0)
    if due is not None and now < due <= now + datetime.timedelta(seconds=longest):
        return Idle(until=min(due, limit) if limit else due)
    return Begin(status.attempt_count + 1)


def _after_the_end(task: ExecutionTask, now: datetime.datetime) -> Idle | Expire | Acknowledge:
    ended, ttl = task.status.completion_time, task.spec.ttl_seconds_after_finished
    expires = None if ended is None or ttl is None else ended + datetime.timedelta(seconds=ttl)
    if expires is not None and now >= expires:
        return Expire()
    # Tools attribute the outcome to an earlier spec until status has the current generation.
    stale = 0 <= task.status.observed_generation < task.metadata.generation
    return Acknowledge() if stale else Idle(until=expires)


_FINAL_REASONS: Final = frozenset({ExitReason.START_FAILED, ExitReason.SANDBOX_UNAVAILABLE})
_PHASES: Mapping[str, Phase] = {ExitReason.TIMED_OUT: Phase.TIMED_OUT, ExitReason.DENIED: Phase.DENIED}


def after_attempt(task: ExecutionTask, outcome: Outcome, *, now: datetime.datetime, draw: float) -> Finish | RetryAt:
    """Decide what follows the end of an attempt that is not yet in `task.status`: the end of the task, or a retry."""
    spec, status, reason = task.spec, task.status, outcome.reason
    if reason == ExitReason.COMPLETED:
        return Finish(Phase.SUCCEEDED, str(reason), "", outcome.message)
    consequence = outcome.message.partition("; ")[2]
    if reason == ExitReason.CANCELLED:
        return cancelled(consequence)
    if spec.cancel:
        return cancelled()
    limit = deadline(task)
    if limit is not None and now >= limit:
        over = deadline_exceeded(task)
        if reason != ExitReason.TIMED_OUT or not consequence:
            return over
        return replace(over, message=f"{over.message}; {consequence}", retryable=outcome.retryable)
    hopeless = reason in _FINAL_REASONS or not outcome.retryable
    final = Finish(
        phase=_PHASES.get(reason, Phase.FAILED),
        reason=str(reason),
        category=outcome.category or reasons.category_of(reason),
        message=outcome.message,
        retryable=not hopeless,
    )
    if hopeless:
        return final
    interrupted = reason in INTERRUPTIONS
    if interrupted and (spec.retry.on_interruption == "Fail" or status.interruptions >= MAX_INTERRUPTIONS):
        return final
    retries = max(0, status.attempt_count - status.interruptions - 1)
    if not interrupted and retries >= spec.retry.max_retries:
        return final
    wait = retry_delay(spec.retry.backoff, status.interruptions if interrupted else retries, draw)
    wait = max(wait, outcome.retry_after_seconds)
    when = now + datetime.timedelta(seconds=wait)
    if limit is not None and when >= limit:
        return deadline_exceeded(task, f"{outcome.message}; the deadline leaves no time for another attempt")
    return RetryAt(when, f"{outcome.message}; next attempt in {wait:.1f} s")


def retry_delay(backoff: Backoff, retries: int, draw: float) -> float:
    """Seconds to wait before retry number `retries` (counted from 0).

    `draw` is a number from 0 to 1; it picks the place within ±`jitter` of the wait, so that 0.5 is the wait itself.
    """
    # Limits the exponent, which could overflow; `maxSeconds` is reached long before.
    growth = backoff.factor ** min(retries, 64)
    wait = min(backoff.initial_seconds * growth, backoff.max_seconds)
    return wait * (1 + backoff.jitter * (2 * draw - 1))


def longest_retry_delay(backoff: Backoff) -> float:
    """Seconds: no retry waits longer."""
    return backoff.max_seconds * (1 + backoff.jitter)


def cancelled(consequence: str = "") -> Finish:
    """Returns the end of a cancelled task. `consequence` says what happened to an attempt in progress: it is dead, or
    may have taken effect."""
    message = "cancelled as spec.cancel asked" + (f"; {consequence}" if consequence else "")
    return Finish(Phase.CANCELLED, "Cancelled", "Cancelled", message)


def deadline_exceeded(task: ExecutionTask, message: str = "") -> Finish:
    return Finish(
        Phase.TIMED_OUT,
        "DeadlineExceeded",
        "Deadline",
        message or f"not done by its deadline, {_seconds_allowed(task):g} s after its creation",
        retryable=True,
    )


def _seconds_allowed(task: ExecutionTask) -> float:
    limit, created = deadline(task), task.metadata.creation_timestamp
    return (limit - created).total_seconds() if limit and created else 0.0
