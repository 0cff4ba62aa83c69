"""Turns the end of a task into what the caller gets: a result, or an exception. Pure."""

from __future__ import annotations

import dataclasses

from remit.agent.executions import Execution
from remit.api.executiontaskstatus import OutputStatus
from remit.api.phases import Phase
from remit.api.result import ExecutionResult
from remit.errors import (
    BackendError,
    ExecutionCancelled,
    ExecutionError,
    PolicyDenied,
    ResourceError,
    SandboxUnavailable,
    TimeoutError,
)
from remit.execution.admission import Refused

_EXCEEDED = frozenset({"LimitExceeded", "CeilingExceeded", "InsufficientMemory"})


def result_of(execution: Execution) -> ExecutionResult:
    """All that is known of it."""
    task = execution.task
    status = task.status
    output = status.output
    started, ended = status.start_time, status.completion_time
    last = status.attempts[-1] if status.attempts else None
    condition = next((found for found in status.conditions if found.type == "Succeeded"), None)
    stdout, stderr = (output.stdout_tail, output.stderr_tail) if output else ("", "")
    return ExecutionResult(
        task_id=task.metadata.uid,
        exit_code=status.exit_code,
        stdout=stdout,
        stderr=stderr,
        stdout_bytes=output.stdout_bytes if output else 0,
        stderr_bytes=output.stderr_bytes if output else 0,
        truncated=output is not None and _cut(output),
        redactions=output.redactions if output else 0,
        duration=(ended - started).total_seconds() if started and ended else 0.0,
        attempts=status.attempt_count,
        reason=condition.reason if condition else "",
        message=status.message,
        usage=last.usage if last else None,
        layers=tuple(status.sandbox.layers) if status.sandbox else (),
        policy=status.policy.name if status.policy else "",
        rule=status.policy.rule if status.policy else "",
        output_ref=output.ref if output else "",
        artifacts=execution.artifacts,
        results={each.name: each.value for each in status.results},
        status=status,
    )


def concluded(execution: Execution) -> ExecutionResult:
    """The result of what came to one. Raises the `ExecutionError` that says why not, or what its listener did."""
    if execution.failure is not None:
        raise execution.failure
    result = result_of(execution)
    status, message = execution.task.status, result.message
    if execution.refused is not None:
        raise refusal(execution.refused, result)
    category = status.error.category if status.error else ""
    match status.phase:
        case Phase.TIMED_OUT:
            raise TimeoutError(message, reason=result.reason, result=result)
        case Phase.CANCELLED:
            raise ExecutionCancelled(message, reason=result.reason, result=result)
        case Phase.DENIED:
            raise PolicyDenied(message, reason=result.reason, result=result)
    if category == "Sandbox":
        raise SandboxUnavailable(message, reason=result.reason, result=result)
    if category == "Infrastructure":
        raise BackendError(message, reason=result.reason, result=result)
    if category in {"Invalid", "Artifacts"}:
        raise ExecutionError(message, reason=result.reason, result=result)
    return result


def refusal(refused: Refused, result: ExecutionResult | None = None) -> ExecutionError:
    """Why it may not run."""
    reason, message, decided = refused.finish.reason, refused.finish.message, refused.status
    if reason in _EXCEEDED:
        return ResourceError(message, reason=reason, result=result)
    if refused.by_policy and decided is not None:
        return PolicyDenied(message, policy=decided.name, rule=decided.rule, reason=reason, result=result)
    return ExecutionError(message, reason=reason, result=result)


def without_output(result: ExecutionResult) -> ExecutionResult:
    return dataclasses.replace(result, stdout="", stderr="")


def _cut(output: OutputStatus) -> bool:
    """Whether a tail lacks the beginning. Masks and mended characters only make text longer than its bytes."""
    pairs = (output.stdout_tail, output.stdout_bytes), (output.stderr_tail, output.stderr_bytes)
    return any(len(text.encode()) < size for text, size in pairs)
