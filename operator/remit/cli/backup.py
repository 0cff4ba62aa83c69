"""`remit backup` and `remit restore`: the state of `remit up` as one file."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit.cli import options
from remit.errors import InvalidInput
from remit.privatefiles import whole_file
from remit.userpaths import default_state_dir

if TYPE_CHECKING:
    from remit.cli.statearchive import Contents


def backup(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="The archive to write, such as remit.tar.gz.")],
    state_dir: options.StateDir = None,
) -> None:
    """Write all that `remit up` keeps to one file: objects, records of runs, audit trail, workspaces, artifacts.

    It may run meanwhile. Secrets are in the file as they are, so it is readable by its owner only: keep it so.
    """
    from remit.api.quantity import format_bytes

    folder = (state_dir or default_state_dir()).absolute()
    contents = _write(file.absolute(), folder)
    for path in contents.cut:
        typer.echo(f"{path!r} became shorter while it was read, and ends in zeros", err=True)
    for path in contents.left_out:
        typer.echo(f"{path!r} is left out: this user may not read it, or it lies too deep", err=True)
    typer.echo(f"{folder} is in {file}: {contents.files} files, {format_bytes(contents.size)}")
    typer.echo("It holds the secrets and keys of this control plane: keep it as safe as these.")


def _write(file: Path, state_dir: Path) -> Contents:
    """The file is there whole or not at all."""
    from remit.cli.statearchive import write_archive

    if file.is_relative_to(state_dir):
        raise InvalidInput(f"{file} is in the directory to back up; write it elsewhere")
    if os.path.lexists(file):
        raise InvalidInput(f"{file} is there already; move it away, or choose another name")
    try:
        with whole_file(file, replace=False) as out:
            return write_archive(state_dir, out)
    except FileExistsError:
        raise InvalidInput(f"{file} is there already; move it away, or choose another name") from None


def restore(
    file: Annotated[
        Path, typer.Argument(metavar="FILE", exists=True, dir_okay=False, help="An archive that remit backup wrote.")
    ],
    state_dir: options.StateDir = None,
) -> None:
    """Make the state directory of `remit up` from a backup. The directory has to be empty or missing.

    What ran when the backup was made is found to be interrupted at the next start, as after a power cut. What
    happened after it is not known any more: tasks that were started since may run again.
    """
    from remit.cli.statearchive import restore_archive

    folder = (state_dir or default_state_dir()).absolute()
    with file.open("rb") as archive:
        manifest = restore_archive(archive, str(file), folder)
    typer.echo(f"{folder} is as Remit {manifest.version} left it at {manifest.made}")
    if manifest.state_dir != str(folder):
        typer.echo(f"It was {manifest.state_dir}; releases to processes of this machine go on only there.", err=True)
    typer.echo("Start it with remit up, with the same --state-dir.")
