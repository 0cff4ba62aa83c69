"""`remit promote`, `abort`, `rollback`, `retry`, `pause`, `resume`: requests to a release. `remit history`: what became
of those before."""

from __future__ import annotations

import datetime
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit import threads
from remit.cli import completion, options

if TYPE_CHECKING:
    from remit.api.deploymentstatus import RequestAnswer

Name = Annotated[
    str, typer.Argument(metavar="NAME", help="Name of the Deployment.", autocompletion=completion.deployments)
]
Meant = Annotated[
    int | None,
    typer.Option(
        "--revision",
        parser=options.number(1),
        metavar="N",
        help="The revision that is meant: refused if another one is on its way by then.",
        autocompletion=completion.revisions,
    ),
]
_PATIENCE = 30.0


def promote(
    name: Name,
    revision: Meant = None,
    full: Annotated[bool, typer.Option("--full", help="Skip every pause that is left, not only this one.")] = False,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Let a release go on that waits for a promotion, or that bakes."""
    _ask(name, {"promote": {"full": full} | _meant(revision)}, namespace, kubeconfig, context)


def abort(
    name: Name,
    revision: Meant = None,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """End a release and go back to what was live before it."""
    _ask(name, {"abort": _meant(revision)}, namespace, kubeconfig, context)


def rollback(
    name: Name,
    to: Annotated[
        int | None,
        typer.Option(
            "--to",
            parser=options.number(1),
            metavar="N",
            help="The revision; by default the last good one before the live one.",
            autocompletion=completion.revisions,
        ),
    ] = None,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Return to an earlier revision: its artifact, its configuration, its Secrets and its replicas.

    The revision is pinned until the spec changes; the spec itself is not edited.
    """
    _ask(name, {"rollback": _meant(to)}, namespace, kubeconfig, context)


def retry(
    name: Name,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Release once more what failed."""
    _ask(name, {"retry": {}}, namespace, kubeconfig, context)


def pause(
    name: Name,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Take no further step. What is live stays live."""
    _ask(name, {"pause": {}}, namespace, kubeconfig, context)


def resume(
    name: Name,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Go on after a pause."""
    _ask(name, {"resume": {}}, namespace, kubeconfig, context)


def history(
    name: Name,
    output: options.Output = options.TableForm.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """The revisions that were released or tried, the newest first."""
    threads.run(_history(name, output, namespace, kubeconfig, context))


def _meant(revision: int | None) -> dict[str, Any]:
    return {} if revision is None else {"revision": revision}


def _ask(name: str, asked: dict[str, Any], namespace: str | None, kubeconfig: Path | None, context: str | None) -> None:
    answer = threads.run(_answer(name, asked, namespace, kubeconfig, context))
    typer.echo(f"deployment {name}: {answer.message}", err=not answer.accepted)
    if not answer.accepted:
        sys.exit(1)


async def _answer(
    name: str, asked: dict[str, Any], namespace: str | None, kubeconfig: Path | None, context: str | None
) -> RequestAnswer:
    from remit.api.deployment import Deployment
    from remit.cli.connect import connected
    from remit.kube.client import DEPLOYMENTS
    from remit.release.asking import ask

    async with connected(kubeconfig, context, namespace) as connection:

        async def look() -> Deployment:
            return Deployment.parse(await connection.find(DEPLOYMENTS, name))

        return await ask(connection.kube, await look(), asked, look, _PATIENCE)


async def _history(
    name: str, output: options.TableForm, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> None:
    from rich.text import Text

    from remit.api.deployment import Deployment
    from remit.cli.connect import connected
    from remit.cli.tables import console, dump, filled
    from remit.execution.durations import human_duration
    from remit.kube.client import DEPLOYMENTS
    from remit.telemetry.logs import escape

    async with connected(kubeconfig, context, namespace) as connection:
        obj = await connection.find(DEPLOYMENTS, name)
    status = Deployment.parse(obj).status
    if output is options.TableForm.JSON:
        told = obj.get("status") or {}
        live = {key: told.get(key) for key in ("activeRevision", "previewRevision", "pinnedRevision")}
        typer.echo(dump({**live, "history": told.get("history") or []}, "json"))
        return
    rows = []
    for revision in status.history:
        marks = [
            *(["live"] if revision.revision == status.active_revision else []),
            *(["preview"] if revision.revision == status.preview_revision else []),
            *(["pinned"] if revision.revision == status.pinned_revision else []),
        ]
        seconds, at = revision.duration_seconds, revision.deployed_at
        row = [
            str(revision.revision),
            escape(revision.artifact),
            revision.outcome,
            ", ".join(marks),
            at.strftime("%Y-%m-%d %H:%M:%SZ") if at else "",
            human_duration(datetime.timedelta(seconds=seconds)) if seconds is not None else "",
        ]
        rows.append([Text(cell) for cell in row])
    if not rows:
        typer.echo(f"deployment {name} was never released", err=True)
        return
    console().print(filled(["REVISION", "ARTIFACT", "OUTCOME", "LIVE", "DEPLOYED", "TOOK"], rows))
