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
        int | None, options.port_option("Port; 0 picks one. By default 6443, or the next that is free.")
    ] = None,
    page_address: Annotated[
        str,
        typer.Option(
            metavar="HOST:PORT",
            help="Where the live page is, on this machine's loopback; port 0 picks one; off: no page. By default"
            " port 6480 of 127.0.0.1, or another that is free.",
            envvar="REMIT_PAGE_ADDRESS",
            show_default=False,
        ),
    ] = "",
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
    artifact_store: options.ArtifactStore = "",
    s3_endpoint: options.S3Endpoint = "",
    s3_region: options.S3Region = "",
    s3_ca_file: options.S3CaFile = None,
    s3_credentials: options.S3Credentials = None,
    finished_task_ttl: options.FinishedTaskTtl = options.FINISHED_TASK_TTL,
    output_max_age: options.OutputMaxAge = options.OUTPUT_MAX_AGE,
    max_output: options.MaxOutput = options.MAX_OUTPUT,
    artifacts_max_age: options.ArtifactsMaxAge = options.ARTIFACTS_MAX_AGE,
    audit_max_age: options.AuditMaxAge = options.AUDIT_MAX_AGE,
    max_audit: options.MaxAudit = options.MAX_AUDIT,
    read_only_path: options.ReadOnlyPaths = None,
    docker_host: options.DockerHost = options.DEFAULT_DOCKER_HOST,
    notifications: options.Notifications = None,
    no_anomalies: options.NoAnomalies = False,
    metrics_address: options.MetricsAddress = "127.0.0.1:0",
    metrics_token_file: options.MetricsTokenFile = None,
    log_format: options.LogFormat = "auto",
    log_level: options.LogLevel = "info",
    log_file: options.LogFilePath = None,
    log_max_size: options.LogMaxSize = options.LOG_MAX_SIZE,
    log_backups: options.LogBackups = options.LOG_BACKUPS,
) -> None:
    """Serve the Kubernetes API for Remit's kinds and run the operator, until interrupted.

    No cluster, no Docker and no root are needed. Stock kubectl works with the kubeconfig that this writes. Everything
    is kept in the state directory; stopped or killed at any time, the next start goes on from there. Ctrl-C stops in
    order; a second one at once.
    """
    from remit.telemetry import otlp

    otlp.signals()  # raises here, because an operator with invalid settings would only fail and restart repeatedly
    from remit.cli.notify import checked
    from remit.cli.paths import check_places
    from remit.cli.supervisor import supervisor

    health_host, health_port = options.split_address(metrics_address)
    state_dir = check_places(state_dir, read_only_path, docker_host)
    where = options.artifact_store(artifact_store, s3_endpoint, s3_region, s3_ca_file, s3_credentials)
    operator = {
        "state_dir": str(state_dir),
        "health_host": health_host,
        "health_port": health_port,
        "metrics_token_file": str(metrics_token_file.absolute()) if metrics_token_file else None,
        "operator_namespace": operator_namespace,
        "max_concurrent": max_concurrent,
        "artifact_store": where.document if where else None,
        "artifact_bytes": options.size(max_artifacts, "--max-artifacts"),
        "finished_task_ttl": options.ttl_or_off(finished_task_ttl),
        **options.retention(output_max_age, max_output, artifacts_max_age, audit_max_age, max_audit),
        "read_only_paths": [str(path) for path in read_only_path or ()],
        "docker_host": docker_host,
        "notifications": str(path) if (path := checked(notifications)) else None,
        "anomalies": not no_anomalies,
    }
    page = options.page_address(page_address)
    file = options.log_file(log_file, log_max_size, log_backups)
    threads.run(
        supervisor.up(
            supervisor.UpSettings(state_dir, host, port, kubeconfig, operator, log_format, log_level, file, page)
        )
    )
