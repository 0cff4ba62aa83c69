"""`remit explain`: how a task stands, what policy says of it now, and what would have to be said to allow it."""

from __future__ import annotations

import dataclasses
import json
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit import threads
from remit.cli import options

if TYPE_CHECKING:
    from remit.cli.connect import Connection
    from remit.kube.client import Object
    from remit.policy import Decision
    from remit.policy.suggestion import Suggestion


class Form(StrEnum):
    TEXT = "text"
    JSON = "json"


def explain(
    name: options.TaskName,
    output: Annotated[Form, typer.Option("--output", "-o", metavar="FORM", help="text or json.")] = Form.TEXT,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
    operator_namespace: options.OperatorNamespace = "remit-system",
) -> None:
    """Say how a task stands and what to do about it, what today's policies say of it, and what they lack.

    What would have to be said is the smallest change to policies that allows it, as [bold]remit policy suggest[/] has
    it. Read it before you apply it.
    """
    found = threads.run(_explained(name, namespace, kubeconfig, context, state_dir, operator_namespace))
    if output is Form.JSON:
        from remit.cli import tables

        typer.echo(tables.dump(found.document, "json"))
    else:
        _show(found)


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
        from remit import reasons
        from remit.cli.selection import phase_of, unusual

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
        from remit.cli import policyyaml

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


async def _explained(
    name: str,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
    operator_namespace: str,
) -> Explained:
    from remit.cli.connect import connected

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        return await explained(connection, name, operator_namespace)


async def explained(connection: Connection, name: str, operator_namespace: str) -> Explained:
    """Raises `RemitError`, and for a task that is not there, too."""
    from remit.cli import policysuggest, policyyaml
    from remit.errors import InvalidInput
    from remit.kube.client import TASKS
    from remit.policy import decide
    from remit.policy.suggestion import Options, suggest

    task = await connection.find(TASKS, name)
    today = await policysuggest.policies_of(connection, operator_namespace)
    trail = policysuggest.trail_of(connection.own_state_dirs)
    reached = policysuggest.reached_by(trail, connection.namespace) if trail else None
    seen = await policysuggest.task_of(connection, task, reached)
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


def _show(explained: Explained) -> None:
    from remit.cli import policytest, policyyaml
    from remit.telemetry import escape

    metadata, state = explained.task["metadata"], explained.state
    typer.echo(escape(f"task {metadata['namespace']}/{metadata['name']}: {state['phase']}"))
    titles = {"message": "why", "remedy": "what to do"}
    for key in ("reason", "category", "message", "remedy", "unusual"):
        if key in state:
            typer.echo(f"  {titles.get(key, key) + ':':<11} {escape(state[key])}")
    typer.echo("\ntoday's policies say:")
    policytest.explain(explained.decision)
    if explained.objection:
        typer.echo(f"  network:  {escape(explained.objection)}")
    suggestion = explained.suggestion
    if suggestion is None:
        return
    if explained.change:
        typer.echo("\nto allow it, policies would have to say:")
        typer.echo(explained.change)
        typer.echo(f"\nremit policy suggest -n {metadata['namespace']} --task {metadata['name']} | kubectl apply -f -")
    for line in policyyaml.told(suggestion.left_out):
        typer.echo(f"\nno policy of its namespace can allow it: {line}")
