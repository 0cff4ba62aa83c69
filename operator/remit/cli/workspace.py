"""`remit workspace`: folders that are kept from one task to the next."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from remit import threads
from remit.cli import options
from remit.cli.helptext import command
from remit.cli.usage import Command, Group
from remit.errors import RemitError

if TYPE_CHECKING:
    from remit.describe.connection import Connection
    from remit.execution.workspaces import Workspace, WorkspaceStore

app = typer.Typer(cls=Group, no_args_is_help=True, help="List and remove the folders that tasks share.")
WorkspaceName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the workspace.")]


@app.command("list", cls=Command, help="List workspaces, with what they take of the disk.")
def list_all(
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
    output: options.Output = options.TableForm.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    threads.run(_list(all_namespaces, output, namespace, kubeconfig, context, state_dir))


async def _list(
    all_namespaces: bool,
    output: options.TableForm,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
) -> None:
    from remit.api import format_bytes
    from remit.cli.connect import connected
    from remit.cli.tables import console, listing
    from remit.execution.progress import human_duration

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        found = [
            workspace
            for store in _stores(connection)
            for workspace in store.all()
            if all_namespaces or workspace.namespace == connection.namespace
        ]
    if output is options.TableForm.JSON:
        typer.echo(json.dumps([_as_json(each) for each in found], indent=2))
        return
    now = datetime.datetime.now(datetime.UTC)
    rows = [
        [
            *([each.namespace] if all_namespaces else []),
            each.name,
            format_bytes(each.used_bytes()),
            format_bytes(each.size),
            human_duration(now - datetime.datetime.fromtimestamp(each.used_at, datetime.UTC)),
        ]
        for each in found
    ]
    headers = [*(["NAMESPACE"] if all_namespaces else []), "NAME", "USED", "SIZE", "LAST USED"]
    console().print(listing(headers, rows))


def _as_json(workspace: Workspace) -> dict[str, Any]:
    used_at = datetime.datetime.fromtimestamp(workspace.used_at, datetime.UTC)
    return {
        "namespace": workspace.namespace,
        "name": workspace.name,
        "folder": str(workspace.data),
        "usedBytes": workspace.used_bytes(),
        "sizeBytes": workspace.size,
        "lastUsed": f"{used_at:%FT%TZ}",
        "ttlSecondsAfterLastUse": workspace.ttl_seconds,
    }


@command(app)
def show(
    name: WorkspaceName,
    output: options.Output = options.TableForm.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Say where a workspace is, how large it may become, how long it is kept, and who uses it."""
    threads.run(_show(name, output, namespace, kubeconfig, context, state_dir))


async def _show(
    name: str,
    output: options.TableForm,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
) -> None:
    from remit.api import format_bytes
    from remit.cli.connect import connected

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        _, workspace = _find(connection, name)
        users = await _users(connection, name)
    if output is options.TableForm.JSON:
        typer.echo(json.dumps({**_as_json(workspace), "usedBy": list(users)}, indent=2))
        return
    ttl = workspace.ttl_seconds
    about = {
        "Name": f"{workspace.namespace}/{workspace.name}",
        "Folder": str(workspace.data),
        "Used": f"{format_bytes(workspace.used_bytes())} of {format_bytes(workspace.size)}",
        "Last used": f"{datetime.datetime.fromtimestamp(workspace.used_at, datetime.UTC):%FT%TZ}",
        "Kept": "until 'remit workspace rm'" if ttl is None else f"{ttl} seconds after its last use",
        "Used by": ", ".join(users) or "no task",
    }
    for label, value in about.items():
        typer.echo(f"{label + ':':11}{value}")


@command(app)
def rm(
    name: WorkspaceName,
    force: Annotated[bool, typer.Option("--force", help="Also where a task uses it.")] = False,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Remove a workspace and all that is in it."""
    threads.run(_remove(name, force, namespace, kubeconfig, context, state_dir))


async def _remove(
    name: str,
    force: bool,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
) -> None:
    from remit.cli.connect import connected

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        store, workspace = _find(connection, name)
        if not force and (users := await _users(connection, name)):
            raise RemitError(f"workspace {name} is used by {', '.join(users)}; wait for the end, or give --force")
    store.remove(workspace)
    typer.echo(f"workspace {workspace.namespace}/{name} removed")


async def _users(connection: Connection, name: str) -> tuple[str, ...]:
    """The tasks of the namespace that run and have it mounted."""
    from remit.kube.client import TASKS

    return tuple(
        f"task/{task['metadata']['name']}"
        for task in await connection.kube.list(TASKS, connection.namespace)
        if task.get("status", {}).get("phase") == "Running"
        and any(volume.get("workspace", {}).get("name") == name for volume in task["spec"].get("volumes", []))
    )


def _find(connection: Connection, name: str) -> tuple[WorkspaceStore, Workspace]:
    for store in _stores(connection):
        if (workspace := store.find(connection.namespace, name)) is not None:
            return store, workspace
    raise RemitError(
        f"there is no workspace {name} in namespace {connection.namespace}; 'remit workspace list -A' lists all"
    )


def _stores(connection: Connection) -> tuple[WorkspaceStore, ...]:
    """Those of operators of this machine and user. Raises `RemitError` where there is none."""
    import os

    from remit.execution.workspaces import WorkspaceStore

    roots = dict.fromkeys(state_dir / "workspaces" for state_dir in connection.state_dirs)
    readable = [root for root in roots if os.access(root, os.R_OK | os.X_OK)]
    if not readable:
        raise RemitError(
            "no operator of this machine and user keeps workspaces; run this command where the operator runs and as"
            " its user, and see --state-dir"
        )
    return tuple(WorkspaceStore(root) for root in readable)
