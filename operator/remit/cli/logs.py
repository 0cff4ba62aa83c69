"""`remit logs`: what tasks, schedules, supervised processes and the instances of releases wrote."""

from __future__ import annotations

import datetime
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, Literal

import typer

from remit import threads
from remit.cli import completion, options

if TYPE_CHECKING:
    from remit.cli.logsources import LogRequest, Target
    from remit.cli.terminal import Screen

_KINDS: Final[dict[str, Target]] = {
    "task": "task", "tasks": "task", "executiontask": "task", "executiontasks": "task", "et": "task",
    "schedule": "schedule", "schedules": "schedule",
    "process": "process", "processes": "process",
    "deploy": "deploy", "deployment": "deploy", "deployments": "deploy", "rdeploy": "deploy",
}  # fmt: skip
_LAST_OF_EACH: Final = 10
"""Lines of each task that are shown where a selector chose them, as by kubectl."""
_MOST_FOLLOWED: Final = 5


def logs(
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME",
            help="Of a task, or as TYPE/NAME: schedule/, process/ or deploy/.",
            autocompletion=completion.tasks,
            show_default=False,
        ),
    ] = None,
    selector: Annotated[
        str, typer.Option("--selector", "-l", metavar="LABELS", help="All tasks with these labels, such as team=data.")
    ] = "",
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the end of what writes.")] = False,
    tail: Annotated[
        int | None,
        typer.Option(
            parser=options.number(-1),
            metavar="N",
            help="Lines of each stream to begin with, the last; -1: all. With -l 10, otherwise all.",
            show_default=False,
        ),
    ] = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Lines since then: 5m, 2h, 1d, or 2026-01-31T08:00:00Z."),
    ] = None,
    timestamps: Annotated[bool, typer.Option("--timestamps", help="Put the time before each line.")] = False,
    prefix: Annotated[
        bool, typer.Option("--prefix", help="Put what wrote it before each line, as where it is several.")
    ] = False,
    all_runs: Annotated[bool, typer.Option("--all", help="Of a schedule: every run, not the latest alone.")] = False,
    side: Annotated[
        Literal["blue", "green"] | None,
        typer.Option(metavar="SIDE", help="Of a Deployment: blue or green alone.", show_default=False),
    ] = None,
    instance: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of a Deployment: this one alone, such as blue-0.", show_default=False),
    ] = None,
    previous: Annotated[
        bool, typer.Option("--previous", "-p", help="Of a process or an instance: the run before its last restart.")
    ] = False,
    attempt: Annotated[
        int | None,
        typer.Option(
            parser=options.number(1),
            metavar="N",
            help="Of a task: the attempt's number; by default the latest.",
            show_default=False,
        ),
    ] = None,
    stdout: Annotated[bool, typer.Option("--stdout", help="Standard output only.")] = False,
    stderr: Annotated[bool, typer.Option("--stderr", help="Standard error only.")] = False,
    max_log_requests: Annotated[
        int, typer.Option(parser=options.number(1), metavar="N", help="How many may be followed at once.")
    ] = _MOST_FOLLOWED,
    raw: Annotated[bool, typer.Option("--raw", help="Let output drive the terminal.")] = False,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Show what a program wrote, each stream on its own: of a task, a schedule's newest run, a supervised process, or
    the instances of a Deployment.

    On the operator's host that is all that is kept, with the secrets in it where a task has spec.output.raw. Elsewhere
    it is the pod's log of a Job that is still there, or else the end of it, from the task's status. On a terminal,
    control characters are shown as escapes.
    """
    if stdout and stderr:
        raise typer.BadParameter("--stdout and --stderr exclude each other; leave both out to get both")
    kind, given = _target(name, selector)
    _check(kind, all_runs=all_runs, attempt=attempt, previous=previous, side=side, instance=instance)
    if tail is None and selector:
        tail = _LAST_OF_EACH

    from remit.cli.follow import Selection
    from remit.cli.logsources import LogRequest
    from remit.cli.terminal import Screen

    request = LogRequest(
        kind,
        given,
        selector=selector,
        follow=follow,
        all_runs=all_runs,
        prefix=prefix,
        attempt=attempt,
        side=side,
        instance=instance,
        previous=previous,
        most_followed=max_log_requests,
        selection=Selection(None if tail == -1 else tail, _since(since), timestamps),
    )
    screen = Screen(raw=raw, streams=("stdout",) if stdout else ("stderr",) if stderr else ("stdout", "stderr"))
    threads.run(_logs(request, screen, namespace, kubeconfig, context, state_dir))


def _target(name: str | None, selector: str) -> tuple[Target, str]:
    """What is meant, and its name. Raises typer's usage error."""
    if name is None and not selector:
        raise typer.BadParameter("name a task, or TYPE/NAME, or select tasks with -l")
    if name is not None and selector:
        raise typer.BadParameter("only a selector (-l) or a name is allowed")
    if name is None:
        return "task", ""
    word, slash, rest = name.partition("/")
    if not slash:
        return "task", name
    kind = _KINDS.get(word.lower().removesuffix(".remit.dev"))
    if kind is None:
        raise typer.BadParameter(f"{word!r} has no logs; use task/, schedule/, process/ or deploy/ and a name")
    if not re.fullmatch(r"[a-z0-9]([-.a-z0-9]{0,251}[a-z0-9])?", rest):
        raise typer.BadParameter(f"{rest!r} is not the name of an object: small letters, digits, '-' and '.'")
    return kind, rest


def _check(
    kind: Target, *, all_runs: bool, attempt: int | None, previous: bool, side: str | None, instance: str | None
) -> None:
    """Raises typer's usage error for flags of other kinds."""
    wrong = {
        "--all": all_runs and kind not in {"task", "schedule"},
        "--attempt": attempt is not None and kind not in {"task", "schedule"},
        "--previous": previous and kind not in {"process", "deploy"},
        "--side": side is not None and kind != "deploy",
        "--instance": instance is not None and kind != "deploy",
    }
    for flag, is_wrong in wrong.items():
        if is_wrong:
            raise typer.BadParameter(f"{flag} is not for a {'Deployment' if kind == 'deploy' else kind}")


def _since(text: str | None) -> datetime.datetime | None:
    from remit.describe.audittrail import moment

    if text is None:
        return None
    try:
        return moment(text, datetime.datetime.now(datetime.UTC))
    except ValueError as error:
        raise typer.BadParameter(f"--since: {error}") from None


async def _logs(
    request: LogRequest,
    screen: Screen,
    namespace: str | None = None,
    kubeconfig: Path | None = None,
    context: str | None = None,
    state_dir: Path | None = None,
) -> None:
    from remit.cli.connect import connected
    from remit.cli.logsources import show

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        await show(connection, request, screen)
