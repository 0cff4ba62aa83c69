"""How a task stands, what today's policies say of it, and what they lack."""

from __future__ import annotations

import asyncio
import dataclasses
import json
from typing import Any

from remit import reasons
from remit.describe import observedruns, policyyaml
from remit.describe.connection import Connection
from remit.describe.selection import phase_of, unusual
from remit.errors import InvalidInput
from remit.kube.client import TASKS, Object
from remit.policy.deciding import Decision, decide
from remit.policy.suggestion import Options, Suggestion, suggest
from remit.telemetry.trail import trail_of


@dataclasses.dataclass(frozen=True)
class Explained:
    """All that is known of a task. Its secrets are redacted."""

    task: Object
    decision: Decision
    objection: str
    """Why it may not connect where it wanted to, although it may run."""
    suggestion: Suggestion | None
    """None where policies allow it, or where no policy of its namespace could."""
    change: str
    """What is suggested, as a difference to the policies of today."""

    @property
    def state(self) -> dict[str, str]:
        """How it stands: `phase`, `reason`, `category`, `message`, `remedy` and `unusual`, as far as there are any."""
        status = self.task.get("status") or {}
        error = status.get("error") or {}
        conditions = (each["reason"] for each in status.get("conditions") or [] if each["type"] == "Finished")
        reason = str(error.get("reason") or next(conditions, ""))
        found = reasons.find(reason)
        told = {
            "phase": phase_of(self.task),
            "reason": reason,
            "category": str(error.get("category") or ""),
            "message": str(status.get("message") or ""),
            "remedy": found.remedy.replace("`", "'") if found else "",
            "unusual": unusual(self.task),
        }
        return {key: text for key, text in told.items() if text}

    @property
    def document(self) -> dict[str, Any]:
        metadata, decision = self.task["metadata"], self.decision
        verdict = {
            "allowed": decision.allowed and not self.objection,
            "reason": str(decision.reason),
            "message": self.objection or decision.message,
            "policy": decision.policy,
            "rule": decision.rule,
        }
        lacking = self.suggestion
        return {
            "namespace": metadata["namespace"],
            "task": metadata["name"],
            "status": self.state,
            "decision": verdict,
            "suggestion": json.loads(policyyaml.as_json(lacking)) if lacking and lacking.policies else None,
            "stillDenied": policyyaml.told(lacking.left_out) if lacking else [],
        }


async def explain(
    connection: Connection, name: str, operator_namespace: str, reached: observedruns.Reached | None = None
) -> Explained:
    """Explain the decision about the task of that name in the connection's namespace. `reached` is where its
    namespace's tasks connected to; without it, that is read of the connection's own trail. Raises `RemitError`, and for
    a task that is not there, too."""
    task = await connection.find(TASKS, name)
    today = await observedruns.policies_of(connection, operator_namespace)
    if reached is None and (trail := trail_of(connection.own_state_dirs)):
        reached = await asyncio.to_thread(observedruns.reached_by, trail, connection.namespace)
    seen = await observedruns.task_of(connection, task, reached)
    if not seen.runs:
        why = "; ".join(each.why for each in seen.unclear)
        raise InvalidInput(f"what policy says of task {name} cannot be told: {why}")
    (run,) = seen.runs
    decision = decide(run.request, today.policies, today.ceilings)
    objection = run.mask(decision.objection(run.destinations) or "") if decision.allowed else ""
    suggestion = None
    if not decision.allowed or objection:
        found = suggest(seen.runs, connection.namespace, today.policies, today.ceilings, Options())
        suggestion = dataclasses.replace(found, left_out=(*seen.unclear, *found.left_out))
    masked = dataclasses.replace(
        decision,
        message=run.mask(decision.message),
        audited=tuple(dataclasses.replace(each, message=run.mask(each.message)) for each in decision.audited),
    )
    change = policyyaml.difference(suggestion, today.specs) if suggestion else ""
    return Explained(task, masked, objection, suggestion, change)
