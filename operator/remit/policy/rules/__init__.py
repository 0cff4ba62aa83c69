"""What a policy says of each kind of operation: one module a kind, all of the same shape.

`judge` gives the name of the rule that allows the request, or the denial with what would have been needed. `describe`
says for messages what is asked. `unacceptable` says why a request is refused whatever policies say. All are pure; a
module looks at `request.command` or `request.subject` only, and what is common to all operations (backend, network,
environment, limits) is asked elsewhere.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from remit.api.operationnames import Operation
from remit.policy.compile import CompiledPolicy
from remit.policy.request import PolicyRequest
from remit.policy.rules import commands, containers, databases, files, http, processes, scripts
from remit.policy.verdict import Denial


@dataclass(frozen=True)
class OperationRules:
    """How one kind of operation is judged."""

    judge: Callable[[CompiledPolicy, PolicyRequest], str | Denial]
    describe: Callable[[PolicyRequest], str]
    unacceptable: Callable[[PolicyRequest], str | None] = lambda request: None


RULES: Mapping[Operation, OperationRules] = {
    "command": OperationRules(commands.judge, commands.describe),
    "container": OperationRules(containers.judge, containers.describe, containers.unacceptable),
    "file": OperationRules(files.judge, files.describe, files.unacceptable),
    "http": OperationRules(http.judge, http.describe, http.unacceptable),
    "postgres": OperationRules(databases.judge_postgres, databases.describe),
    "process": OperationRules(processes.judge, processes.describe),
    "redis": OperationRules(databases.judge_redis, databases.describe),
    "script": OperationRules(scripts.judge, scripts.describe),
}


def describe(request: PolicyRequest) -> str:
    """Describe the request, for messages."""
    rules = RULES.get(request.operation)
    return rules.describe(request) if rules else f"the operation {request.operation}"


def unacceptable(request: PolicyRequest) -> str | None:
    """Why the request is refused whatever policies say; None if it is not."""
    rules = RULES.get(request.operation)
    return rules.unacceptable(request) if rules else None
