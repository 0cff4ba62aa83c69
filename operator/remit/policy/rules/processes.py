"""Supervised processes: which actions; what is started is a command, and held to the rules of commands too."""

from __future__ import annotations

from remit.api.operations import ProcessOperation
from remit.policy import needs
from remit.policy.compile import CompiledPolicy
from remit.policy.request import PolicyRequest
from remit.policy.rules import commands
from remit.policy.verdict import Denial, Reason


def judge(policy: CompiledPolicy, request: PolicyRequest) -> str | Denial:
    """The rule that allows the action, and for a start the command; or why none does."""
    process, allowed = request.subject, policy.spec.processes.operations
    assert isinstance(process, ProcessOperation)  # noqa: S101  # by its operation
    if process.action not in allowed:
        return Denial(
            Reason.NOT_ALLOWED,
            f"policy {policy.key} does not allow to {process.action} processes; spec.processes.operations has"
            f" {', '.join(allowed) or 'none'}",
            policy.key,
            needs=needs.process(process.action),
        )
    return commands.judge(policy, request) if process.action == "start" else "processes.operations"


def describe(request: PolicyRequest) -> str:
    process = request.subject
    assert isinstance(process, ProcessOperation)  # noqa: S101  # by its operation
    what = f"{process.action} of process {process.name}" if process.name else f"{process.action} of processes"
    return f"{what}: {commands.describe(request)}" if process.action == "start" else what
