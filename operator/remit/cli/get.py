"""`remit get`: tasks, policies and Deployments as a table, or as they are; one Deployment as a tree."""

from __future__ import annotations

import asyncio
import sys
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit import threads
from remit.cli import completion, options
from remit.didyoumean import did_you_mean

if TYPE_CHECKING:
    from remit.api.endpoint import Resource
    from remit.cli.connect import Connection
    from remit.kube.client import Object

_KINDS = {
    "tasks": "tasks", "task": "tasks", "executiontasks": "tasks", "executiontask": "tasks", "et": "tasks",
    "policies": "policies", "policy": "policies", "commandpolicies": "policies", "commandpolicy": "policies",
    "cmdpol": "policies",
    "deployments": "deployments", "deployment": "deployments", "deploy": "deployments", "rdeploy": "deployments",
}  # fmt: skip
_KIND_NAMES = {"tasks": "executiontask", "policies": "commandpolicy", "deployments": "deployment"}


class Form(StrEnum):
    TABLE = "table"
    WIDE = "wide"
    NAME = "name"
    YAML = "yaml"
    JSON = "json"


def plural_of(kind: str) -> str | None:
    """Which of the three kinds is meant, as kubectl would take it."""
    return _KINDS.get(kind.lower().removesuffix(".remit.dev"))


def resource_of(plural: str) -> Resource:
    from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS

    return {"tasks": TASKS, "policies": POLICIES, "deployments": DEPLOYMENTS}[plural]


def get(
    kind: Annotated[
        str, typer.Argument(metavar="KIND", help="tasks, policies or deployments.", autocompletion=completion.kinds)
    ] = "tasks",
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="One of them; by default all.", show_default=False, autocompletion=completion.objects
        ),
    ] = None,
    all_namespaces: Annotated[bool, typer.Option("--all-namespaces", "-A", help="In every namespace.")] = False,
    selector: Annotated[
        str, typer.Option("--selector", "-l", metavar="LABELS", help="Those with these labels, such as team=data.")
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show changes until interrupted.")] = False,
    until_done: Annotated[
        bool,
        typer.Option(
            "--until-done", help="With --watch of one Deployment: end with its release; exits with 1 if that failed."
        ),
    ] = False,
    output: Annotated[
        Form, typer.Option("--output", "-o", metavar="FORM", help="table, wide, name, yaml or json.")
    ] = Form.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Show tasks, policies or Deployments.

    One Deployment is shown as a tree: what is live, what is on its way, its hooks, and what to do next.
    """
    if (plural := plural_of(kind)) is None:
        if name is not None:
            meant = did_you_mean(kind.lower(), _KINDS)
            raise typer.BadParameter(f"{kind!r} is none of tasks, policies and deployments{meant}")
        plural, name = "tasks", kind
    if name and all_namespaces:
        raise typer.BadParameter("a name is looked up in one namespace; leave -A out, or leave the name out")
    if watch and output not in {Form.TABLE, Form.WIDE}:
        raise typer.BadParameter("--watch shows a table; leave --output out")
    if plural == "deployments" and name and output is Form.TABLE:
        _show_release(name, watch, until_done, namespace, kubeconfig, context)
        return
    if until_done:
        raise typer.BadParameter("--until-done is about the release of one Deployment; name it")
    if "," in selector and not all(selector.split(",")):
        raise typer.BadParameter(f"--selector {selector!r} has an empty part between its commas")
    threads.run(_get(plural, name, all_namespaces, selector, watch, output, namespace, kubeconfig, context))


def _show_release(
    name: str, watch: bool, until_done: bool, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> None:
    """Ctrl-C is how a watch ends: it is no failure."""
    if until_done and not watch:
        raise typer.BadParameter("--until-done ends a watch; add --watch")

    async def show() -> bool:
        from remit.cli import watchrelease
        from remit.cli.connect import connected

        options = f" -n {namespace}" if namespace else ""
        async with connected(kubeconfig, context, namespace) as connection:
            if watch:
                return await watchrelease.watch(connection, name, options, until_done=until_done)
            await watchrelease.show(connection, name, options)
            return True

    try:
        good = threads.run(show())
    except KeyboardInterrupt:
        if not watch:
            raise
        return
    if not good:
        sys.exit(1)


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

    resource = resource_of(plural)
    async with connected(kubeconfig, context, namespace) as connection:
        place = None if everywhere else connection.namespace
        if watch:
            await _watch(connection, plural, resource, place, name, selector, form)
            return
        objects = await _objects(connection, resource, place, name, selector)
        match form:
            case Form.NAME:
                for obj in objects:
                    typer.echo(f"{_KIND_NAMES[plural]}.remit.dev/{obj['metadata']['name']}")
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
    if name is None:
        return await connection.kube.list(resource, namespace, label_selector=selector)
    return [await connection.find(resource, name)]


async def _watch(
    connection: Connection,
    plural: str,
    resource: Resource,
    namespace: str | None,
    name: str | None,
    selector: str,
    form: Form,
) -> None:
    """Look again each second."""
    from remit.cli import tables
    from remit.errors import ApiError

    with tables.Watch(plural, wide=form is Form.WIDE, namespaces=namespace is None) as screen:
        while True:
            try:
                screen.update(await _objects(connection, resource, namespace, name, selector))
            except ApiError as error:
                if not error.retryable:
                    raise
            await asyncio.sleep(1)
