"""`remit workspace`: what is kept from one task to the next."""

from __future__ import annotations

import datetime
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from remit import threads
from remit.cli import options
from remit.cli.helptext import command
from remit.cli.usage import Command, Group

if TYPE_CHECKING:
    from remit.cli.workspaceplaces import Place

app = typer.Typer(cls=Group, no_args_is_help=True, help="List and remove what tasks share.")
WorkspaceName = Annotated[str, typer.Argument(metavar="NAME", help="Name of the workspace.")]
Backend = Annotated[
    Literal["process", "docker", "kubernetes"] | None,
    typer.Option(
        "--backend",
        metavar="NAME",
        help="process or docker: the folder of this host; kubernetes: the claim. Only needed where both have the name.",
    ),
]


@app.command("list", cls=Command, help="List workspaces: folders of this host, and claims of the cluster.")
def list_all(
    all_namespaces: options.AllNamespaces = False,
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
    from remit.cli.connect import connected
    from remit.cli.tables import console, listing
    from remit.cli.workspaceplaces import places

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        found, _ = await places(connection, None if all_namespaces else connection.namespace)
    if output is options.TableForm.JSON:
        typer.echo(json.dumps([place.as_json() for place in found], indent=2))
        return
    rows = [_row(place) for place in found]
    shown = _columns(found, all_namespaces=all_namespaces)
    console().print(listing(shown, [[row[column] for column in shown] for row in rows]))


def _columns(found: list[Place], *, all_namespaces: bool) -> list[str]:
    """The columns that apply to what was found: folders, claims, or both."""
    folders, claims = any(place.folder for place in found), any(place.claim for place in found)
    return [
        *(["NAMESPACE"] if all_namespaces else []),
        "NAME",
        *(["BACKEND"] if folders and claims else []),
        *(["USED"] if folders or not claims else []),
        "SIZE",
        *(["CAPACITY", "CLASS", "STATUS"] if claims else []),
        "LAST USED",
        "USED BY",
    ]


def _row(place: Place) -> dict[str, str]:
    from remit.api.quantity import format_bytes
    from remit.execution.durations import human_duration

    ago = datetime.datetime.now(datetime.UTC) - place.last_used if place.last_used else None
    row = {
        "NAMESPACE": place.namespace,
        "NAME": place.name,
        "BACKEND": ",".join(place.backends),
        "USED": format_bytes(place.folder.used_bytes()) if place.folder else "-",
        "SIZE": _size(place.size),
        "CAPACITY": "-",
        "CLASS": "-",
        "STATUS": "-",
        "LAST USED": human_duration(ago) if ago is not None else "-",
        "USED BY": ",".join(place.used_by) or "-",
    }
    if (claim := place.claim) is not None:
        row |= {"CAPACITY": _size(claim.capacity), "CLASS": claim.storage_class or "-", "STATUS": claim.phase or "-"}
    return row


def _size(size: int | None) -> str:
    from remit.api.quantity import format_bytes

    return "-" if size is None else format_bytes(size)


@command(app)
def show(
    name: WorkspaceName,
    backend: Backend = None,
    output: options.Output = options.TableForm.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Say where a workspace is, how large it may become, how long it is kept, and who uses it."""
    threads.run(_show(name, backend, output, namespace, kubeconfig, context, state_dir))


async def _show(
    name: str,
    backend: str | None,
    output: options.TableForm,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
) -> None:
    from remit.cli.connect import connected
    from remit.cli.workspaceplaces import find

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        place, users = await find(connection, name, backend)
    if output is options.TableForm.JSON:
        typer.echo(json.dumps(place.as_json(), indent=2))
        return
    ttl, unknown = place.ttl_seconds, users.pods_refused if place.claim else ""
    about = {
        "Name": f"{place.namespace}/{place.name}",
        **_where(place),
        "Last used": f"{place.last_used:%FT%TZ}" if place.last_used else "-",
        "Kept": "until 'remit workspace rm'" if ttl is None else f"{ttl} seconds after its last use",
        "Used by": ", ".join(place.used_by) or ("no task; pods are not known" if unknown else "no task"),
    }
    for label, value in about.items():
        typer.echo(f"{label + ':':11}{value}")


def _where(place: Place) -> dict[str, str]:
    from remit.api.quantity import format_bytes
    from remit.backends.kubernetes.workspaceclaim import claim_name

    if place.folder is not None:
        used = f"{format_bytes(place.folder.used_bytes())} of {_size(place.size)}"
        return {"Folder": str(place.folder.data), "Used": used}
    if (claim := place.claim) is None:
        return {}
    return {
        "Claim": f"{claim_name(claim.name)} ({claim.phase or 'no status'})",
        "Size": f"{_size(claim.size)}, and has {_size(claim.capacity)}" if claim.capacity else _size(claim.size),
        "Class": claim.storage_class or "-",
    }


@command(app)
def rm(
    name: WorkspaceName,
    force: Annotated[bool, typer.Option("--force", help="Also where a task uses it.")] = False,
    backend: Backend = None,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
) -> None:
    """Remove a workspace and all that is in it."""
    threads.run(_remove(name, force, backend, namespace, kubeconfig, context, state_dir))


async def _remove(
    name: str,
    force: bool,
    backend: str | None,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
    state_dir: Path | None,
) -> None:
    from remit.cli.connect import connected
    from remit.cli.workspaceplaces import find, remove

    async with connected(kubeconfig, context, namespace, state_dir) as connection:
        place, users = await find(connection, name, backend)
        typer.echo(await remove(connection, place, users, force=force))
