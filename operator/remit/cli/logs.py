"""`remit logs`: a task's output."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit import threads
from remit.cli import options

if TYPE_CHECKING:
    from remit.cli.connect import Connection
    from remit.cli.terminal import Screen
    from remit.kube.client import Object


def logs(
    name: options.TaskName,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the task has ended.")] = False,
    stdout: Annotated[bool, typer.Option("--stdout", help="Standard output only.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error only.")] = False,
    attempt: Annotated[
        int | None,
        typer.Option(
            parser=options.number(1),
            metavar="N",
            help="The attempt's number; by default the latest.",
            show_default=False,
        ),
    ] = None,
    raw: Annotated[bool, typer.Option("--raw", help="Let output drive the terminal.")] = False,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Show what a task's program wrote, each stream on its own; of a scheduled task, its newest run's.

    On the operator's host that is all that is kept, with the secrets in it where the task has spec.output.raw. While a
    Job runs, it is what its pod's log has, with the secrets in it, if you may read that. Elsewhere it is the end of it,
    from the task's status. On a terminal, control characters are shown as escapes.
    """
    if stdout and stderr:
        raise typer.BadParameter("--stdout and --stderr exclude each other; leave both out to get both")

    from remit.cli.terminal import Screen

    screen = Screen(raw=raw, streams=("stdout",) if stdout else ("stderr",) if stderr else ("stdout", "stderr"))
    threads.run(_logs(name, namespace, kubeconfig, context, state_dir, follow, attempt, screen))


async def _logs(
    name: str,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
    follow: bool,
    number: int | None,
    screen: Screen,
) -> None:
    from remit.api import ExecutionTask
    from remit.cli.connect import connected
    from remit.cli.follow import UNREDACTED, Follower, chosen_attempt, show_once
    from remit.cli.observe import observing
    from remit.cli.podlogs import PodOutput
    from remit.cli.terminal import note
    from remit.kube.client import TASKS

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        obj = await connection.find(TASKS, name)
        if "schedule" in obj["spec"]:
            run = await _newest_run(connection, obj, follow)
            if run is None:
                return
            obj = run
        task = ExecutionTask.parse(obj)
        attempt = chosen_attempt(task, number)
        if not follow and attempt is None:
            note(f"nothing of task {task.key} has run yet: {task.status.message or 'it was just created'}")
        elif not follow and attempt is not None:
            directory = connection.run_directory(task.metadata.namespace, task.metadata.uid, attempt.id)
            pod = PodOutput.of(connection.kube, task, attempt, screen) if directory is None else None
            if pod is None:
                show_once(connection, task, attempt, screen)
            else:
                note(UNREDACTED)
                if why := await pod.once():
                    note(why)
        else:
            async with observing(connection.kube, obj) as observed:
                first = attempt.number if attempt is not None else 1
                await Follower(connection, observed, screen, first, raw_output=True).to_the_end()


async def _newest_run(connection: Connection, schedule: Object, follow: bool) -> Object | None:
    """The run that a scheduled task started last. Where there is none, the first one if it is followed, else None."""
    from remit.api import ExecutionTask
    from remit.cli.observe import observing
    from remit.cli.tasks import newest_run
    from remit.cli.terminal import note

    run = await newest_run(connection, schedule)
    if run is None:
        task = ExecutionTask.parse(schedule)
        due = task.status.next_schedule_time
        note(f"scheduled task {task.key} has no runs; the next is due {f'{due:%FT%TZ}' if due else 'at no known time'}")
        if not follow:
            return None
        async with observing(connection.kube, schedule) as observed:
            await observed.taken_up(note)
            while (run := await newest_run(connection, schedule)) is None:
                if observed.over:
                    return None
                await observed.changed()
    note(f"task {connection.namespace}/{run['metadata']['name']}")
    return run
