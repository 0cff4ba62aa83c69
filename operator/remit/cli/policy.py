"""`remit policy`: what policies say to a command or a task, and which policy would allow what was seen."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from remit import threads
from remit.cli import completion, options
from remit.cli.helptext import command
from remit.cli.usage import Group

app = typer.Typer(cls=Group, no_args_is_help=True)


@app.callback()
def policy() -> None:
    """Try policies out before they are applied, or have one suggested."""


@command(app)
def test(
    argv: Annotated[list[str] | None, typer.Argument(metavar="-- COMMAND ARG", show_default=False)] = None,
    files: Annotated[
        list[Path] | None,
        typer.Option(
            "--file",
            "-f",
            metavar="FILE",
            help="CommandPolicies, or a CommandPolicyTest with its own table. Repeatable.",
        ),
    ] = None,
    cases: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="A CommandPolicyTest to hold the policies of -f to, besides its own."),
    ] = None,
    task: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE", help="A file with ExecutionTasks of any operation to judge; it may be one of -f too."
        ),
    ] = None,
    label: Annotated[
        list[str] | None, typer.Option("--label", "-l", metavar="KEY=VALUE", help="Label of the task. Repeatable.")
    ] = None,
    namespace: Annotated[
        str, typer.Option("--namespace", "-n", metavar="NAME", help="Namespace of the task.")
    ] = "default",
    backend: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND",
            help="Where it would run: process, docker or kubernetes; by default where the installation runs it.",
        ),
    ] = None,
    default_backend: Annotated[
        str | None,
        typer.Option(
            metavar="BACKEND", help="Where the installation runs what does not say: its operator's first --backend."
        ),
    ] = None,
    default_image: Annotated[
        str | None, typer.Option(metavar="IMAGE", help="The installation's image: its operator's --default-image.")
    ] = None,
    image: Annotated[str | None, typer.Option(metavar="IMAGE", help="Container image.")] = None,
    network: Annotated[str, typer.Option(metavar="NETWORK", help="none, restricted or host.")] = "none",
    env: Annotated[
        list[str] | None,
        typer.Option("--env", "-e", metavar="NAME=VALUE", help="Environment variable of the task. Repeatable."),
    ] = None,
    raw_output: Annotated[
        bool, typer.Option("--raw-output", help="The output is to be kept with the secrets in it.")
    ] = False,
    timeout: Annotated[
        int | None, typer.Option(parser=options.number(1), metavar="SECONDS", help="Time-out that is asked for.")
    ] = None,
    resolved: Annotated[
        str | None, typer.Option(metavar="PATH", help="Where the program is found; by default /usr/bin/NAME.")
    ] = None,
    output: options.Output = options.TableForm.TABLE,
) -> None:
    """Say whether a command or a task may run, which rule decides, or what would have been needed.

    With a command after -- or with --task, exits with 0 when all is allowed and with 1 when something is denied. With a
    CommandPolicyTest, exits with 0 when every case came out as expected. With policies alone, exits with 0 when all are
    ready to decide, without a mistake in a pattern or a path. Policies and tasks without a namespace are taken to be in
    "default".
    """
    if not files and not cases:
        raise typer.BadParameter("name a policy file with -f")
    several = "give one of a command after --, a --task, and a CommandPolicyTest with -f or --cases"
    if argv and task:
        raise typer.BadParameter(several)
    labels, variables = options.pairs(label, "--label"), options.pairs(env, "--env")

    from remit.cli import policytest
    from remit.cli.tables import dump
    from remit.telemetry.logs import escape

    defaults = policytest.installation_defaults(default_backend, default_image)
    policies, suites = policytest.read([*(files or []), *([cases] if cases else [])])
    if bool(argv) + bool(suites) + bool(task) > 1:
        raise typer.BadParameter(several)
    as_json = output is options.TableForm.JSON
    ready = policytest.warn_about_broken(policies)
    if variables and not argv:
        raise typer.BadParameter("--env goes with a command; write it in the task")
    policytest.warn_about_ceilings(policies, suites)
    if argv:
        around: dict[str, Any] = {"labels": labels, "namespace": namespace, "backend": backend}
        around |= {"env": [{"name": name, "value": value} for name, value in variables.items()]}
        around |= {"output": {"raw": raw_output}}
        around |= {"image": image, "network": network, "timeout_seconds": timeout, "resolved": resolved}
        decision = policytest.decide_on_command(argv, policies, around, defaults)
        if as_json:
            typer.echo(dump(policytest.as_dict(decision), "json"))
        else:
            policytest.explain(decision)
        raise typer.Exit(0 if decision.allowed else 1)
    if task:
        judged = policytest.judge_tasks(task, policies, namespace, resolved, defaults)
        if as_json:
            typer.echo(dump([{"task": title} | policytest.as_dict(decision) for title, decision in judged], "json"))
        for title, decision in () if as_json else judged:
            typer.echo(escape(title))
            policytest.explain(decision)
        raise typer.Exit(0 if all(decision.allowed for _, decision in judged) else 1)
    if not suites:
        if as_json:
            typer.echo(dump(policytest.policies_as_dicts(policies), "json"))
        else:
            policytest.explain_policies(policies)
        raise typer.Exit(0 if ready else 1)
    results = policytest.results_of(suites, policies, defaults)
    if as_json:
        typer.echo(dump([policytest.result_as_dict(result) for result in results], "json"))
    else:
        policytest.explain_results(results)
    passed = all(result.passed for result in results)
    raise typer.Exit(0 if ready and passed else 1)


class Form(StrEnum):
    YAML = "yaml"
    JSON = "json"


@command(app)
def suggest(
    since: Annotated[
        str | None,
        typer.Option(
            metavar="TIME", help="What was seen since: RFC 3339, or 1h, 2d ago; by default 7d.", show_default=False
        ),
    ] = None,
    task: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="Only this task, or the runs of this schedule; deploy/NAME: only what this Deployment runs.",
            autocompletion=completion.tasks,
        ),
    ] = None,
    label: Annotated[
        list[str] | None,
        typer.Option(
            "--label", "-l", metavar="KEY=VALUE", help="Only tasks with it; the policy selects them. Repeatable."
        ),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Of the policy; to one that is there, what it lacks is added."),
    ] = None,
    generalize: Annotated[
        bool, typer.Option("--generalize", help="One policy with fewer rules, which allow more than was seen.")
    ] = False,
    difference: Annotated[bool, typer.Option("--diff", help="Show what changes in today's policies instead.")] = False,
    output: Annotated[
        Form, typer.Option("--output", "-o", metavar="FORM", help="yaml, with comments, or json.")
    ] = Form.YAML,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
    operator_namespace: options.OperatorNamespace = "remit-system",
) -> None:
    """Print the smallest CommandPolicy that allows what was denied, or what policies in Audit let run.

    For kubectl apply -f -. Comments tell which runs each rule is for. Nothing is suggested that a ceiling or a deny
    rule forbids, and what is printed has been put to the operator's own evaluator, together with today's policies. Read
    it before you apply it: it allows whatever somebody has tried.

    Tasks that were deleted are taken from the audit trail, where that is on this machine.

    Exits with 1 when something that was seen stays denied; standard error says why.
    """
    if difference and output is Form.JSON:
        raise typer.BadParameter("--diff shows YAML; leave --output out")
    labels = options.pairs(label, "--label")

    from remit.cli.connect import connected
    from remit.cli.terminal import counted, note
    from remit.describe import observedruns, policyyaml
    from remit.describe.audittrail import since_or
    from remit.policy.suggestion import Options
    from remit.telemetry.trail import trail_of

    try:
        moment = None if task and since is None else since_or(since, "7d")
    except ValueError as error:
        raise typer.BadParameter(f"--since: {error}") from error
    kind, slash, deployment = (task or "").partition("/")
    if slash and (kind not in {"deploy", "deployment", "deployments"} or not deployment):
        raise typer.BadParameter(f"--task {task!r} is neither the name of a task nor deploy/NAME")
    wanted = observedruns.Wanted(moment, None if slash else task, labels, deployment or None)
    chosen = Options(name=name, labels=labels, generalize=generalize)

    async def ask() -> tuple[Any, Any, str]:
        async with connected(kubeconfig, context, namespace, state_dir) as connection:
            trail = trail_of(connection.own_state_dirs)
            found, today = await observedruns.suggested(connection, wanted, operator_namespace, trail, chosen)
            return found, today, connection.namespace

    found, today, where = threads.run(ask())
    if found.policies:
        if difference:
            typer.echo(policyyaml.difference(found, today.specs))
        else:
            typer.echo(policyyaml.as_json(found) if output is Form.JSON else policyyaml.as_yaml(found))
        for line in policyyaml.cautions(found) if output is Form.JSON else ():
            note(line)
    elif not found.left_out:
        runs = f"policies of namespace {where} allow all {counted(len(found.allowed), 'run')} already"
        note(runs if found.allowed else f"nothing was seen in namespace {where}")
    for line in policyyaml.told(found.left_out):
        note(f"still denied: {line}")
    raise typer.Exit(1 if found.left_out else 0)
