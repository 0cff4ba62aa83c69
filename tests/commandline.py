"""`remit` in this process."""

from __future__ import annotations

import functools

import typer.main
import typer.testing

from remit.cli.app import app

# typer puts the commands together anew for each invocation, which takes longer than most commands do.
typer.main.get_command = typer.testing._get_command = functools.cache(typer.main.get_command)


def invoke(*arguments: str, env: dict[str, str] | None = None) -> typer.testing.Result:
    """What `remit` with these arguments printed, and how it ended."""
    return typer.testing.CliRunner().invoke(app, arguments, env=env)
