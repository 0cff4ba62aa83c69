"""`remit prune`: what is kept on this host and may go."""

from __future__ import annotations

import contextlib
import datetime
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from remit.cli import options

if TYPE_CHECKING:
    from remit.execution.pruning import Pruner
    from remit.execution.retention import Removal

_WORKING: Final = (
    "artifacts and audit files are left to the operator that works here; it removes them within ten minutes"
)

_IN_STORE: Final = "artifacts in object storage are left to the operator that keeps them there, wherever it works"


def prune(
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show what would go now, and remove nothing.")] = False,
    output: options.Output = options.TableForm.TABLE,
    output_max_age: options.OutputMaxAge = options.OUTPUT_MAX_AGE,
    max_output: options.MaxOutput = options.MAX_OUTPUT,
    artifacts_max_age: options.ArtifactsMaxAge = options.ARTIFACTS_MAX_AGE,
    max_artifacts: options.MaxArtifacts = "10Gi",
    audit_max_age: options.AuditMaxAge = options.AUDIT_MAX_AGE,
    max_audit: options.MaxAudit = options.MAX_AUDIT,
    state_dir: options.StateDir = None,
) -> None:
    """Remove output, artifacts and closed audit files that are too old or beyond the size that is kept.

    The operator does so every ten minutes by the flags that it was started with; give the same ones here, or others.
    While it works, this command removes output alone. What runs is never touched.
    """
    from remit.controllers.settings import Settings
    from remit.errors import InvalidInput
    from remit.userpaths import default_state_dir

    where = (state_dir or default_state_dir()).absolute()
    settings = Settings(
        state_dir=where,
        artifact_bytes=options.size(max_artifacts, "--max-artifacts"),
        **options.retention(output_max_age, max_output, artifacts_max_age, audit_max_age, max_audit),
    )
    if not where.is_dir():
        raise InvalidInput(f"there is no state directory {where}; name it with --state-dir, on the operator's host")
    with _pruner(settings.state_dir, dry_run=dry_run) as (pruner, hindered):
        pruner.retention = settings.retention
        removals = list(pruner.plan()) if dry_run else pruner.prune()
        left_alone = [] if dry_run or hindered else [each for each in pruner.plan() if each not in removals]
    if output is options.TableForm.JSON:
        _print_json(where, removals, dry_run=dry_run)
    else:
        _print_table(removals, dry_run=dry_run)
    _tell_left_alone(left_alone, hindered)


@contextlib.contextmanager
def _pruner(state_dir: Path, *, dry_run: bool) -> Iterator[tuple[Pruner, str]]:
    """What may be removed by this process, and why not the artifacts and the audit trail: only one works on them at a
    time."""
    from remit.controllers.statedir import locked
    from remit.errors import AuditUnavailable, InvalidInput, RemitError
    from remit.execution.artifacts.folderstore import FolderStore
    from remit.execution.artifacts.opening import open_store
    from remit.execution.artifacts.s3.location import written_down
    from remit.execution.pruning import AUDIT_FILE, Pruner
    from remit.telemetry.audit import AuditLog

    with contextlib.ExitStack() as stack:
        pruner, hindered = Pruner(state_dir), ""
        where = written_down(state_dir)
        if dry_run:
            if where is not None or (state_dir / "artifacts").is_dir():
                pruner.artifacts = open_store(state_dir, where)
        else:
            try:
                stack.enter_context(locked(state_dir))
                if where is not None:
                    hindered = _IN_STORE
                elif (state_dir / "artifacts").is_dir():
                    pruner.artifacts = FolderStore(state_dir / "artifacts")
                if (state_dir / AUDIT_FILE).exists():
                    pruner.audit = stack.enter_context(AuditLog(state_dir / AUDIT_FILE))
            except (AuditUnavailable, InvalidInput) as error:
                hindered = f"artifacts or audit files were left: {error}"
            except RemitError:
                hindered = _WORKING
        yield pruner, hindered


def _print_json(state_dir: Path, removals: list[Removal], *, dry_run: bool) -> None:
    document = {
        "stateDir": str(state_dir),
        "dryRun": dry_run,
        "count": len(removals),
        "bytes": sum(each.item.size for each in removals),
        "items": [
            {
                "what": each.item.what,
                "name": each.item.name,
                "bytes": each.item.size,
                "time": datetime.datetime.fromtimestamp(each.item.time, datetime.UTC).isoformat(),
                "reason": each.reason,
            }
            for each in removals
        ],
    }
    typer.echo(json.dumps(document, indent=2))


def _print_table(removals: list[Removal], *, dry_run: bool) -> None:
    from remit.api.quantity import format_bytes
    from remit.cli.tables import console, listing
    from remit.cli.terminal import counted
    from remit.execution.durations import human_duration
    from remit.telemetry.logs import escape

    now = datetime.datetime.now(datetime.UTC)
    if removals:
        rows = [
            [
                each.item.what,
                escape(each.item.name),
                format_bytes(each.item.size),
                human_duration(now - datetime.datetime.fromtimestamp(each.item.time, datetime.UTC)),
                each.reason,
            ]
            for each in removals
        ]
        console().print(listing(["WHAT", "NAME", "SIZE", "AGE", "REASON"], rows))
    total = format_bytes(sum(each.item.size for each in removals))
    typer.echo(f"{'would remove' if dry_run else 'removed'} {counted(len(removals), 'item')}, {total}")


def _tell_left_alone(left: list[Removal], hindered: str) -> None:
    from remit.cli.terminal import counted, note

    if hindered:
        note(hindered)
    elif left:
        note(f"{counted(len(left), 'item')} could not be removed; see the log above, and run it again")
