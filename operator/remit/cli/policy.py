"""`remit policy test`: what policies say to a command, without running it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit.errors import InvalidInput

if TYPE_CHECKING:
    from remit.policy import CompiledPolicy, Decision
    from remit.policy.testing import CaseResult, Suite

app = typer.Typer(no_args_is_help=True)


@app.callback()
def policy() -> None:
    """Try policies out before they are applied."""


@app.command()
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
    network: Annotated[str, typer.Option(help="none or host.")] = "none",
    timeout: Annotated[int | None, typer.Option(min=1, metavar="SECONDS", help="Time-out that is asked for.")] = None,
    resolved: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the program is found; by default /usr/bin/NAME.")
    ] = None,
) -> None:
    """Say whether a command may run, which rule decides, or what would have been needed.

    With a command after --, exits with 0 when it is allowed and with 1 when it is denied. With a CommandPolicyTest,
    exits with 0 when every case came out as expected. Policies without a namespace are taken to be in "default".
    """
    from remit.policy.testing import parse_policies, parse_suite, run_cases

    policies: list[CompiledPolicy] = []
    suites: list[Suite] = []
    for path in [*(files or []), *([cases] if cases else [])]:
        text = _read(path)
        if "kind: CommandPolicyTest" in text:
            suite = _located(path, lambda text=text: parse_suite(text))
            suites.append(suite)
            for name in suite.policies:
                policies += _policies_in(path.parent / name)
        else:
            policies += _located(path, lambda text=text: parse_policies(text))
    if not policies:
        raise typer.BadParameter("there is no CommandPolicy in what was given; name a file with -f")
    if bool(argv) == bool(suites):
        raise typer.BadParameter("give either a command after -- or a CommandPolicyTest with -f or --cases")
    ready = _warn_about_broken(policies)
    if argv:
        decision = _decide(argv, policies, label, namespace, backend, image, network, timeout, resolved)
        _explain(decision)
        raise typer.Exit(0 if decision.allowed else 1)
    results = [result for suite in suites for result in run_cases(suite, policies)]
    _tabulate(results)
    raise typer.Exit(0 if ready and all(result.passed for result in results) else 1)
