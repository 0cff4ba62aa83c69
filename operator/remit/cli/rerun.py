"""`remit rerun`: run what a task ran once more."""

from __future__ import annotations

from typing import Annotated

import typer

from remit import threads
from remit.cli import completion, options
from remit.cli.errors import report
from remit.cli.run import DryRun, Quiet, Raw, Remove, TaskName, Wait, run_task
from remit.errors import RemitError


def rerun(
    task: Annotated[
        str, typer.Argument(metavar="NAME", help="Name of the ExecutionTask.", autocompletion=completion.tasks)
    ],
    name: TaskName = None,
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
    """Create a task with the spec and the labels of another, and follow it as [bold]remit run[/] does.

    The other one may have ended or not; it stays as it is. Policy decides anew, about you and as it is now. Labels and
    annotations by which GitOps tools, Helm, schedules and releases know what is theirs are left out.
    """
    from remit.cli.exitcodes import BROKEN
    from remit.cli.tasks import Again

    if remove and not wait:
        raise typer.BadParameter("--rm needs to wait for the end; delete the task yourself")
    try:
        again = Again(task, name)
        code = threads.run(
            run_task(again, namespace, kubeconfig, context, state_dir, wait, remove, raw, quiet, dry_run)
        )
    except (RemitError, OSError) as error:
        report(error)
        code = BROKEN  # the command itself could exit with 1
    raise typer.Exit(code)
