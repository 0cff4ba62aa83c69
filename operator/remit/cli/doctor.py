"""`remit doctor`: what this machine can give."""

from __future__ import annotations

import json
from typing import Annotated

import typer

from remit.cli import options


def doctor(
    programs: Annotated[
        list[str] | None, typer.Argument(metavar="PROGRAM", help="Programs that tasks are to run, such as node.")
    ] = None,
    state_dir: options.StateDir = None,
    docker_host: options.DockerHost = options.DEFAULT_DOCKER_HOST,
    read_only_path: options.ReadOnlyPaths = None,
    output: options.Output = options.TableForm.TABLE,
) -> None:
    """Show what walls this machine can put around a task, and what would give the missing ones.

    With PROGRAMs, also whether sandboxes find these. Exits with 1 when no task could run here, or one of these is not
    found.
    """
    from remit.cli import health

    readable = [str(path) for path in read_only_path or ()]
    findings = [*health.findings(state_dir, docker_host), *(health.program(name, readable) for name in programs or ())]
    if output is options.TableForm.JSON:
        typer.echo(json.dumps(health.document(findings, health.held_by()), indent=2))
    else:
        health.show(findings)
        health.show_limits(health.held_by())
    raise typer.Exit(1 if any(finding.needed and not finding.available for finding in findings) else 0)
