"""The interface of operations that Remit executes itself, such as file copies, HTTP requests and SQL statements.

Commands and scripts are not among them. A backend runs those in a sandbox.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Protocol, runtime_checkable

from remit.api.operations import Subject
from remit.api.quantity import parse_bytes
from remit.backends.base import AttemptRequest, Handle, OutputSink
from remit.backends.breaker import Breaker
from remit.backends.failure import OperationFailed
from remit.backends.outcome import INTERRUPTIONS, ExitReason, Outcome
from remit.errors import BackendError, PolicyDenied, RemitError
from remit.policy.grant import Grant
from remit.policy.limits import Limits

OVERDUE: Final = "its time is over"
MOST_HELD: Final = 64 << 20
"""The most bytes of one answer that an operation holds in memory."""


@dataclass(slots=True)
class Effect:
    """Records whether an operation may have taken effect, because a failure after that must not be retried.

    An executor calls `begin` right before a step that cannot be undone, and `settle` once it knows the outcome of that
    step, after which a failure may be retried again. A failure in between is final: see `remit.execution.operations`.
    """

    in_doubt: str = ""
    """What may have taken effect, in words for the user. Empty while a failure may be retried."""

    def begin(self, in_doubt: str) -> None:
        self.in_doubt = in_doubt

    def settle(self) -> None:
        self.in_doubt = ""


@dataclass(frozen=True, slots=True)
class OperationRequest:
    """One operation to execute once.

    `values` holds the referenced values by the path of the reference in the operation, such as `connection`,
    `headers[0].valueFrom` or `contentFrom.secretKeyRef`. It lacks optional references that do not exist. `grant` also
    judges what only becomes known during the execution, such as a redirect.
    """

    id: str
    namespace: str
    task: str
    grant: Grant
    timeout_seconds: float
    limits: Limits = field(default_factory=Limits)
    values: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    run: AttemptRequest | None = field(default=None, repr=False)
    """The command and its confinement, for an operation that starts a program."""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """Texts to redact from all output that is kept."""
    effect: Effect = field(default_factory=Effect)

    @property
    def subject(self) -> Subject:
        """The operation as policy judged it."""
        subject = self.grant.request.subject
        assert subject is not None  # noqa: S101  # every task has one
        return subject


def held(wanted: str | int, field: str, instead: str) -> int:
    """The number of bytes that `field` asks to hold in memory. Raises `OperationFailed` if it exceeds `MOST_HELD`."""
    size = parse_bytes(wanted)
    if size > MOST_HELD:
        message = f"{field}: {wanted} is more than {MOST_HELD >> 20}Mi, the most that is held in memory; {instead}"
        raise OperationFailed("Invalid", message, retryable=False)
    return size


def failed(error: RemitError) -> Outcome:
    """The outcome of an operation that raised `error`."""
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
    """The outcome of a failure after which the operation may have taken effect. A retry could repeat the effect."""
    if not outcome.retryable:
        return outcome
    return replace(outcome, message=f"{outcome.message}; {in_doubt}", retryable=False)


def doubted(outcome: Outcome, in_doubt: str) -> Outcome:
    """Like `not_retried`, for operations that outlive the operator: `onInterruption` decides about interruptions."""
    if outcome.reason in INTERRUPTIONS:
        return replace(outcome, message=f"{outcome.message}; {in_doubt}")
    return not_retried(outcome, in_doubt)


class OperationExecutor(Protocol):
    """Executes one kind of operation."""

    @property
    def breaker(self) -> Breaker | None:
        """The circuit breaker for the servers that it calls; None if it calls none."""
        ...

    async def execute(self, request: OperationRequest, output: OutputSink) -> str:
        """Execute the operation. Write its results to `output` as `stdout`. Return one sentence about what was done.

        The call is cancelled when the operation's time is over (with the message `OVERDUE`) or when the user cancels.
        It then undoes what it can, and returns only when nothing of the operation goes on. It calls
        `request.effect.begin` before each step that a retry would repeat.

        Raises:
            OperationFailed: the operation did not succeed.
            PolicyDenied: policy refuses something that became known only now.
            RemitError: another failure that users can understand; after a cancellation, what the call was waiting for.
        """
        ...

    async def close(self) -> None:
        """Close all connections. Called once, when the operator stops."""
        ...


@runtime_checkable
class AdoptingExecutor(OperationExecutor, Protocol):
    """An executor of operations that outlive the operator. A later operator finds them by the attempt's id.

    Cancelling `run` or `adopt` leaves the operation running. Both enforce the operation's timeout themselves, and call
    `request.effect` as `execute` does.
    """

    def outlives(self, subject: Subject) -> bool:
        """Whether the operation `subject` outlives the operator. If not, `execute` is called for it."""
        ...

    async def run(
        self,
        request: OperationRequest,
        output: OutputSink,
        *,
        cancel: asyncio.Event,
        on_started: Callable[[Handle], None],
    ) -> Outcome:
        """Run the operation to its end, and return once nothing of it is alive. Calls `on_started` before it starts.

        Raises as `OperationExecutor.execute` does.
        """
        ...

    async def adopt(
        self,
        request: OperationRequest,
        output: OutputSink,
        *,
        cancel: asyncio.Event,
        on_found: Callable[[Handle], None],
        recorded: Handle | None = None,
    ) -> Outcome | None:
        """Follow an operation that an earlier operator started: all of its output, and its end. Its timeout still
        counts from its start. `recorded` is what `on_started` was called with, if known.

        Returns None if the operation is not found, without having called `on_found`. Raises as `run` does.
        """
        ...

    async def recover(self, handle: Handle) -> bool:
        """End the operation. True if anything of it was still alive. Raises `OperationFailed`."""
        ...
