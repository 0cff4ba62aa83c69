"""The trace of a task, from its creation to its end: made of its status once that has the end, so that no span is kept
open and an operator that was restarted meanwhile makes the same one. Pure.

It holds names, codes and numbers. Arguments, output, variables and messages, which may quote them, are not in it."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from itertools import pairwise

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import AttemptStatus, ExecutionTaskStatus
from remit.api.phases import Phase
from remit.telemetry.tracecontext import TRACEPARENT, Span, TraceContext, derived_id, parse_traceparent, trace_id_of

_Attributes = dict[str, str | int | float | bool]


def spans_of(task: ExecutionTask, status: ExecutionTaskStatus) -> list[Span]:
    """The spans of a task that ended, the one of the whole task first. Empty without an end, and for a schedule, whose
    runs are tasks of their own."""
    metadata, created, ended = task.metadata, task.metadata.creation_timestamp, status.completion_time
    if created is None or ended is None or not metadata.uid or task.spec.schedule is not None:
        return []
    parent = parse_traceparent(metadata.annotations.get(TRACEPARENT))
    trace_id, sampled = (parent.trace_id, parent.sampled) if parent else (trace_id_of(metadata.uid), True)
    root = TraceContext(trace_id, derived_id(8, metadata.uid, "task"), sampled)
    attributes: _Attributes = {
        "k8s.namespace.name": metadata.namespace,
        "remit.task.name": metadata.name,
        "remit.task.uid": metadata.uid,
        "remit.task.phase": str(status.phase),
        "remit.operation": task.spec.operation,
        "remit.attempts": status.attempt_count,
    }
    if status.backend:
        attributes["remit.backend"] = status.backend
    if status.policy is not None:
        attributes["remit.policy.name"] = status.policy.name
        attributes["remit.policy.decision"] = status.policy.decision
    if status.exit_code is not None:
        attributes["process.exit.code"] = status.exit_code
    error = "" if status.phase is Phase.SUCCEEDED else _code(status)
    if error:
        attributes["error.type"] = error
    if status.error is not None:
        attributes["remit.error.category"] = status.error.category
    whole = Span(f"task {task.spec.operation}", root, parent, created, max(created, ended), attributes, error)
    return [whole, *_parts(metadata.uid, root, status, created, whole.end)]


def _code(status: ExecutionTaskStatus) -> str:
    return (status.error.reason if status.error else "") or str(status.phase)


def _parts(
    uid: str, root: TraceContext, status: ExecutionTaskStatus, created: datetime.datetime, ended: datetime.datetime
) -> Iterator[Span]:
    def part(name: str, start: datetime.datetime, end: datetime.datetime, number: int = 0) -> Span:
        return Span(name, root.child(uid, name, number), root, start, max(start, end))

    started = min(max(created, status.start_time), ended) if status.start_time else ended
    queued = status.queued_at
    if queued is not None and created <= queued < started:
        yield part("pending", created, queued)
        yield part("queue", queued, started)
    else:
        yield part("pending", created, started)
    for attempt in status.attempts:
        yield _attempt(uid, root, attempt, ended)
    for before, after in pairwise(status.attempts):
        if before.number + 1 == after.number and before.finished_at is not None:
            yield part("backoff", before.finished_at, after.started_at, after.number)


def _attempt(uid: str, root: TraceContext, attempt: AttemptStatus, ended: datetime.datetime) -> Span:
    attributes: _Attributes = {
        "remit.attempt.number": attempt.number,
        "remit.attempt.id": attempt.id,
        "remit.attempt.reason": attempt.reason,
        "remit.backend": attempt.backend,
    }
    if attempt.exit_code is not None:
        attributes["process.exit.code"] = attempt.exit_code
    if (usage := attempt.usage) is not None:
        attributes["remit.attempt.cpu_seconds"] = usage.cpu_seconds
        attributes["remit.attempt.memory_peak_bytes"] = usage.max_memory_bytes
    error = "" if attempt.reason == "Completed" else attempt.reason
    if error:
        attributes["error.type"] = error
    context = root.child(uid, "attempt", attempt.number)
    end = max(attempt.started_at, attempt.finished_at or ended)
    return Span("attempt", context, root, attempt.started_at, end, attributes, error)
