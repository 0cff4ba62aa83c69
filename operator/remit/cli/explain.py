"""`remit explain`: how a task stands, what policy says of it now, and what would have to be said to allow it."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit import threads
from remit.cli import options

if TYPE_CHECKING:
    from remit.describe.explained import Explained


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


async def _explained(
    name: str,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
    operator_namespace: str,
) -> Explained:
    from remit.cli.connect import connected
    from remit.describe import explained

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        return await explained.explain(connection, name, operator_namespace)


def _show(explained: Explained) -> None:
    from remit.cli import policytest
    from remit.describe import policyyaml
    from remit.telemetry.logs import escape

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
