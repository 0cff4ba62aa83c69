"""Runs `remit` in this process."""

from __future__ import annotations

import functools

import typer.main
import typer.testing

from remit.cli.app import app

# typer builds the command tree again for each invocation, which takes longer than most commands, so it is cached.
typer.main.get_command = typer.testing._get_command = functools.cache(typer.main.get_command)


def invoke(*arguments: str, env: dict[str, str] | None = None) -> typer.testing.Result:
    """Runs `remit` with these arguments, and returns its output and exit code."""
    return typer.testing.CliRunner().invoke(app, arguments, env=env)
