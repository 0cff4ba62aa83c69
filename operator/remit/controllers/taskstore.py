"""Tasks on an API server, for their driver: references, status, Events and metrics."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import structlog

from remit.api.executiontaskstatus import AttemptStatus, ExecutionTaskStatus
from remit.backends.outcome import Outcome
from remit.controllers import taskmetrics, tasktraces
from remit.controllers.policies import Policies
from remit.controllers.runhistory import RunHistory
from remit.controllers.values import resolve, secrets_of
from remit.execution.admission import Admitted, Refused
from remit.execution.anomalies import Finding
from remit.execution.lifecycle import Finish
from remit.execution.resolved import Resolved
from remit.execution.runner import Attempt
from remit.execution.taskstore import StatusConflict, StoredTask
from remit.kube.client import TASKS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.status import Outdated, StatusWriter
from remit.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from remit.telemetry.otlptraces import Tracer

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True)
class ApiTaskStore:
    """The `source` of its tasks is the object as the server has it."""

    kube: Kube
    writer: StatusWriter
    policies: Policies
    metrics: Metrics
    events: Recorder
    requested_by: Callable[[Object], str]
    now: Callable[[], datetime.datetime]
    tracer: Tracer | None = None
    history: RunHistory | None = None
    """None where runs are not compared with each other."""

    def requester(self, stored: StoredTask) -> str:
        """See `TaskStore`, as for all that follow."""
        return self.requested_by(stored.source)

    async def resolve(self, stored: StoredTask) -> Resolved:
        return await resolve(self.kube, stored.task.metadata.namespace, stored.task.spec)

    async def secrets_of(self, stored: StoredTask) -> Collection[str]:
        return await secrets_of(self.kube, stored.task.metadata.namespace, stored.task.spec)

    def prepare(self, stored: StoredTask, attempt: Attempt) -> Attempt:
        return attempt

    async def write_status(self, stored: StoredTask, status: ExecutionTaskStatus) -> None:
        try:
            await self.writer.write(stored.source, status)
        except Outdated as error:
            raise StatusConflict from error

    async def delete(self, stored: StoredTask) -> None:
        metadata = stored.task.metadata
        await self.kube.discard(TASKS, metadata.namespace, metadata.name, uid=metadata.uid)
        self.metrics.api_writes.labels("delete", "ExecutionTask").inc()

    def record_event(self, stored: StoredTask, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.events.record(stored.source, type_, reason, message)

    def on_started(self, stored: StoredTask, number: int, admitted: Admitted) -> None:
        metadata, decided = stored.task.metadata, admitted.status
        self.policies.count(metadata.namespace, metadata.name, decided)
        if number == 1 and metadata.creation_timestamp is not None:
            self.metrics.task_queue.observe((self.now() - metadata.creation_timestamp).total_seconds())
        self._decided(stored, "Audited" if decided.audited else "Allowed")

    def on_attempt_ended(self, stored: StoredTask, attempt: AttemptStatus, outcome: Outcome, *, retried: bool) -> None:
        taskmetrics.count_attempt(self.metrics, stored.task.spec.operation, attempt, outcome, retried=retried)

    def on_denied(self, stored: StoredTask, refused: Refused) -> None:
        if refused.by_policy and refused.status is not None:
            metadata = stored.task.metadata
            self.policies.count(metadata.namespace, metadata.name, refused.status, refused.finish.message)
            self._decided(stored, "Denied")

    def find_unusual(self, stored: StoredTask, status: ExecutionTaskStatus) -> Sequence[Finding]:
        return () if self.history is None else self.history.find_unusual(stored.source, status)

    def on_finished(
        self, stored: StoredTask, finish: Finish, status: ExecutionTaskStatus, unusual: Sequence[Finding] = ()
    ) -> None:
        if self.history is not None:
            self.history.learn(stored.source, status)
        for finding in unusual:
            self.metrics.task_unusual.labels(finding.measure.quantity).inc()
        words = self.metrics.words
        labels = stored.task.spec.operation, words(status.backend)
        category = finish.category and words(finish.category)
        traced = self.tracer.export(tasktraces.spans_of(stored.task, status)) if self.tracer else None
        exemplar = {"trace_id": f"{traced.trace_id:032x}", "span_id": f"{traced.span_id:016x}"} if traced else None
        self.metrics.task_finished.labels(*labels, finish.phase, words(finish.reason), category).inc()
        if status.start_time is not None and status.completion_time is not None:
            seconds = (status.completion_time - status.start_time).total_seconds()
            self.metrics.task_duration.labels(*labels).observe(seconds, exemplar)
        log.info("task finished", phase=str(finish.phase), reason=finish.reason)

    def _decided(self, stored: StoredTask, decision: str) -> None:
        self.metrics.policy_decisions.labels(decision, "ExecutionTask", stored.task.spec.operation).inc()
