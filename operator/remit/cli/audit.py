"""`remit audit`: look at the trail of decisions and executions, and check that nobody changed it."""

from __future__ import annotations

import datetime
import re
import shlex
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, get_args

import typer

from remit.cli import options
from remit.cli.helptext import command
from remit.cli.usage import Group
from remit.telemetry.chain import Kind

if TYPE_CHECKING:
    from remit.describe.audittrail import Selection
    from remit.telemetry.chain import Anchor

app = typer.Typer(cls=Group, no_args_is_help=True)

Trail = Annotated[
    Path | None,
    typer.Argument(
        metavar="PATH",
        help="The trail's newest file or its folder; by default this machine's operator's.",
        show_default=False,
    ),
]


class ExportForm(StrEnum):
    JSONL = "jsonl"
    CSV = "csv"


_WHICH = "Records"
Since = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Of that moment or later: RFC 3339, or 1h, 2d ago.", rich_help_panel=_WHICH),
]
Until = Annotated[
    str | None,
    typer.Option(metavar="TIME", help="Before that moment: RFC 3339, or 1h, 2d ago.", rich_help_panel=_WHICH),
]
Namespace = Annotated[
    str | None, typer.Option("--namespace", "-n", metavar="NAME", help="Only this namespace.", rich_help_panel=_WHICH)
]
Task = Annotated[str | None, typer.Option(metavar="NAME", help="Only this task.", rich_help_panel=_WHICH)]
Verdict = Annotated[
    str | None,
    typer.Option(
        metavar="VERDICT", help="Allowed, Denied, Started, or how an execution ended.", rich_help_panel=_WHICH
    ),
]
OfKind = Annotated[
    Kind | None,
    typer.Option(
        "--kind", metavar="KIND", help=f"Only this kind: {', '.join(get_args(Kind))}.", rich_help_panel=_WHICH
    ),
]
Last = Annotated[
    int | None,
    typer.Option(parser=options.number(1), metavar="N", help="Only the last N of them.", rich_help_panel=_WHICH),
]


@app.callback()
def audit() -> None:
    """Check, show or export the audit trail."""


@command(app)
def verify(
    path: Trail = None,
    head: Annotated[
        str | None, typer.Option(metavar="SEQ:HASH", help="A record that must be there; finds a cut end.")
    ] = None,
    after: Annotated[
        str | None, typer.Option(metavar="SEQ:HASH", help="The last record of what was moved away from the front.")
    ] = None,
    output: options.Output = options.TableForm.TABLE,
    state_dir: options.StateDir = None,
) -> None:
    """Follow the chain of hashes: exits with 1 when a record was edited, removed, added or moved.

    All files of the trail are read: the closed ones, audit-000001.jsonl and on, and then the newest. Old ones may be
    moved away from the front only; --after then takes the last record of the last file that was moved.

    The chain cannot tell that its end was cut off. Give with --head what was kept elsewhere: the head that this prints,
    one that the operator logs (audit head), or the one that it notes on its Lease, remit-operator, in the annotation
    remit.dev/audit-head.
    """
    from remit.cli.tables import dump
    from remit.cli.terminal import counted, note
    from remit.telemetry.chain import GENESIS
    from remit.telemetry.logs import escape
    from remit.telemetry.verifying import verify as follow

    where = _path(path, state_dir)
    report = follow(
        where,
        after=_anchor(after, "--after") if after is not None else GENESIS,
        head=_anchor(head, "--head") if head is not None else None,
    )
    if output is options.TableForm.JSON:
        typer.echo(
            dump(
                {
                    "path": str(where),
                    "whole": report.ok,
                    "records": report.records,
                    "head": str(report.head),
                    "problems": [
                        {"path": str(each.path), "line": each.line, "kind": str(each.kind), "message": each.message}
                        for each in report.problems
                    ],
                },
                "json",
            )
        )
        raise typer.Exit(0 if report.ok else 1)
    for problem in report.problems:
        typer.secho(escape(f"{problem.path}:{problem.line}: {problem.kind}: {problem.message}"), fg="red")
    verdict = "whole" if report.ok else "NOT whole"
    typer.echo(escape(f"{where}: {counted(report.records, 'record')}, {verdict}"))
    typer.echo(escape(f"head {report.head}"))
    if head is None:
        note(
            "that its end was not cut off shows only with --head SEQ:HASH: a head that was kept elsewhere, such as the"
        )
        note("operator's log (audit head) or the annotation remit.dev/audit-head of the operator's Lease")
    raise typer.Exit(0 if report.ok else 1)


