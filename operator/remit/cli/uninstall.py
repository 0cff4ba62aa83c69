"""`remit uninstall`: release what an operator holds, before it is removed from a cluster."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remit import threads
from remit.cli import options


def uninstall(
    namespaces: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace", "-n", metavar="NAME", help="Namespace that the operator serves; all by default. Repeatable."
        ),
    ] = None,
    operator_namespace: options.OperatorNamespace = "remit-system",
    workload: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="The apps/v1 Deployment that runs the operator, to scale to zero. By default stop it yourself first.",
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
    threads.run(_uninstall(tuple(namespaces or ()), operator_namespace, workload, timeout, kubeconfig, context))


async def _uninstall(
    namespaces: tuple[str, ...],
    operator_namespace: str,
    workload: str | None,
    timeout_seconds: float,
    kubeconfig: Path | None,
    context: str | None,
) -> None:
    from remit.cli.connect import connected
    from remit.controllers.uninstall import Uninstall

    async with connected(kubeconfig, context) as connection:
        await Uninstall(connection.kube, operator_namespace, namespaces, typer.echo).run(workload, timeout_seconds)
