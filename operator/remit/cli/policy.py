"""`remit policy test`: what policies say to a command, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from remit.cli.helptext import command

app = typer.Typer(no_args_is_help=True)


@app.callback()
def policy() -> None:
    """Try policies out before they are applied."""


@command(app)
def test(
    argv: Annotated[list[str] | None, typer.Argument(metavar="[-- COMMAND [ARG]…]", show_default=False)] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option("--file", "-f", help="CommandPolicies, or a CommandPolicyTest with its own table. Repeatable."),
    ] = None,
    cases: Annotated[
        Path | None, typer.Option(help="A CommandPolicyTest to hold the policies of -f to, besides its own.")
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Label of the task. Repeatable.")
    ] = None,
    namespace: Annotated[str, typer.Option("--namespace", "-n", help="Namespace of the task.")] = "default",
    backend: Annotated[str, typer.Option(help="Where it would run: process, docker or kubernetes.")] = "process",
    image: Annotated[str | None, typer.Option(help="Container image.")] = None,
    network: Annotated[str, typer.Option(help="none, restricted or host.")] = "none",
    timeout: Annotated[int | None, typer.Option(min=1, metavar="SECONDS", help="Time-out that is asked for.")] = None,
    resolved: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the program is found; by default /usr/bin/NAME.")
    ] = None,
) -> None:
    """Say whether a command may run, which rule decides, or what would have been needed.

    With a command after --, exits with 0 when it is allowed and with 1 when it is denied. With a CommandPolicyTest,
    exits with 0 when every case came out as expected. Policies without a namespace are taken to be in "default".
    """
    if not files and not cases:
        raise typer.BadParameter("name a policy file with -f")

    from remit.cli import policytest

    policies, suites = policytest.read([*(files or []), *([cases] if cases else [])])
    if bool(argv) == bool(suites):
        raise typer.BadParameter("give either a command after -- or a CommandPolicyTest with -f or --cases")
    ready = policytest.warn_about_broken(policies)
    if argv:
        task: dict[str, Any] = {"labels": policytest.labels(label or []), "namespace": namespace, "backend": backend}
        task |= {"image": image, "network": network, "timeout_seconds": timeout, "resolved": resolved}
        decision = policytest.decide_on(argv, policies, task)
        policytest.explain(decision)
        raise typer.Exit(0 if decision.allowed else 1)
    passed = policytest.hold_to(suites, policies)
    raise typer.Exit(0 if ready and passed else 1)
