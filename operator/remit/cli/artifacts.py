"""`remit artifacts` and `remit cp`: what a task left, listed and copied."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit import threads
from remit.cli import options
from remit.errors import RemitError

if TYPE_CHECKING:
    from remit.describe.connection import Connection
    from remit.execution.artifacts.store import ArtifactReader
    from remit.execution.artifacts.stored import StoredArtifact, StoredFile


def artifacts(
    name: options.TaskName,
    output: options.Output = options.TableForm.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """List the artifacts that are kept of a task, with their files.

    On the operator's host, where they are kept. Those of a task that was deleted are listed as long as they are
    retained.
    """
    threads.run(_list(name, output, namespace, kubeconfig, context, state_dir))


async def _list(
    name: str,
    output: options.TableForm,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
) -> None:
    from remit.api.quantity import format_bytes
    from remit.cli.connect import connected
    from remit.cli.tables import console, listing
    from remit.telemetry.logs import escape

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        _, kept = await _kept(connection, name)
    if output is options.TableForm.JSON:
        listed = [
            {
                "name": each.name,
                "digest": each.digest,
                "bytes": each.bytes,
                "files": [
                    {"path": file.path, "bytes": file.size, "sha256": file.sha256, "executable": file.executable}
                    for file in each.files
                ],
            }
            for each in kept
        ]
        typer.echo(json.dumps(listed, indent=2))
        return
    rows = [
        [each.name, escape(file.path), format_bytes(file.size), file.sha256[:12]]
        for each in kept
        for file in each.files
    ]
    console().print(listing(["ARTIFACT", "FILE", "SIZE", "SHA-256"], rows))


def cp(
    source: Annotated[str, typer.Argument(metavar="task/NAME:PATH", help="An artifact of a task, or a file in one.")],
    target: Annotated[
        Path, typer.Argument(metavar="TARGET", help="A file or a folder here; - is standard output.", allow_dash=True)
    ] = Path(),
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Copy what a task left to this machine.

    PATH is the name of an artifact, a file in one such as site/index.html, or the path of a file that only one of the
    task's artifacts has.
    """
    task, colon, path = source.partition(":")
    if not colon or not path or not task.removeprefix("task/"):
        raise typer.BadParameter(
            f"{source!r} is not task/NAME:PATH, such as task/build:report.html; files are copied from tasks only"
        )
    threads.run(_copy(task.removeprefix("task/"), path, target, namespace, kubeconfig, context, state_dir))


async def _copy(
    name: str,
    path: str,
    target: Path,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
) -> None:
    from remit.cli.connect import connected
    from remit.execution.artifacts.saving import save, save_file
    from remit.execution.artifacts.stored import StoredArtifact
    from remit.telemetry.logs import escape

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        store, kept = await _kept(connection, name)
    found = find(kept, path)
    if str(target) == "-":
        files = found.files if isinstance(found, StoredArtifact) else (found,)
        if len(files) != 1:
            raise RemitError(f"{path} has {len(files)} files; copy one of them, or all to a folder")
        with store.open(files[0]) as content:
            shutil.copyfileobj(content, sys.stdout.buffer)
        return
    written = save(store, found, target) if isinstance(found, StoredArtifact) else [save_file(store, found, target)]
    for each in written:
        typer.echo(escape(str(each)))


def find(kept: list[StoredArtifact], path: str) -> StoredArtifact | StoredFile:
    """Resolve `path`. Raises `RemitError` that says what there is."""
    for artifact in kept:
        if artifact.name == path:
            return artifact
    named, _, inside = path.partition("/")
    for artifact in kept:
        for file in artifact.files if artifact.name == named else ():
            if file.path == inside:
                return file
    files = [(artifact.name, file) for artifact in kept for file in artifact.files if file.path == path]
    if len(files) == 1:
        return files[0][1]
    if files:
        names = ", ".join(f"{name}/{path}" for name, _ in files)
        raise RemitError(f"several artifacts have a file {path}; name one: {names}")
    there = [artifact.name for artifact in kept]
    raise RemitError(
        f"the task left no {path}; its artifacts are {', '.join(there)}, and 'remit artifacts' lists files"
    )


async def _kept(connection: Connection, name: str) -> tuple[ArtifactReader, list[StoredArtifact]]:
    """The artifacts of the task, and the folder in which they are kept. Raises `RemitError`."""
    from remit.execution.artifacts.opening import readers
    from remit.kube.client import TASKS

    for state_dir in connection.state_dirs:
        try:
            for store in readers(state_dir):
                if kept := store.artifacts(connection.namespace, name):
                    return store, kept
        except PermissionError:
            continue
    task = await connection.find(TASKS, name)
    if not (listed := task.get("status", {}).get("artifacts")):
        raise RemitError(f"task {connection.namespace}/{name} has left no artifacts")
    names = ", ".join(each["name"] for each in listed)
    raise RemitError(
        f"task {connection.namespace}/{name} left {names}, which is not kept any more, or by an operator of another"
        " machine or user; run this command where the operator runs and as its user, and see --state-dir"
    )