@command(app)
def show(
    path: Trail = None,
    since: Since = None,
    until: Until = None,
    namespace: Namespace = None,
    task: Task = None,
    verdict: Verdict = None,
    kind: OfKind = None,
    last: Last = None,
    output: Annotated[
        options.TableForm,
        typer.Option("--output", "-o", metavar="FORM", help="table, or json, which is one record a line."),
    ] = options.TableForm.TABLE,
    state_dir: options.StateDir = None,
) -> None:
    """Show the records of all files of the trail, oldest first, one a line.

    Nothing that stands in a record can drive the terminal.
    """
    from remit.describe import audittrail

    selection = _selection(path, state_dir, since, until, namespace, task, verdict, kind, last)
    for number, (line, record) in enumerate(selection):
        if output is options.TableForm.TABLE and number == 0:
            typer.echo(audittrail.HEADER)
        typer.echo(audittrail.as_json(line) if output is options.TableForm.JSON else audittrail.row(record))
    _tell_unreadable(selection)


@command(app)
def export(
    path: Trail = None,
    since: Since = None,
    until: Until = None,
    namespace: Namespace = None,
    task: Task = None,
    verdict: Verdict = None,
    kind: OfKind = None,
    last: Last = None,
    form: Annotated[
        ExportForm,
        typer.Option("--format", metavar="FORM", help="jsonl: the records as they are; csv: for spreadsheets."),
    ] = ExportForm.JSONL,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Write here, mode 0600, whole or not at all.", show_default=False
        ),
    ] = None,
    state_dir: options.StateDir = None,
) -> None:
    """Copy the records of all files of the trail into one, oldest first.

    A copy with nothing left out is a trail itself: remit audit verify FILE checks it. How many records there are, and
    the last one's SEQ:HASH, is told on standard error.
    """
    from remit.cli import auditexport
    from remit.cli.terminal import counted, note

    selection = _selection(path, state_dir, since, until, namespace, task, verdict, kind, last)
    auditexport.write(selection, output, csv=form is ExportForm.CSV)
    _tell_unreadable(selection)
    where = output or "standard output"
    if selection.end is None:
        note(f"exported no records to {where}")
        return
    end = selection.end
    note(f"exported {counted(selection.records, 'record')} to {where}, the last is {end}")
    if output and form is ExportForm.JSONL and selection.whole and (before := selection.before):
        after = f" --after {before}" if before.seq else ""
        note(f"check it with: remit audit verify {shlex.quote(str(output))}{after} --head {end}")


def _selection(
    path: Path | None,
    state_dir: Path | None,
    since: str | None,
    until: str | None,
    namespace: str | None,
    task: str | None,
    verdict: str | None,
    kind: Kind | None,
    last: int | None,
) -> Selection:
    from remit.describe.audittrail import Selection
    from remit.telemetry.trail import Filter

    wanted = Filter(
        since=_moment(since, "--since"),
        until=_moment(until, "--until"),
        namespace=namespace,
        task=task,
        verdict=verdict,
        kind=kind,
    )
    return Selection(_path(path, state_dir), wanted, last)


def _tell_unreadable(selection: Selection) -> None:
    from remit.cli.terminal import counted, note

    if selection.unreadable:
        note(f"left out {counted(selection.unreadable, 'line')} of no record; remit audit verify tells which")


def _path(path: Path | None, state_dir: Path | None) -> Path:
    """The trail that is meant. Raises `RemitError` where none is named and the usual places have none."""
    from remit.errors import RemitError
    from remit.kube.kubeconfig import state_dir_of
    from remit.userpaths import default_state_dir

    if path is not None:
        return path / "audit.jsonl" if path.is_dir() else path
    trail = (state_dir or state_dir_of(None) or default_state_dir()) / "audit" / "audit.jsonl"
    if not trail.parent.exists():
        raise RemitError(f"there is no audit trail {trail}; name one, or the operator's --state-dir")
    return trail


def _moment(text: str | None, flag: str) -> datetime.datetime | None:
    from remit.describe.audittrail import moment

    try:
        return None if text is None else moment(text, datetime.datetime.now(datetime.UTC))
    except ValueError as error:
        raise typer.BadParameter(f"{flag}: {error}") from error


def _anchor(text: str, flag: str) -> Anchor:
    from remit.telemetry.chain import Anchor

    if not (found := re.fullmatch(r"([0-9]{1,20}):([0-9a-f]{64})", text)):
        empty = "it is empty: whatever was to give it found nothing; " if not text.strip() else ""
        raise typer.BadParameter(f"{flag}: {empty}give SEQ:HASH as `remit audit verify` prints it")
    return Anchor(int(found[1]), found[2])
