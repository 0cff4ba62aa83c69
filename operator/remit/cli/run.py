"""`remit run`: create a task, follow its output, exit as the command did."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit import threads
from remit.cli import completion, options
from remit.cli.errors import INTERRUPTED, report
from remit.errors import RemitError

if TYPE_CHECKING:
    from remit.cli import tasks
    from remit.cli.observe import Observed
    from remit.describe.connection import Connection
    from remit.kube.client import Object

TaskName = Annotated[
    str | None,
    typer.Option(
        metavar="NAME",
        help="The task's name; by default one is made up, and the operator deletes the task seven days after its end.",
    ),
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", help="Have the server check the task and show it, and create nothing.")
]
Wait = Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the task to its end.")]
Remove = Annotated[bool, typer.Option("--rm", help="Delete the task once it has ended.")]
Raw = Annotated[bool, typer.Option("--raw", help="Let output drive the terminal.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="Say nothing but what the command says.")]

_TASK, _FILES = "Task", "Files"
_OWN_METADATA = frozenset({"name", "generateName", "namespace", "labels", "annotations"})


def run(
    argv: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND ARG", show_default=False)] = None,
    file: Annotated[
        Path | None,
        typer.Option(
            "--file", "-f", metavar="FILE", help="Create the one ExecutionTask in this YAML file; - is standard input."
        ),
    ] = None,
    from_schedule: Annotated[
        str | None,
        typer.Option(
            "--from-schedule",
            metavar="NAME",
            help="Run the scheduled task NAME once, now, by hand.",
            autocompletion=completion.tasks,
        ),
    ] = None,
    name: TaskName = None,
    timeout: Annotated[
        int | None,
        typer.Option(
            parser=options.number(1), metavar="SECONDS", help="How long one attempt may take.", rich_help_panel=_TASK
        ),
    ] = None,
    retries: Annotated[
        int | None,
        typer.Option(
            parser=options.number(0), metavar="N", help="Attempts after one that failed.", rich_help_panel=_TASK
        ),
    ] = None,
    env: Annotated[
        list[str] | None,
        typer.Option(
            "--env", "-e", metavar="NAME=VALUE", help="Environment variable. Repeatable.", rich_help_panel=_TASK
        ),
    ] = None,
    cpu: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Processor time, such as 500m.", rich_help_panel=_TASK)
    ] = None,
    memory: Annotated[
        str | None, typer.Option(metavar="AMOUNT", help="Memory, such as 512Mi.", rich_help_panel=_TASK)
    ] = None,
    deadline: Annotated[
        int | None,
        typer.Option(
            parser=options.number(1),
            metavar="SECONDS",
            help="How long the task may take, waiting included.",
            rich_help_panel=_TASK,
        ),
    ] = None,
    secret: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME=SECRET/KEY", help="Environment variable from a Secret. Repeatable.", rich_help_panel=_TASK
        ),
    ] = None,
    network: Annotated[
        str | None, typer.Option(metavar="none|restricted|host", help="The network it sees.", rich_help_panel=_TASK)
    ] = None,
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Where it runs: process, docker or kubernetes; by default what the installation says.",
            rich_help_panel=_TASK,
        ),
    ] = None,
    image: Annotated[
        str | None,
        typer.Option(metavar="IMAGE", help="Container image.", rich_help_panel=_TASK),
    ] = None,
    workdir: Annotated[
        str | None,
        typer.Option("--workdir", "-w", metavar="PATH", help="Where it starts, inside.", rich_help_panel=_TASK),
    ] = None,
    mount: Annotated[
        list[str] | None,
        typer.Option(
            metavar="HOST:PATH[:rw]",
            help="A file or folder of this machine at PATH inside, to read, or to write with :rw. Repeatable.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    workspace: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME:PATH[:ro]",
            help="A folder that is kept from task to task, at PATH inside. Repeatable.",
            rich_help_panel=_FILES,
        ),
    ] = None,
    artifact: Annotated[
        list[str] | None,
        typer.Option(
            metavar="[NAME=]PATH", help="Keep what matches, such as 'dist/*'. Repeatable.", rich_help_panel=_FILES
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label",
            "-l",
            metavar="KEY=VALUE",
            help="Label, which policies select by. Repeatable.",
            rich_help_panel=_TASK,
        ),
    ] = None,
    stdin: Annotated[
        bool,
        typer.Option("--stdin", "-i", help="Hand this command's standard input to the program.", rich_help_panel=_TASK),
    ] = False,
    stdin_from: Annotated[
        str | None,
        typer.Option(
            metavar="HOST", help="Hand a file of this machine, of any size, to the program.", rich_help_panel=_FILES
        ),
    ] = None,
    raw_output: Annotated[
        bool,
        typer.Option(
            "--raw-output", help="Keep the output with the secrets in it, for remit logs.", rich_help_panel=_TASK
        ),
    ] = False,
    dry_run: DryRun = False,
    wait: Wait = True,
    remove: Remove = False,
    raw: Raw = False,
    quiet: Quiet = False,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Run a command under policy, follow its output, and exit as it does.

    There is no shell: the words after -- are the program and its arguments.

    Exits with the command's own code (128 and the signal's number where a signal ended it), or with 124 when it timed
    out, 125 when it could not be run, 126 when policy denied it, 127 when there is no such program, 130 when it was
    cancelled. Ctrl-C cancels the task and waits for its end; a second one leaves at once.
    """
    if bool(argv) + bool(file) + bool(from_schedule) != 1:
        raise typer.BadParameter("give either a command after --, a file with -f or a task with --from-schedule")
    details = {"timeout": timeout, "retries": retries, "env": env, "cpu": cpu, "memory": memory, "label": label}
    details |= {"stdin": stdin, "raw-output": raw_output, "deadline": deadline, "secret": secret, "network": network}
    details |= {"backend": backend, "image": image, "workdir": workdir, "mount": mount, "workspace": workspace}
    details |= {"artifact": artifact, "stdin-from": stdin_from}
    if not argv and (given := [f"--{flag}" for flag, value in details.items() if value]):
        raise typer.BadParameter(f"{', '.join(given)} cannot be used with -f or --from-schedule; write it in the task")
    if remove and not wait:
        raise typer.BadParameter("--rm needs to wait for the end; use spec.ttlSecondsAfterFinished instead")

    labels, variables = options.pairs(label, "--label"), options.pairs(env, "--env")

    from remit.cli import runfiles, tasks
    from remit.cli.exitcodes import BROKEN
    from remit.execution.mountwords import artifacts, volumes

    task: dict[str, Any] | tasks.Scheduled
    try:
        if from_schedule:
            task = tasks.Scheduled(from_schedule, name)
        elif file:
            task = tasks.from_file(file, name)
        else:
            task = tasks.for_command(
                argv or [],
                name=name,
                labels=labels,
                env=variables,
                stdin=tasks.read_standard_input() if stdin else "",
                timeout=timeout,
                retries=retries,
                cpu=cpu,
                memory=memory,
                raw_output=raw_output,
                secrets=runfiles.secrets(secret or []),
                deadlineSeconds=deadline,
                network=network,
                backend=backend,
                image=image,
                workingDir=workdir,
                artifacts=artifacts(artifact or []),
                **volumes(mount or [], workspace or [], stdin_from or ""),
            )
        code = threads.run(run_task(task, namespace, kubeconfig, context, state_dir, wait, remove, raw, quiet, dry_run))
    except (RemitError, OSError) as error:
        report(error)
        code = BROKEN  # the command itself could exit with 1
    raise typer.Exit(code)


