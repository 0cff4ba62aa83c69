"""`remit audit`: look at the trail of decisions and executions, and check that nobody changed it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit.cli import options
from remit.cli.helptext import command

if TYPE_CHECKING:
    from remit.telemetry import Anchor

app = typer.Typer(no_args_is_help=True)

Trail = Annotated[
    Path | None,
    typer.Argument(help="The trail's newest file; by default the one in the state directory.", show_default=False),
]


@app.callback()
def audit() -> None:
    """Check or show the audit trail."""


@command(app)
def verify(
    path: Trail = None,
    head: Annotated[
        str | None, typer.Option(metavar="SEQ:HASH", help="A record that must be there; finds a cut end.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="SEQ:HASH", help="The last record of what was moved away from the front.")
    ] = None,
    state_dir: options.StateDir = None,
) -> None:
    """Follow the chain of hashes: exits with 1 when a record was edited, removed, added or moved.

    All files of the trail are read: the closed ones, audit-000001.jsonl and on, and then the newest. Old ones may be
    moved away from the front only; --after then takes the last record of the last file that was moved.

    The chain cannot tell that its end was cut off. Keep the head that this prints somewhere else, and give it with
    --head the next time.
    """
    from remit.telemetry import GENESIS
    from remit.telemetry import verify as follow

    where = _path(path, state_dir)
    report = follow(
        where, after=_anchor(after, "--after") if after else GENESIS, head=_anchor(head, "--head") if head else None
    )
    for problem in report.problems:
        typer.secho(f"{problem.path}:{problem.line}: {problem.kind}: {problem.message}", fg="red")
    verdict = "whole" if report.ok else "NOT whole"
    typer.echo(f"{where}: {report.records} records, {verdict}\nhead {report.head.seq}:{report.head.hash}")
    raise typer.Exit(0 if report.ok else 1)


@command(app)
def show(
    path: Trail = None,
    task: Annotated[str | None, typer.Option(help="Only this task.")] = None,
    namespace: Annotated[str | None, typer.Option("--namespace", "-n", help="Only this namespace.")] = None,
    last: Annotated[int | None, typer.Option(min=1, metavar="N", help="Only the last N records.")] = None,
    state_dir: options.StateDir = None,
) -> None:
    """Show the records, one a line: time, task, verdict, rule, command."""
    from remit.cli import audittrail

    for line in audittrail.lines(_path(path, state_dir), task=task, namespace=namespace, last=last):
        typer.echo(line)


def _path(path: Path | None, state_dir: Path | None) -> Path:
    from remit.reconcilers.settings import default_state_dir

    return path or (state_dir or default_state_dir()) / "audit" / "audit.jsonl"


def _anchor(text: str, flag: str) -> Anchor:
    from remit.telemetry import Anchor

    number, colon, digest = text.partition(":")
    if not (number.isdigit() and colon and len(digest) == 64):
        raise typer.BadParameter(f"{flag} wants SEQ:HASH as `remit audit verify` prints it")
    return Anchor(int(number), digest)
