"""`remit up`: everything on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from remit import threads
from remit.cli import options


def up(
    state_dir: options.StateDir = None,
    host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to serve on.", envvar="REMIT_HOST")
    ] = "127.0.0.1",
    port: Annotated[
        int | None,
        typer.Option(
            parser=options.number(0, 65535),
            metavar="N",
            help="Port; 0 picks one. By default 6443, or the next that is free.",
            show_default=False,
        ),
    ] = None,
    kubeconfig: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Put the login into this kubeconfig too and make it the current context.",
            dir_okay=False,
            show_default=False,
        ),
    ] = None,
    operator_namespace: options.OperatorNamespace = "remit-system",
    max_concurrent: options.MaxConcurrent = 32,
    max_artifacts: options.MaxArtifacts = "10Gi",
    read_only_path: options.ReadOnlyPaths = None,
    docker_host: options.DockerHost = options.DEFAULT_DOCKER_HOST,
    notifications: options.Notifications = None,
    metrics_address: options.MetricsAddress = "127.0.0.1:0",
    log_format: options.LogFormat = "auto",
    log_level: options.LogLevel = "info",
) -> None:
    """Serve the Kubernetes API for Remit's kinds and run the operator, until interrupted.

    No cluster, no Docker and no root are needed. Stock kubectl works with the kubeconfig that this writes. Everything
    is kept in the state directory; stopped or killed at any time, the next start goes on from there. Ctrl-C stops in
    order; a second one at once.
    """
    from remit.cli.notify import checked
    from remit.cli.paths import check_places
    from remit.cli.supervisor import supervisor

    health_host, health_port = options.split_address(metrics_address)
    state_dir = check_places(state_dir, read_only_path, docker_host)
    operator = {
        "state_dir": str(state_dir),
        "health_host": health_host,
        "health_port": health_port,
        "operator_namespace": operator_namespace,
        "max_concurrent": max_concurrent,
        "artifact_bytes": options.size(max_artifacts, "--max-artifacts"),
        "read_only_paths": [str(path) for path in read_only_path or ()],
        "docker_host": docker_host,
        "notifications": str(path) if (path := checked(notifications)) else None,
    }
    threads.run(
        supervisor.up(supervisor.UpSettings(state_dir, host, port, kubeconfig, operator, log_format, log_level))
    )
