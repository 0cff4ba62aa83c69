"""`remit get`: tasks and policies as a table, or as they are."""

from __future__ import annotations

import asyncio
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit.cli import options

if TYPE_CHECKING:
    from remit.api.endpoint import Resource
    from remit.cli.connect import Connection
from remit.reconcilers.kube import Object

_KINDS = {
    "tasks": "tasks", "task": "tasks", "executiontasks": "tasks", "executiontask": "tasks", "et": "tasks",
    "policies": "policies", "policy": "policies", "commandpolicies": "policies", "commandpolicy": "policies",
    "cmdpol": "policies",
}  # fmt: skip


class Form(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    NAME = "name"
    YAML = "yaml"
    JSON = "json"


def get(
    kind: Annotated[str, typer.Argument(help="tasks or policies.")] = "tasks",
    name: Annotated[
        str | None,
        typer.Argument(help="One of them; by default all.", show_default=False, autocompletion=options.complete_tasks),
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
    selector: Annotated[
        str, typer.Option("--selector", "-l", metavar="LABELS", help="Those with these labels, such as team=data.")
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show changes until interrupted.")] = False,
    output: Annotated[Form, typer.Option("--output", "-o", help="The form.")] = Form.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Show tasks or policies."""
    if (plural := _KINDS.get(kind.lower())) is None:
        if name is not None:
            raise typer.BadParameter(f"{kind!r} is neither tasks nor policies")
        plural, name = "tasks", kind
    if name and all_namespaces:
        raise typer.BadParameter("a name is looked up in one namespace; leave -A out, or leave the name out")
    if watch and output not in {Form.TABLE, Form.WIDE}:
        raise typer.BadParameter("--watch shows a table; leave --output out")
    asyncio.run(_get(plural, name, all_namespaces, selector, watch, output, namespace, kubeconfig, context))


async def _get(
    plural: str,
    name: str | None,
    everywhere: bool,
    selector: str,
    watch: bool,
    form: Form,
    namespace: str | None,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    from remit.cli import tables
    from remit.cli.connect import connected
    from remit.reconcilers.kube import POLICIES, TASKS

    resource = TASKS if plural == "tasks" else POLICIES
    async with connected(kubeconfig, context, namespace) as connection:
        place = None if everywhere else connection.namespace
        if watch:
            await _watch(connection, resource, place, name, selector, form)
            return
        objects = await _objects(connection, resource, place, name, selector)
        match form:
            case Form.NAME:
                kind = "executiontask" if plural == "tasks" else "commandpolicy"
                for obj in objects:
                    typer.echo(f"{kind}.remit.dev/{obj['metadata']['name']}")
            case Form.YAML | Form.JSON:
                typer.echo(tables.dump(objects[0] if name else tables.as_list(objects), str(form)))
            case _ if not objects:
                where = "any namespace" if everywhere else f"namespace {connection.namespace}"
                typer.echo(f"no {plural} in {where}", err=True)
            case _:
                tables.show(plural, objects, wide=form is Form.WIDE, namespaces=everywhere)


async def _objects(
    connection: Connection, resource: Resource, namespace: str | None, name: str | None, selector: str
) -> list[Object]:
    from remit.cli.tasks import find_task
    from remit.reconcilers.kube import TASKS

    kube = connection.kube
    if name is None:
        return await kube.list(resource, namespace, label_selector=selector)
    if resource is TASKS:
        return [await find_task(kube, connection.namespace, name)]
    return [await kube.get(resource, connection.namespace, name)]


async def _watch(
    connection: Connection, resource: Resource, namespace: str | None, name: str | None, selector: str, form: Form
) -> None:
    """Look again each second."""
    from remit.cli import tables
    from remit.errors import ApiError

    plural = "tasks" if resource.plural == "executiontasks" else "policies"
    with tables.Watch(plural, wide=form is Form.WIDE, namespaces=namespace is None) as screen:
        while True:
            try:
                screen.update(await _objects(connection, resource, namespace, name, selector))
            except ApiError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(1)
