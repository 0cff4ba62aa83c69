"""`remit cancel`: end tasks, whatever they are doing."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit import threads
from remit.cli import completion, options

if TYPE_CHECKING:
    from remit.api.executiontask import ExecutionTask
    from remit.describe.connection import Connection
    from remit.kube.client import Object

_MORE_SECONDS = 60
"""What a task that is cancelled may take besides its grace period."""


def cancel(
    names: Annotated[
        list[str],
        typer.Argument(metavar="NAME", help="Names of ExecutionTasks.", autocompletion=completion.tasks),
    ],
    wait: Annotated[bool, typer.Option("--wait", "-w", help="Wait until nothing of them is alive.")] = False,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """End tasks that are queued, running or waiting to be retried.

    A running program gets SIGTERM and its grace period; after that everything it started is killed. A name that is not
    there does not keep the others from being cancelled, and makes the exit code 1.
    """
    if not threads.run(_cancel(names, wait, namespace, kubeconfig, context)):
        sys.exit(1)


async def _cancel(
    names: list[str], wait: bool, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> bool:
    """Whether all was done; what was not is told."""
    from remit.cli.connect import connected
    from remit.cli.errors import report
    from remit.errors import ApiError, RemitError

    async with connected(kubeconfig, context, namespace) as connection:
        going, done = [], True
        for name in dict.fromkeys(names):
            try:
                if (obj := await _request(connection, name)) is not None:
                    going.append(obj)
            except RemitError as error:
                if isinstance(error, ApiError) and (error.status == 401 or error.retryable):
                    raise  # the error concerns the server and not this task
                report(error)
                done = False
        for obj in going if wait else ():
            try:
                task = await _ended(connection, obj)
                typer.echo(f"task {task.key}: {task.status.phase}")
            except RemitError as error:
                report(error)
                done = False
        return done


async def _request(connection: Connection, name: str) -> Object | None:
    """Ask for the end of a task. Gives the task where it had not ended yet."""
    from remit.api.executiontask import ExecutionTask
    from remit.cli.tasks import request_cancel
    from remit.kube.client import TASKS

    obj = await connection.find(TASKS, name)
    task = ExecutionTask.parse(obj)
    if task.status.phase is not None and task.status.phase.final:
        typer.echo(f"task {task.key} had already ended ({task.status.phase}); nothing was changed")
        return None
    await request_cancel(connection.kube, task)
    typer.echo(f"task {task.key} is being cancelled")
    return obj


async def _ended(connection: Connection, obj: Object) -> ExecutionTask:
    """The task once it has ended. Raises `RemitError` where that takes too long."""
    from remit.cli.observe import observing
    from remit.errors import RemitError

    async with observing(connection.kube, obj) as observed:
        patience = observed.task.spec.termination_grace_period_seconds + _MORE_SECONDS
        try:
            async with asyncio.timeout(patience):
                return await observed.finished()
        except TimeoutError:
            raise RemitError(
                f"task {observed.task.key} has not ended within {patience} s; it does as soon as an operator is at work"
            ) from None