async def run_task(
    task: dict[str, Any] | tasks.Scheduled | tasks.Again,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
    wait: bool,
    remove: bool,
    raw: bool,
    quiet: bool,
    dry_run: bool = False,
) -> int:
    """Create a task, or one that is made from another, and follow it. Gives the exit code."""
    from remit.cli import runfiles
    from remit.cli.connect import connected
    from remit.cli.exitcodes import exit_code
    from remit.cli.observe import NotTakenUp, observing
    from remit.cli.tasks import request_cancel
    from remit.cli.terminal import note
    from remit.kube.access import fallback_kubeconfig
    from remit.kube.client import TASKS
    from remit.kube.kubeconfig import state_dir_of

    if isinstance(task, dict):
        namespace = namespace or task["metadata"].get("namespace")
    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        if not isinstance(task, dict):
            task = await task.child(connection)
        if any("hostPath" in volume for volume in task["spec"].get("volumes", [])):
            here = state_dir or state_dir_of(kubeconfig or fallback_kubeconfig(), context)
            runfiles.require_same_machine(here, connection.kube.access.server)
        if dry_run:
            _show(await connection.kube.create(TASKS, connection.namespace, task, dry_run=True))
            return 0
        created = await connection.kube.create(TASKS, connection.namespace, task)
        name = created["metadata"]["name"]
        if not wait:
            typer.echo(f"executiontask.remit.dev/{name}")
            return 0
        if not quiet:
            note(f"task {connection.namespace}/{name}")
        async with observing(connection.kube, created) as observed:
            try:
                interrupted = await _follow(connection, observed, raw, quiet)
            except NotTakenUp as error:
                # The task must not run after this command has reported that it did not.
                await request_cancel(connection.kube, observed.task)
                raise NotTakenUp(f"{error}; the task is cancelled") from None
            if interrupted:
                return INTERRUPTED
            status = observed.task.status
        if remove:
            await connection.kube.delete(TASKS, connection.namespace, name, uid=observed.task.metadata.uid)
        if status.phase != "Succeeded" and not quiet:
            note(f"{status.phase}: {status.message}")
        return exit_code(status)


def _show(task: Object) -> None:
    """The task as the server would store it, without what only the server says."""
    from remit.cli.tables import dump

    metadata = {key: value for key, value in task["metadata"].items() if key in _OWN_METADATA}
    if "generateName" in metadata:
        metadata.pop("name", None)  # the server generates another name the next time
    shown = {key: value for key, value in task.items() if key != "status"}
    typer.echo(dump({**shown, "metadata": metadata}, "yaml"))


async def _follow(connection: Connection, observed: Observed, raw: bool, quiet: bool) -> bool:
    """Follow the task to its end. True if the user stopped waiting."""
    from remit.cli.follow import Follower
    from remit.cli.signals import on_interrupt
    from remit.cli.tasks import request_cancel
    from remit.cli.terminal import Screen, note

    follower = Follower(connection, observed, Screen(raw=raw), tell=(lambda _: None) if quiet else note)
    following = asyncio.ensure_future(follower.to_the_end())
    with on_interrupt() as interrupted:
        if not await _first(following, interrupted):
            note("cancelling; Ctrl-C again to leave at once")
            interrupted.clear()
            await request_cancel(connection.kube, observed.task)
        if not await _first(following, interrupted):
            following.cancel()
            return True
    await following
    return False


async def _first(following: asyncio.Future[Any], interrupted: asyncio.Event) -> bool:
    """Wait for one of the two. Whether the following is over."""
    waiting = asyncio.ensure_future(interrupted.wait())
    ends: set[asyncio.Future[Any]] = {following, waiting}
    await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    return following.done()
