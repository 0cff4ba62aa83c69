"""Executions of an agent, each a task with what a manifest cannot say, and the store that has the driver work on them.

There is no API server: nothing to refer to, nobody to tell of Events and nothing to count for metrics.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, ExecutionTaskStatus
from remit.api.result import ResultArtifact
from remit.backends.base import AttemptRequest, Stream
from remit.backends.outcome import Outcome
from remit.execution.admission import Admitted, PolicySet, Refused
from remit.execution.anomalies import Finding
from remit.execution.lifecycle import Finish
from remit.execution.output import Listener
from remit.execution.resolved import Resolved
from remit.execution.runner import Attempt
from remit.execution.taskstore import StatusConflict, StoredTask
from remit.policy.compile import CompiledPolicy


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
    artifacts: Mapping[str, ResultArtifact] = field(default_factory=dict)
    """What it left, once it has ended."""
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


@dataclass(frozen=True, slots=True)
class ExecutionStore:
    """The `source` of its tasks is the `Execution`. Only a cancel changes a task besides the driver."""

    who: str
    output_cap: int
    """Bytes of each stream that are in a result."""

    def requester(self, stored: StoredTask) -> str:
        """See `TaskStore`, as for all that follow."""
        return self.who

    async def resolve(self, stored: StoredTask) -> Resolved:
        execution: Execution = stored.source
        return execution.resolved

    async def secrets_of(self, stored: StoredTask) -> Collection[str]:
        execution: Execution = stored.source
        return execution.resolved.secrets

    def prepare(self, stored: StoredTask, attempt: Attempt) -> Attempt:
        execution: Execution = stored.source
        request = attempt.request
        if execution.timeout is not None:
            request = replace(request, timeout_seconds=min(request.timeout_seconds, execution.timeout))
        if execution.stdin is not None and isinstance(request, AttemptRequest):
            request = replace(request, command=replace(request.command, stdin=execution.stdin))
        return replace(attempt, request=request, tail_bytes=self.output_cap, listener=execution.hear)

    async def write_status(self, stored: StoredTask, status: ExecutionTaskStatus) -> None:
        execution: Execution = stored.source
        if execution.task.spec is not stored.task.spec:
            raise StatusConflict
        execution.task = execution.task.model_copy(update={"status": status})

    async def delete(self, stored: StoredTask) -> None:
        """An execution is forgotten as soon as it has ended."""

    def record_event(self, stored: StoredTask, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Nobody watches."""

    def on_started(self, stored: StoredTask, number: int, admitted: Admitted) -> None:
        """Nothing counts it."""

    def on_attempt_ended(self, stored: StoredTask, attempt: AttemptStatus, outcome: Outcome, *, retried: bool) -> None:
        """Nothing counts it."""

    def on_denied(self, stored: StoredTask, refused: Refused) -> None:
        execution: Execution = stored.source
        execution.refused = refused

    def find_unusual(self, stored: StoredTask, status: ExecutionTaskStatus) -> Sequence[Finding]:
        return ()  # executions of an agent have no earlier runs to compare with

    def on_finished(
        self, stored: StoredTask, finish: Finish, status: ExecutionTaskStatus, unusual: Sequence[Finding] = ()
    ) -> None:
        execution: Execution = stored.source
        # The execution was cancelled meanwhile.
        if execution.refused is not None and execution.refused.finish != finish:
            execution.refused = None


class OwnPolicies:
    """The policies that the agent was given. They do not change."""

    def __init__(self, policies: Sequence[CompiledPolicy]) -> None:
        by_namespace: dict[str, list[CompiledPolicy]] = {}
        for policy in policies:
            by_namespace.setdefault(policy.namespace, []).append(policy)
        self._set = PolicySet(by_namespace, ceiling_namespace="")

    def current(self) -> PolicySet:
        return self._set

    async def fresh(self) -> PolicySet:
        return self._set
