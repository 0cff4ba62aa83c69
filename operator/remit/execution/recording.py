"""What the audit trail says of a task: how it was decided, and how each attempt ended. Pure."""

from __future__ import annotations

import os
from typing import Any, Final

from remit.api import ExecutionTask
from remit.execution.admission import Admitted, Refused
from remit.execution.attemptresult import AttemptResult
from remit.policy import Command, describe, request_for
from remit.telemetry import AuditEvent

NODE: Final = os.environ.get("NODE_NAME") or os.uname().nodename
"""Where this process decides and runs."""


def decision(task: ExecutionTask, who: str, verdict: Admitted | Refused, attempt: str = "") -> AuditEvent:
    """`who` asked; `attempt` is the id of what was let in."""
    status, command = verdict.status, verdict.command
    refused = verdict.finish if isinstance(verdict, Refused) else None
    return AuditEvent(
        kind="decision",
        **_about(task, who, attempt),
        what=_what(task, command),
        argv=command.argv if command else (),
        executable=command.program if command else "",
        resolved=(command.resolved or "") if command else "",
        policy=status.name if status else "",
        rule=status.rule if status else "",
        verdict="Denied" if refused else "Allowed",
        reason=refused.reason if refused else "",
        message=refused.message if refused else "",
        output="raw" if task.spec.output.raw else "",
    )


def execution(task: ExecutionTask, who: str, attempt: str, result: AttemptResult) -> AuditEvent:
    """How the attempt with this id ended."""
    return AuditEvent(
        kind="execution",
        **_about(task, who, attempt),
        verdict=result.reason,
        message=result.message,
        exit_code=result.exit_code,
        exceeded=result.exceeded,
        usage=result.usage.model_dump(by_alias=True) if result.usage else {},
        network=result.destinations,
        output_digest=result.output_digest,
        layers=result.sandbox.layers if result.sandbox else (),
    )


def _what(task: ExecutionTask, command: Command | None) -> str:
    """A command's argument list says it by itself."""
    return "" if task.spec.operation == "command" else describe(request_for(task, command))


def _about(task: ExecutionTask, who: str, attempt: str) -> dict[str, Any]:
    metadata = task.metadata
    return {
        "namespace": metadata.namespace,
        "task": metadata.name,
        "uid": metadata.uid,
        "who": who,
        "attempt": attempt,
        "operation": task.spec.operation,
        "backend": task.spec.backend,
        "node": NODE,
    }
