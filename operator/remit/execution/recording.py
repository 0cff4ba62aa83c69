"""What the audit trail says of a task: how it was decided, and how each attempt ended. Pure."""

from __future__ import annotations

import os
from typing import Any, Final

from remit.api import ExecutionTask
from remit.backends import Outcome
from remit.execution.admission import Admitted, Refused
from remit.execution.attemptstatus import destinations, usage_status
from remit.policy import Command, describe, request_for
from remit.telemetry import AuditEvent

NODE: Final = os.environ.get("NODE_NAME") or os.uname().nodename
"""Where this process decides and runs."""


def decision(task: ExecutionTask, who: str, verdict: Admitted | Refused, attempt: str = "") -> AuditEvent:
    """`who` asked; `attempt` is the id of what was let in."""
    status, command = verdict.status, verdict.command
    refused = verdict.finish if isinstance(verdict, Refused) else None
    withheld = isinstance(verdict, Refused) and verdict.withheld
    return AuditEvent(
        kind="decision",
        **_about(task, who, attempt),
        what="" if withheld else _what(task, command),
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


def execution(task: ExecutionTask, who: str, attempt: str, outcome: Outcome) -> AuditEvent:
    """How the attempt with this id ended."""
    usage = usage_status(outcome)
    return AuditEvent(
        kind="execution",
        **_about(task, who, attempt),
        verdict=str(outcome.reason),
        message=outcome.message,
        exit_code=outcome.exit_code,
        exceeded=[str(limit) for limit in outcome.exceeded],
        usage=usage.model_dump(by_alias=True) if usage else {},
        network=destinations(outcome),
        output_digest=outcome.output_digest,
        layers=[str(layer) for layer in outcome.layers],
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
