"""`remit errors`: what failed and was denied lately, counted; or what one code means."""

from __future__ import annotations

import datetime
from typing import Annotated

import typer

from remit import threads
from remit.cli import completion, options
from remit.didyoumean import did_you_mean


def errors(
    code: Annotated[
        str | None,
        typer.Argument(
            metavar="CODE",
            help="Say what this code means instead, such as OOMKilled.",
            show_default=False,
            autocompletion=completion.codes,
        ),
    ] = None,
    since: Annotated[str, typer.Option(metavar="TIME", help="What failed since: RFC 3339, or 1h, 2d ago.")] = "1d",
    all_namespaces: options.AllNamespaces = False,
    output: options.Output = options.TableForm.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Count what failed and was denied, by category, code and policy; or say what one code means.

    Each line has the trend against the equally long time before, and the newest example. Tasks and releases that were
    deleted meanwhile are counted where the operator's audit trail is on this machine.
    """
    if code is not None:
        _explain(code, output)
        return
    now = datetime.datetime.now(datetime.UTC)
    if namespace and all_namespaces:
        raise typer.BadParameter("--namespace names one namespace, and -A all of them; leave one out")

    from remit.cli import failurereport, tables
    from remit.cli.connect import connected
    from remit.cli.terminal import note
    from remit.describe.audittrail import moment
    from remit.telemetry.trail import trail_of

    try:
        begun = moment(since, now)
        _ = begun - (now - begun)
    except (ValueError, OverflowError) as error:
        raise typer.BadParameter(f"--since: {error}") from None
    if begun >= now:
        raise typer.BadParameter(f"--since {since} is not in the past")

    async def look() -> failurereport.Report:
        async with connected(kubeconfig, context, namespace, state_dir) as connection:
            place = None if all_namespaces else connection.namespace
            return await failurereport.found(connection.kube, place, begun, now, trail_of(connection.own_state_dirs))

    report = threads.run(look())
    if output is options.TableForm.JSON:
        typer.echo(tables.dump(failurereport.as_json(report), "json"))
        return
    failurereport.show(report)
    for lacking in report.incomplete:
        note(lacking)


def _explain(code: str, output: options.TableForm) -> None:
    from remit import reasons
    from remit.cli import tables
    from remit.reasons import reference

    found = reasons.find(code) or next((c for c in reasons.CATALOGUE.values() if c.name.lower() == code.lower()), None)
    if found is None:
        meant = did_you_mean(code, reasons.CATALOGUE)
        raise typer.BadParameter(f"{code!r} is no code of Remit's{meant or '; docs/errors.md has them all'}")
    if output is options.TableForm.JSON:
        typer.echo(tables.dump(reference.as_dict(found), "json"))
        return
    screen = tables.console()
    screen.print(reference.page(found), markup=False, soft_wrap=not screen.is_terminal)
