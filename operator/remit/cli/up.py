"""`remit up`: everything on this machine, in one process."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Annotated

import typer

from remit.cli import options


def up(
    state_dir: options.StateDir = None,
    host: Annotated[str, typer.Option(help="Address to serve on.", envvar="REMIT_HOST")] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            min=0, max=65535, help="Port; 0 picks one. By default 6443, or the next that is free.", show_default=False
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            help="Put the login into this kubeconfig too and make it the current context.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    operator_namespace: options.OperatorNamespace = "remit-system",
    max_concurrent: options.MaxConcurrent = 32,
    read_only_path: options.ReadOnlyPaths = None,
    docker_host: options.DockerHost = options.DEFAULT_DOCKER_HOST,
    metrics_address: options.MetricsAddress = "127.0.0.1:0",
    log_format: options.LogFormat = "auto",
    log_level: options.LogLevel = "info",
) -> None:
    """Serve the Kubernetes API for Remit's kinds and run the operator, until interrupted.

    No cluster, no Docker and no root are needed. Stock kubectl works with the kubeconfig that this writes. Everything
    is kept in the state directory; stopped or killed at any time, the next start goes on from there. Ctrl-C stops in
    order; a second one at once.
    """
    from remit.cli import serve

    settings = serve.settings(
        state_dir,
        metrics_address=options.split_address(metrics_address),
        operator_namespace=operator_namespace,
        max_concurrent=max_concurrent,
        read_only_paths=read_only_path,
        docker_host=docker_host,
        leader_election=False,  # the lock on the state directory is enough
    )
    redactor = serve.logging(log_format, log_level)
    asyncio.run(serve.everything(settings, redactor, host, port, kubeconfig))
