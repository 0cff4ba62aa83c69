"""`remit uninstall`: release what an operator holds, before it is removed from a cluster."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from remit import threads
from remit.cli import options


def _workload(given: str | None) -> str | None:
    if given is not None and not re.fullmatch(r"((deployment|statefulset)/)?[a-z0-9]([-.a-z0-9]*[a-z0-9])?", given):
        raise typer.BadParameter(f"{given!r} is not NAME, deployment/NAME or statefulset/NAME")
    return given


def uninstall(
    namespaces: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", "-n", metavar="NAME", help="Namespace that the operator serves; all by default. Repeatable."
        ),
    ] = None,
    operator_namespace: options.OperatorNamespace = "remit-system",
    lease_name: options.LeaseName = options.DEFAULT_LEASE_NAME,
    workload: Annotated[
        str | None,
        typer.Option(
            metavar="[KIND/]NAME",
            help="The deployment (or statefulset/NAME) that runs the operator, to scale to zero. By default stop it "
            "yourself first.",
            callback=_workload,
        ),
    ] = None,
    timeout: Annotated[
        int,
        typer.Option(
            parser=options.number(1), metavar="SECONDS", help="How long to wait until the operator has stopped."
        ),
    ] = 60,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
) -> None:
    """Stop the operator and release what it holds, so that its installation can be removed.

    The operator ends what it runs and writes what became of it. Then its Lease is free, and Deployments have no
    finalizer that only an operator could remove. What releases made on their targets stays. `helm uninstall` does this
    by itself. Nothing is deleted, and an operator that is started again takes everything up.
    """
    threads.run(
        _uninstall(tuple(namespaces or ()), operator_namespace, lease_name, workload, timeout, kubeconfig, context)
    )


async def _uninstall(
    namespaces: tuple[str, ...],
    operator_namespace: str,
    lease_name: str,
    workload: str | None,
    timeout_seconds: float,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    from remit.cli.connect import connected
    from remit.controllers.uninstall import Uninstall

    async with connected(kubeconfig, context) as connection:
        uninstall = Uninstall(connection.kube, operator_namespace, namespaces, typer.echo, lease_name)
        await uninstall.run(workload, timeout_seconds)
