"""What operations that Remit performs itself have in common: a file copied, a request sent, rows read.

Commands and scripts are not among them: a backend runs those, behind the walls of the sandbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, runtime_checkable

from remit.api.operations import Subject
from remit.api.quantity import parse_bytes
from remit.backends import AttemptRequest, ExitReason, Handle, Outcome, OutputSink
from remit.backends.breaker import Breaker
from remit.backends.failure import OperationFailed
from remit.backends.outcome import INTERRUPTIONS
from remit.errors import BackendError, PolicyDenied, RemitError
from remit.policy import Grant, Limits

OVERDUE: Final = "its time is over"
MOST_HELD: Final = 64 << 20
"""Bytes of one answer that an operation holds in memory, however much a task would like."""


@dataclass(slots=True)
class Effect:
    """Whether an operation may have taken place, so that a failure from now on must not be retried.

    A performer calls `begin` right before the step that cannot be taken back, and `settle` where it knows the outcome
    of that step, so that a failure may be retried again. A failure of any kind in between, or after an operation that
    never settles, is final: see `remit.execution.performing`.
    """

    in_doubt: str = ""
    """What may have taken place, for the user; empty while a failure may be retried."""

    def begin(self, in_doubt: str) -> None:
        self.in_doubt = in_doubt

    def settle(self) -> None:
        self.in_doubt = ""


@dataclass(frozen=True, slots=True)
class Work:
    """One operation to perform once.

    `values` holds what it refers to, by the path of the reference in the operation: `connection`,
    `headers[0].valueFrom`, `contentFrom.secretKeyRef` … An optional reference that is not there is not in it.
    `grant` is asked again about whatever only shows while it is performed.
    """

    id: str
    namespace: str
    task: str
    grant: Grant
    timeout_seconds: float
    limits: Limits = field(default_factory=Limits)
    values: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    run: AttemptRequest | None = field(default=None, repr=False)
    """What it is to execute and how that is confined, for an operation that executes something."""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """What no kept output may show."""
    effect: Effect = field(default_factory=Effect)

    @property
    def subject(self) -> Subject:
        """The operation as policy has judged it."""
        subject = self.grant.request.subject
        assert subject is not None  # noqa: S101  # every task has one
        return subject


def held(wanted: str | int, field: str, instead: str) -> int:
    """The bytes that `field` asks to be held in memory. Raises `OperationFailed` for more than may be."""
    size = parse_bytes(wanted)
    if size > MOST_HELD:
        message = f"{field}: {wanted} is more than {MOST_HELD >> 20}Mi, the most that is held in memory; {instead}"
        raise OperationFailed("Invalid", message, retryable=False)
    return size


def failed(error: RemitError) -> Outcome:
    """How an operation ended that raised `error`."""
    if isinstance(error, OperationFailed):
        return Outcome(
            error.reason,
            str(error),
            category=error.category,
            retryable=error.retryable,
            retry_after_seconds=error.retry_after,
        )
    if isinstance(error, PolicyDenied):
        return Outcome(ExitReason.DENIED, str(error), category="Denied", retryable=False)
    reason = ExitReason.BACKEND_ERROR if isinstance(error, BackendError) else error.code
    return Outcome(reason, str(error), category="Infrastructure", retryable=error.retryable)


def not_retried(outcome: Outcome, in_doubt: str) -> Outcome:
    """A failure after what was asked for may have taken place: a retry could do it a second time."""
    if not outcome.retryable:
        return outcome
    return replace(outcome, message=f"{outcome.message}; {in_doubt}", retryable=False)


def doubted(outcome: Outcome, in_doubt: str) -> Outcome:
    """The same for work that outlives the operator. What follows an interruption, the task's `onInterruption` says."""
    if outcome.reason in INTERRUPTIONS:
        return replace(outcome, message=f"{outcome.message}; {in_doubt}")
    return not_retried(outcome, in_doubt)


class Performer(Protocol):
    """Performs one kind of operation."""

    @property
    def breaker(self) -> Breaker | None:
        """What keeps it from servers that fail again and again; None where it talks to none."""
        ...

    async def perform(self, work: Work, output: OutputSink) -> str:
        """Do it; what it found goes to `output` as `stdout`. Gives one sentence on what was done.

        It is cancelled when its time is over (then with the message `OVERDUE`) or the user cancels; it then leaves
        nothing half done that it can undo, and returns only when nothing of it goes on. It tells `work.effect` before
        it does what a retry would do a second time.

        Raises:
            OperationFailed: it did not succeed.
            PolicyDenied: what showed only now is not allowed.
            RemitError: anything else that users can understand; in place of a cancellation, what it was waiting for.
        """
        ...

    async def close(self) -> None:
        """Let go of connections; called once, when the operator stops."""
        ...


@runtime_checkable
class AdoptingPerformer(Performer, Protocol):
    """A performer of which some work outlives the operator, and is found again by the attempt's id.

    Its `run` and `adopt`, when they are cancelled themselves, leave what runs alone. They keep to the work's time
    themselves, and tell `work.effect` as `perform` does.
    """

    def outlives(self, subject: Subject) -> bool:
        """Whether work on `subject` does; other work is for `perform`."""
        ...

    async def run(
        self, work: Work, output: OutputSink, *, cancel: asyncio.Event, on_started: Callable[[Handle], None]
    ) -> Outcome:
        """Do it to its end; return only when nothing of it is alive. `on_started` is called before anything runs.

        Raises as `Performer.perform` does.
        """
        ...

    async def adopt(
        self,
        work: Work,
        output: OutputSink,
        *,
        cancel: asyncio.Event,
        on_found: Callable[[Handle], None],
        recorded: Handle | None = None,
    ) -> Outcome | None:
        """Take up what an earlier operator started: all of its output, and its end. The time that it has had counts.
        `recorded` is what `on_started` was called with, as far as it is known.

        None where nothing of it is there, and then `on_found` was not called. Raises as `run` does.
        """
        ...

    async def recover(self, handle: Handle) -> bool:
        """Leave nothing of it alive. True if something still was. Raises `OperationFailed`."""
        ...
