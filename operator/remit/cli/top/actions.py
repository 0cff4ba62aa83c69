"""The actions of `remit top`. Each gives a line that says what came of it, and raises `RemitError`."""

from __future__ import annotations

from dataclasses import replace
from typing import Any, Final, Literal, NamedTuple

from remit.api.deployment import Deployment
from remit.api.executiontask import ExecutionTask
from remit.cli.tasks import Again, request_cancel
from remit.cli.top.rows import ReleaseRow, Row, ScheduleRow, TaskRow
from remit.describe.connection import Connection
from remit.errors import RemitError
from remit.kube.client import DEPLOYMENTS, TASKS, Object
from remit.release.asking import ask

Verb = Literal["cancel", "promote", "abort", "rerun"]
_PATIENCE: Final = 30.0


class Question(NamedTuple):
    """A question that is asked before something is done."""

    verb: Verb
    row: Row
    text: str


def question(verb: Verb, row: Row | None) -> Question | str:
    """The question, or why there is nothing to ask. Pure."""
    if row is None:
        return "nothing is selected"
    if verb in {"cancel", "rerun"}:
        if isinstance(row, ScheduleRow):
            by_hand = (
                f"remit run --from-schedule {row.name} -n {row.namespace}"
                if verb == "rerun"
                else "spec.schedule.suspend"
            )
            return f"{row.key} is a schedule; use {by_hand}"
        if not isinstance(row, TaskRow):
            return f"{verb} is for tasks; {row.key} is none"
        if verb == "cancel" and row.over:
            return f"task {row.key} has already ended ({row.phase})"
        does = f"It is {row.phase}." if verb == "cancel" else "A copy of it is created; policy decides anew."
        return Question(verb, row, f"{verb.capitalize()} task {row.key}? {does}")
    if not isinstance(row, ReleaseRow):
        return f"{verb} is for releases; Tab shows them"
    if verb not in row.verbs:
        can = ", ".join(row.verbs) or "nothing"
        return f"there is nothing to {verb} on {row.key} ({row.phase}); what can be done: {can}"
    which = f" revision {row.revision}" if row.revision is not None else ""
    return Question(verb, row, f"{verb.capitalize()}{which} of {row.key}? This {row.verbs[verb]}.")


async def perform(asked: Question, connection: Connection) -> str:
    """Do it, to the object that was shown and to no other one that has its name by now."""
    connection = replace(connection, namespace=asked.row.namespace)
    match asked.verb:
        case "cancel":
            return await _cancel(connection, asked.row)
        case "rerun":
            return await _rerun(connection, asked.row)
        case "promote" | "abort":
            return await _release(connection, asked.verb, asked.row)


async def _cancel(connection: Connection, row: Row) -> str:
    task = ExecutionTask.parse(await _same(connection, row))
    if task.status.phase is not None and task.status.phase.final:
        return f"task {task.key} had already ended ({task.status.phase}); nothing was changed"
    await request_cancel(connection.kube, task)
    return f"task {task.key} is being cancelled"


async def _rerun(connection: Connection, row: Row) -> str:
    await _same(connection, row)
    made = await connection.kube.create(TASKS, connection.namespace, await Again(row.name).child(connection))
    return f"task {connection.namespace}/{made['metadata']['name']} is created, a copy of {row.name}"


async def _release(connection: Connection, verb: Literal["promote", "abort"], row: Row) -> str:
    deployment = Deployment.parse(await _same(connection, row))
    revision = row.revision if isinstance(row, ReleaseRow) else None
    which = {"revision": revision} if revision is not None else {}
    asked: dict[str, Any] = {verb: {"full": False, **which} if verb == "promote" else which}

    async def look() -> Deployment:
        return Deployment.parse(await connection.find(DEPLOYMENTS, row.name))

    answer = await ask(connection.kube, deployment, asked, look, _PATIENCE)
    if not answer.accepted:
        raise RemitError(f"{row.key}: {answer.message}")
    return f"{row.key}: {answer.message}"


async def _same(connection: Connection, row: Row) -> Object:
    """The object of that row. Raises `RemitError` where it is gone."""
    obj = await connection.find(DEPLOYMENTS if isinstance(row, ReleaseRow) else TASKS, row.name)
    if obj["metadata"]["uid"] != row.uid:
        raise RemitError(f"{row.key} was deleted, and another one has its name by now; nothing was changed")
    return obj
