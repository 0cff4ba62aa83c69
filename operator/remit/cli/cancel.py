"""`remit cancel`: end tasks, whatever they are doing."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from remit.cli import options


def cancel(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Names of ExecutionTasks.", autocompletion=options.complete_tasks),
    ],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until nothing of them is alive.")] = False,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """End tasks that are queued, running or waiting to be retried.

    A running program gets SIGTERM and its grace period; after that everything it started is killed.
    """
    asyncio.run(_cancel(names, wait, namespace, kubeconfig, context))


async def _cancel(
    names: list[str], wait: bool, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> None:
    from remit.api import ExecutionTask
    from remit.cli.connect import connected
    from remit.cli.observe import observing
    from remit.cli.tasks import request_cancel
    from remit.kube.client import TASKS

    async with connected(kubeconfig, context, namespace) as connection:
        found = [await connection.find(TASKS, name) for name in names]
        tasks = [ExecutionTask.parse(obj) for obj in found]
        going = [not (task.status.phase is not None and task.status.phase.final) for task in tasks]
        for task, is_going in zip(tasks, going, strict=True):
            if is_going:
                await request_cancel(connection.kube, task)
            ended = f"had already ended ({task.status.phase}); nothing was changed"
            typer.echo(f"task {task.key} {'is being cancelled' if is_going else ended}")
        for obj, is_going in zip(found, going, strict=True):
            if wait and is_going:
                async with observing(connection.kube, obj) as observed:
                    task = await observed.finished()
                    typer.echo(f"task {task.key}: {task.status.phase}")
