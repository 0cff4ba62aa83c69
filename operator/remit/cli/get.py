"""`remit get`: tasks, policies and Deployments as a table, or as they are; one Deployment as a tree."""

from __future__ import annotations

import asyncio
import datetime
import json
import sys
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from remit import threads
from remit.cli import completion, options
from remit.didyoumean import did_you_mean

if TYPE_CHECKING:
    from remit.api.endpoint import Resource
    from remit.describe.connection import Connection
    from remit.describe.selection import Selection
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
    """The plural of the kind that is meant, in any form that kubectl accepts; None for another kind."""
    return _KINDS.get(kind.lower().removesuffix(".remit.dev"))


def resource_of(plural: str) -> Resource:
    from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS

    return {"tasks": TASKS, "policies": POLICIES, "deployments": DEPLOYMENTS}[plural]


def get(
    kind: Annotated[
        str,
        typer.Argument(
            metavar="KIND",
            help="tasks, policies or deployments; several with commas between them, or all.",
            autocompletion=completion.kinds,
        ),
    ] = "tasks",
    name: Annotated[
        str | None,
        typer.Argument(
            metavar="NAME", help="One of them; by default all.", show_default=False, autocompletion=completion.objects
        ),
    ] = None,
    all_namespaces: options.AllNamespaces = False,
    selector: options.Selector = "",
    phase: Annotated[
        str,
        typer.Option(
            metavar="PHASES",
            help="Those in one of these phases, such as Failed,Denied.",
            autocompletion=completion.phases,
        ),
    ] = "",
    since: Annotated[
        str,
        typer.Option(metavar="TIME", help="Those that were created, started or ended since: RFC 3339, or 1h, 2d ago."),
    ] = "",
    unusual: Annotated[
        bool, typer.Option("--unusual", help="Tasks that took much more or less than those before that are like them.")
    ] = False,
    sort_by: Annotated[
        str,
        typer.Option(
            metavar="ORDER",
            help="name, created or changed (both newest first), phase, or a path such as .status.exitCode; by default"
            " name, and created with --watch.",
            autocompletion=completion.orders,
        ),
    ] = "",
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Show changes until interrupted.")] = False,
    until_done: Annotated[
        bool,
        typer.Option(
            "--until-done", help="With --watch of one Deployment: end with its release; exits with 1 if that failed."
        ),
    ] = False,
    output: Annotated[
        Form,
        typer.Option(
            "--output", "-o", metavar="FORM", help="table, wide, name, yaml or json; with --watch, json is a line each."
        ),
    ] = Form.TABLE,
    namespace: options.Namespace = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Show tasks, policies or Deployments.

    One Deployment is shown as a tree: what is live, what is on its way, its hooks, and what to do next.
    """
    if (plurals := plurals_of(kind)) is None:
        if name is not None or "," in kind:
            wrong = next(word for word in kind.split(",") if plural_of(word) is None)
            meant = did_you_mean(wrong.lower(), _KINDS)
            raise typer.BadParameter(f"{wrong!r} is none of tasks, policies and deployments{meant}")
        plurals, name = ("tasks",), kind
    if name and all_namespaces:
        raise typer.BadParameter("a name is looked up in one namespace; leave -A out, or leave the name out")
    if name and (phase or since or sort_by or unusual or len(plurals) > 1):
        raise typer.BadParameter("a name says which object is meant; leave it out, or the other kinds and choices")
    if unusual and "tasks" not in plurals:
        raise typer.BadParameter("--unusual is about tasks")
    if watch and output in {Form.YAML, Form.NAME}:
        raise typer.BadParameter("--watch shows a table, or with -o json a line for each change")
    if plurals == ("deployments",) and name and output is Form.TABLE:
        _show_release(name, watch, until_done, namespace, kubeconfig, context)
        return
    if until_done:
        raise typer.BadParameter("--until-done is about the release of one Deployment; name it")
    if "," in selector and not all(selector.split(",")):
        raise typer.BadParameter(f"--selector {selector!r} has an empty part between its commas")
    selection = replace(_selection(plurals, phase, since, sort_by, watch), unusual=unusual)
    asked = Asked(plurals, name, all_namespaces, selector, selection, output)
    show = _follow if watch and output is Form.JSON else _redraw if watch else _get
    try:
        threads.run(show(asked, sort_by != "", namespace, kubeconfig, context))
    except KeyboardInterrupt:  # the user ends a watch with Ctrl-C, which is not a failure
        if not watch:
            raise


@dataclass(frozen=True)
class Asked:
    """The request of what is to be shown."""

    plurals: tuple[str, ...]
    name: str | None
    everywhere: bool
    selector: str
    selection: Selection
    form: Form


def plurals_of(kinds: str) -> tuple[str, ...] | None:
    """The kinds of a list such as `tasks,policies`; None where one of them is none."""
    if kinds.lower() == "all":
        return tuple(_KIND_NAMES)
    found = [plural_of(word) for word in kinds.split(",")]
    return None if None in found else tuple(dict.fromkeys(plural for plural in found if plural))


def _selection(plurals: tuple[str, ...], phase: str, since: str, sort_by: str, watch: bool) -> Selection:
    """Raises typer's usage error."""
    from remit.describe import selection
    from remit.describe.audittrail import moment

    flag = "--phase"
    try:
        phases = selection.phases(phase, plurals) if phase else frozenset[str]()
        flag = "--since"
        begun = moment(since, datetime.datetime.now(datetime.UTC)) if since else None
        flag = "--sort-by"
        chosen = selection.order(sort_by) if sort_by else "created" if watch else ""
    except ValueError as error:
        raise typer.BadParameter(f"{flag}: {error}") from None
    return selection.Selection(phases, begun, chosen)


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
    asked: Asked, _in_order: bool, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> None:
    from remit.cli import tables
    from remit.cli.connect import connected

    async with connected(kubeconfig, context, namespace) as connection:
        found = {plural: await _objects(connection, plural, asked) for plural in asked.plurals}
        where = "any namespace" if asked.everywhere else f"namespace {connection.namespace}"
    every = [obj for objects in found.values() for obj in objects]
    if asked.form in {Form.YAML, Form.JSON}:
        typer.echo(tables.dump(every[0] if asked.name else tables.as_list(every), str(asked.form)))
        return
    drawn = False
    for plural, objects in found.items():
        if asked.form is Form.NAME:
            for obj in objects:
                typer.echo(f"{_KIND_NAMES[plural]}.remit.dev/{obj['metadata']['name']}")
        elif objects:
            if drawn:
                typer.echo()
            tables.show(plural, objects, wide=asked.form is Form.WIDE, namespaces=asked.everywhere)
            drawn = True
    if not every and asked.form is not Form.NAME:
        such = " like that" if asked.selection.phases or asked.selection.since or asked.selection.unusual else ""
        typer.echo(f"no {' or '.join(asked.plurals)}{such} in {where}", err=True)


async def _objects(connection: Connection, plural: str, asked: Asked) -> list[Object]:
    resource, namespace = resource_of(plural), None if asked.everywhere else connection.namespace
    if asked.name is not None:
        return [await connection.find(resource, asked.name)]
    return asked.selection.of(await connection.kube.list(resource, namespace, label_selector=asked.selector))


async def _redraw(
    asked: Asked, in_order: bool, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> None:
    """Look again each second."""
    from remit.cli import tables
    from remit.cli.connect import connected
    from remit.errors import ApiError

    wide = asked.form is Form.WIDE
    async with connected(kubeconfig, context, namespace) as connection:
        with tables.Watch(wide=wide, namespaces=asked.everywhere, in_order=in_order) as screen:
            while True:
                try:
                    screen.update({plural: await _objects(connection, plural, asked) for plural in asked.plurals})
                except ApiError as error:
                    if not error.retryable:
                        raise
                await asyncio.sleep(1)


async def _follow(
    asked: Asked, _in_order: bool, namespace: str | None, kubeconfig: Path | None, context: str | None
) -> None:
    """One line of JSON for each object that is there, and for each change of one: its newest state. Raises
    `RemitError` once the server has not answered for a while."""
    from remit.cli.connect import connected

    async with connected(kubeconfig, context, namespace) as connection:
        if asked.name is not None:
            await connection.find(resource_of(asked.plurals[0]), asked.name)
        await asyncio.gather(*(_print_changes(connection, plural, asked) for plural in asked.plurals))


async def _print_changes(connection: Connection, plural: str, asked: Asked) -> None:
    from remit.describe.audittrail import as_json
    from remit.kube.informer import Informer

    place = None if asked.everywhere else connection.namespace
    field = f"metadata.name={asked.name}" if asked.name else ""
    selector = {"label_selector": asked.selector, "field_selector": field}
    async with Informer(connection.kube, resource_of(plural), place, **selector) as informer:  # type: ignore[arg-type]
        with informer.subscribe() as news:
            while True:
                change = await news.next()
                if change is not None and change.type != "DELETED" and asked.selection.takes(change.object):
                    typer.echo(as_json(json.dumps(change.object, ensure_ascii=False).encode()))
                    sys.stdout.flush()
