"""`remit doctor`: what this machine can give."""

from __future__ import annotations

import typer

from remit.cli import options


def doctor(state_dir: options.StateDir = None, docker_host: options.DockerHost = options.DEFAULT_DOCKER_HOST) -> None:
    """Show what walls this machine can put around a task, and what would give the missing ones.

    Exits with 1 when no task could run here.
    """
    from remit.cli import health

    findings = health.findings(state_dir, docker_host)
    health.show(findings)
    health.show_limits(health.held_by())
    raise typer.Exit(1 if any(finding.needed and not finding.available for finding in findings) else 0)
