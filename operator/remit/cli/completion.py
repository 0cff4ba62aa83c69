"""Completes commands for the shell. A server that does not answer at once completes nothing."""

from __future__ import annotations

import asyncio
import contextlib
import io
import os
import shlex
import sys
from collections.abc import Coroutine, Sequence
from typing import TYPE_CHECKING, Any

import typer

from remit import threads

if TYPE_CHECKING:
    from remit.api.endpoint import Resource

KINDS = ("tasks", "policies", "deployments")
_SECONDS = 5
"""How long a server may take, once what it is asked with has been imported."""
_FILES, _NO_FILES = ":0", ":4"
"""Cobra's directives, by which kubectl offers names of files, or none."""


def tasks(ctx: typer.Context, incomplete: str) -> list[str]:
    from remit.kube.client import TASKS

    return _names(TASKS, ctx.params, incomplete)


def deployments(ctx: typer.Context, incomplete: str) -> list[str]:
    from remit.kube.client import DEPLOYMENTS

    return _names(DEPLOYMENTS, ctx.params, incomplete)


def namespaces(ctx: typer.Context, incomplete: str) -> list[str]:
    from remit.kube.client import NAMESPACES

    return _names(NAMESPACES, ctx.params, incomplete)


def codes(incomplete: str) -> list[str]:
    from remit.reasons import CATALOGUE

    return _beginning(sorted(CATALOGUE), incomplete)


def kinds(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the kinds of `remit get`, whose first argument may also be a task."""
    return _beginning(KINDS, incomplete) or tasks(ctx, incomplete)


def objects(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the names of objects of the kind that `remit get` was given."""
    from remit.cli.get import plural_of, resource_of

    plural = plural_of(str(ctx.params.get("kind") or ""))
    return _names(resource_of(plural), ctx.params, incomplete) if plural else []


def phases(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the phases of the kinds that `remit get` was given, and leave out those that the list has already."""
    from remit.cli.get import plurals_of
    from remit.describe.selection import PHASES

    plurals = plurals_of(_first_word(ctx) or str(ctx.params.get("kind") or "")) or ("tasks",)
    before, comma, last = incomplete.rpartition(",")
    known = dict.fromkeys(phase for plural in plurals for phase in PHASES.get(plural, ()))
    taken = before.split(",")
    return [f"{before}{comma}{phase}" for phase in _beginning([*known], last) if phase not in taken]


def orders(incomplete: str) -> list[str]:
    from remit.describe.selection import ORDERS

    return _beginning(ORDERS, incomplete)


def revisions(ctx: typer.Context, incomplete: str) -> list[str]:
    """Complete the revisions of the Deployment that was named, the newest first."""
    name = ctx.params.get("name") or _first_word(ctx)
    if name is None:
        return []

    from remit.cli.connect import connected
    from remit.kube.client import DEPLOYMENTS

    async def fetch() -> list[str]:
        async with connected(**_place(ctx.params)) as connection:
            found = await connection.kube.get(DEPLOYMENTS, connection.namespace, str(name))
        history = found.get("status", {}).get("history", [])
        return [str(each["revision"]) for each in history if "revision" in each]

    return _beginning(_fetched(fetch()), incomplete)


def contexts(ctx: typer.Context, incomplete: str) -> list[str]:
    from remit.kube.kubeconfig import context_names

    return _beginning(context_names(ctx.params.get("kubeconfig")), incomplete)


def for_kubectl() -> None:
    """The entry point of `kubectl_complete-remit`, which kubectl runs with the words after `kubectl remit`."""
    from remit.cli.app import app

    os.environ["_REMIT_COMPLETE"] = "complete_fish"
    os.environ["_TYPER_COMPLETE_FISH_ACTION"] = "get-args"
    *before, incomplete = sys.argv[1:] or [""]
    typed = shlex.quote(incomplete) if incomplete else ""
    os.environ["_TYPER_COMPLETE_ARGS"] = f"{shlex.join(['remit', *before])} {typed}"
    os.environ["COLUMNS"] = "1000"  # so that each description is on one line
    output = io.StringIO()
    with contextlib.redirect_stdout(output), contextlib.suppress(SystemExit):
        app(prog_name="remit")
    offered = [line for line in output.getvalue().splitlines() if line]
    sys.stdout.write("".join(f"{line}\n" for line in (*offered, _NO_FILES if offered else _FILES)))


def _first_word(ctx: typer.Context) -> str | None:
    """A flag that still lacks its value keeps the parser from giving the words before it their names."""
    return next((word for word in ctx.args if not word.startswith("-")), None)


def _names(resource: Resource, options: dict[str, Any], incomplete: str) -> list[str]:
    from remit.cli.connect import connected
    from remit.describe.connection import names_of

    async def fetch() -> list[str]:
        async with connected(**_place(options)) as connection:
            return await names_of(connection.kube, resource, connection.namespace)

    return _beginning(_fetched(fetch()), incomplete)


def _place(options: dict[str, Any]) -> dict[str, Any]:
    return {name: options.get(name) for name in ("kubeconfig", "context", "namespace")}


def _fetched(fetch: Coroutine[Any, Any, list[str]]) -> list[str]:
    from remit.errors import RemitError

    async def bounded() -> list[str]:
        async with asyncio.timeout(_SECONDS):
            return await fetch

    with contextlib.suppress(RemitError, TimeoutError, OSError):
        return threads.run(bounded())
    return []


def _beginning(names: Sequence[str], incomplete: str) -> list[str]:
    return [name for name in names if name.startswith(incomplete)]
