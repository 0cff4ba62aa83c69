"""The interface by which the task driver reads and writes tasks: on an API server, or in an agent's memory."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, ExecutionTaskStatus
from remit.backends.outcome import Outcome
from remit.execution.admission import Admitted, PolicySet, Refused
from remit.execution.anomalies import Finding
from remit.execution.lifecycle import Finish
from remit.execution.resolved import Resolved
from remit.execution.runner import Attempt


class StatusConflict(Exception):
    """Somebody else changed the task since it was read. The store has its newest form: look again."""


@dataclass(frozen=True, slots=True)
class StoredTask:
    """A task as it was read."""

    task: ExecutionTask
    source: Any = field(repr=False)
    """The store's own form of it, which a write is compared with."""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)
    """What its variables come to, as far as that is known before what it refers to is read."""


class PolicySource(Protocol):
    """The policies in force."""

    def current(self) -> PolicySet:
        """The policies as they are known here."""
        ...

    async def fresh(self) -> PolicySet:
        """The policies as they are now; the same object as `current` if nothing has changed."""
        ...


class TaskStore(Protocol):
    """Keeps tasks and their status, and passes on what becomes of them."""

    def requester(self, stored: StoredTask) -> str:
        """Who asked for the task, for the audit trail."""
        ...

    async def resolve(self, stored: StoredTask) -> Resolved:
        """Resolve what the task refers to. Raises `MissingReference`."""
        ...

    async def secrets_of(self, stored: StoredTask) -> Collection[str]:
        """The values of its Secrets, as far as they are there: to redact what is told of a task that does not run.
        Raises `MissingReference`."""
        ...

    def prepare(self, stored: StoredTask, attempt: Attempt) -> Attempt:
        """`attempt` with what a manifest cannot say and whoever asked for the task did."""
        ...

    async def write_status(self, stored: StoredTask, status: ExecutionTaskStatus) -> None:
        """Raises `StatusConflict` where `stored` is not the newest."""
        ...

    async def delete(self, stored: StoredTask) -> None:
        """Delete the task, whose time to live is over."""
        ...

    def record_event(self, stored: StoredTask, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Record an Event about the task. A lost Event delays nothing."""
        ...

    def on_started(self, stored: StoredTask, number: int, admitted: Admitted) -> None:
        """Attempt `number` runs."""
        ...

    def on_attempt_ended(self, stored: StoredTask, attempt: AttemptStatus, outcome: Outcome, *, retried: bool) -> None:
        """Status tells how `attempt` ended, which is as it was before that. `retried`: another attempt follows."""
        ...

    def on_denied(self, stored: StoredTask, refused: Refused) -> None:
        """Called when a denial is on the audit trail, before it is in status."""
        ...

    def find_unusual(self, stored: StoredTask, status: ExecutionTaskStatus) -> Sequence[Finding]:
        """Find what is unusual about a task that is about to end with `status`, compared with earlier ones like it."""
        ...

    def on_finished(
        self, stored: StoredTask, finish: Finish, status: ExecutionTaskStatus, unusual: Sequence[Finding] = ()
    ) -> None:
        """Called when the end of the task and `unusual` were written to status."""
        ...
