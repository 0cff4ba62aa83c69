"""`remit report`: what a release took. The whole report where its files are on this machine, else what status has."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from remit import threads
from remit.cli import completion, options
from remit.cli.releases import Name

if TYPE_CHECKING:
    from remit.api.deployment import Deployment
    from remit.api.deploymentstatus import ReleaseReport

Output = Literal["md", "html", "json", "path"]


def report(
    name: Name,
    revision: Annotated[
        int | None,
        typer.Option(
            "--revision",
            parser=options.number(1),
            metavar="N",
            help="The revision; by default that of the last release.",
            autocompletion=completion.revisions,
        ),
    ] = None,
    output: Annotated[
        Output,
        typer.Option(
            "--output",
            "-o",
            metavar="FORM",
            help="md, html, json or path, which tells where the page with the plots is.",
        ),
    ] = "md",
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Show what a release took: timings, the switch, what a probe saw of it, restarts and resources."""
    threads.run(_report(name, revision, output, namespace, kubeconfig, context, state_dir))


async def _report(
    name: str,
    revision: int | None,
    output: Output,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
) -> None:
    from remit.api.deployment import Deployment
    from remit.cli.connect import connected
    from remit.errors import RemitError
    from remit.kube.client import DEPLOYMENTS

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        deployment = Deployment.parse(await connection.find(DEPLOYMENTS, name))
    short = _of(deployment, revision)
    whole = _whole(connection.state_dirs, deployment, short)
    if whole is not None:
        _show(whole, output)
    elif output == "md":
        _tell(deployment, short)
    else:
        where = f"on the operator's host, in {short.ref}" if short.ref else "nowhere: it could not be written"
        raise RemitError(f"the whole report is not on this machine; it is {where}")


def _of(deployment: Deployment, revision: int | None) -> ReleaseReport:
    """The report in status. Raises RemitError where there is none."""
    from remit.errors import RemitError

    status, name = deployment.status, deployment.metadata.name
    if revision is None:
        if status.report is None:
            raise RemitError(f"deployment {name} has no report yet: its first comes when a release has ended")
        return status.report
    known = {each.revision: each.report for each in status.history}
    if revision not in known:
        raise RemitError(f"deployment {name} has no revision {revision}; 'remit history {name}' shows those it has")
    if (found := known[revision]) is None:
        raise RemitError(f"revision {revision} of deployment {name} has no report yet: it comes when a release ends")
    return found


def _whole(state_dirs: Sequence[Path], deployment: Deployment, short: ReleaseReport) -> Path | None:
    """The page of the report, if it is on this machine and belongs to this very Deployment."""
    from remit.release.report import folder

    metadata = deployment.metadata
    for state_dir in state_dirs:
        where = folder.of(state_dir, metadata.namespace, metadata.name)
        if folder.belongs(where, short.revision, metadata.uid, short.started_at):
            return folder.file(where, short.revision, "html")
    return None


def _show(page: Path, output: Output) -> None:
    from rich.markdown import Markdown

    from remit.cli.tables import console

    if output == "path":
        typer.echo(str(page))
        return
    text = page.with_suffix(f".{output}").read_text()
    if output == "md" and (screen := console()).is_terminal:
        screen.print(Markdown(text))
    else:
        typer.echo(text, nl=False)


def _tell(deployment: Deployment, short: ReleaseReport) -> None:
    """What status has of it."""
    from remit.release.report.wording import duration
    from remit.telemetry.logs import escape

    metadata, switch = deployment.metadata, short.switch_milliseconds
    rows = [
        ("Switch", "not measured" if switch is None else duration(switch / 1000)),
        ("Probe", f"{short.requests_during_switch} requests, of which {short.failed_during_switch} failed"),
        ("Restarts", str(short.restarts)),
        *((stage, duration(seconds)) for stage, seconds in short.stage_seconds.items()),
        *(("Missing", each) for each in short.missing),
    ]
    typer.echo(escape(f"{metadata.namespace}/{metadata.name}, revision {short.revision}"))
    for title, text in rows:
        typer.echo(f"  {escape(title):<14}{escape(text)}")
    if short.ref:
        typer.echo(f"the whole report is on the operator's host: {escape(short.ref)}", err=True)
    else:
        sys.stderr.write("the whole report could not be written; the operator's log says why\n")
