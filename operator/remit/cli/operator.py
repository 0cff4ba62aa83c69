"""`remit operator`: the operator alone, against any API server."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

import typer

from remit import threads
from remit.cli import completion, options

if TYPE_CHECKING:
    from remit.api.executiontask import BackendName

_LEASE = "Lease"
_BACKENDS = ("kubernetes", "process", "docker")


def _backends(names: list[str] | None) -> list[str] | None:
    for name in names or ():
        if name not in _BACKENDS:
            raise typer.BadParameter(f"{name!r} is none of {', '.join(_BACKENDS)}")
    return names


def operator(
    namespaces: Annotated[
        list[str] | None,
        typer.Option(
            "--namespace",
            "-n",
            metavar="NAME",
            help="Serve only this one. Repeatable.",
            envvar="REMIT_NAMESPACES",
            autocompletion=completion.namespaces,
        ),
    ] = None,
    kubeconfig: options.Kubeconfig = None,
    context: options.Context = None,
    state_dir: options.StateDir = None,
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
    backend: Annotated[
        list[str] | None,
        typer.Option(
            metavar="NAME",
            help="Where commands may run: kubernetes, process or docker. Repeatable; the first is the default. "
            "Unless given: kubernetes on a cluster, and process where the operator is not a pod.",
            envvar="REMIT_BACKENDS",
            show_envvar=False,
            rich_help_panel="Operator",
            callback=_backends,
        ),
    ] = None,
    default_image: Annotated[
        str,
        typer.Option(
            metavar="IMAGE",
            help="The image of commands that name none. Policies need not allow it.",
            envvar="REMIT_DEFAULT_IMAGE",
            show_default=False,
            rich_help_panel="Operator",
        ),
    ] = "",
    remit_image: Annotated[
        str,
        typer.Option(
            metavar="IMAGE",
            help="The operator's own image, for file operations and egress gateways. Policies need not allow it.",
            envvar="REMIT_IMAGE",
            show_envvar=False,
            show_default=False,
            rich_help_panel="Jobs",
        ),
    ] = "",
    accept_unenforced_network: Annotated[
        bool,
        typer.Option(
            "--accept-unenforced-network",
            help="Run Jobs with network: none or restricted also where nothing enforces NetworkPolicies, so that they "
            "may connect.",
            envvar="REMIT_ACCEPT_UNENFORCED_NETWORK",
            show_envvar=False,
            rich_help_panel="Jobs",
        ),
    ] = False,
    storage_class: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="StorageClass of the workspaces of Jobs; by default the cluster's default one.",
            envvar="REMIT_STORAGE_CLASS",
            show_default=False,
            rich_help_panel="Jobs",
        ),
    ] = "",
    launchers: Annotated[
        Path,
        typer.Option(
            metavar="FOLDER",
            help="Where the programs are that Jobs start with; the operator's image has them.",
            envvar="REMIT_LAUNCHERS",
            file_okay=False,
            rich_help_panel="Jobs",
        ),
    ] = Path("/usr/libexec/remit"),
    notifications: options.Notifications = None,
    no_anomalies: options.NoAnomalies = False,
    metrics_address: options.MetricsAddress = "127.0.0.1:0",
    metrics_token_file: options.MetricsTokenFile = None,
    leader_election: Annotated[
        bool,
        typer.Option(
            "--leader-election/--no-leader-election",
            help="Hold a Lease, so that of several operators one works.",
            envvar="REMIT_LEADER_ELECTION",
            show_envvar=False,  # a terminal of 80 columns has no room for it
            rich_help_panel=_LEASE,
        ),
    ] = True,
    lease_name: options.LeaseName = options.DEFAULT_LEASE_NAME,
    replicas: Annotated[
        int | None,
        typer.Option(
            parser=options.number(0),
            metavar="N",
            rich_help_panel=_LEASE,
            help="How many operators compete for the Lease. With 1, work goes on while the Lease cannot be renewed; "
            "otherwise it ends before another one may begin.",
            envvar="REMIT_REPLICAS",
            show_default=False,
        ),
    ] = None,
    trust_requested_by: Annotated[
        bool,
        typer.Option(
            "--trust-requested-by",
            help="Believe the annotation remit.dev/requested-by; only where manifests/requested-by guards it.",
            envvar="REMIT_TRUST_REQUESTED_BY",
            rich_help_panel="Operator",
        ),
    ] = False,
    log_format: options.LogFormat = "auto",
    log_level: options.LogLevel = "info",
    log_file: options.LogFilePath = None,
    log_max_size: options.LogMaxSize = options.LOG_MAX_SIZE,
    log_backups: options.LogBackups = options.LOG_BACKUPS,
) -> None:
    """Run the operator against the cluster of the kubeconfig, or of the pod it runs in.

    The CRDs must be installed: remit crds | kubectl apply --server-side -f -
    """
    from remit.telemetry import otlp

    otlp.signals()
    from remit.cli import serve
    from remit.cli.logsetup import set_up_logs
    from remit.cli.notify import checked
    from remit.cli.paths import check_places
    from remit.controllers.settings import Settings

    health_host, health_port = options.split_address(metrics_address)
    settings = Settings(
        state_dir=check_places(state_dir, read_only_path, docker_host),
        health_host=health_host,
        health_port=health_port,
        metrics_token_file=metrics_token_file,
        namespaces=tuple(namespaces or ()),
        operator_namespace=operator_namespace,
        max_concurrent=max_concurrent,
        artifact_store=options.artifact_store(artifact_store, s3_endpoint, s3_region, s3_ca_file, s3_credentials),
        artifact_bytes=options.size(max_artifacts, "--max-artifacts"),
        finished_task_ttl=options.ttl_or_off(finished_task_ttl),
        **options.retention(output_max_age, max_output, artifacts_max_age, audit_max_age, max_audit),
        read_only_paths=tuple(read_only_path or ()),
        docker_host=docker_host,
        notifications=checked(notifications),
        anomalies=not no_anomalies,
        backends=cast("tuple[BackendName, ...]", tuple(backend or ())),
        image=default_image,
        remit_image=remit_image,
        accept_unenforced_network=accept_unenforced_network,
        lease_name=lease_name,
        launchers=launchers,
        storage_class=storage_class,
        leader_election=leader_election,
        replicas=replicas,
        trust_requested_by=trust_requested_by,
    )
    stream = options.log_file(log_file, log_max_size, log_backups)
    redactor = set_up_logs(log_format, log_level, stream=stream)
    threads.run(serve.operator(settings, redactor, kubeconfig, context))
