"""How an operator is set up. Every field is a flag of `remit operator` and a value of the chart."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

from remit.api.executiontask import BackendName
from remit.execution.artifacts.s3.location import S3Location
from remit.execution.artifacts.store import ARTIFACT_BYTES
from remit.execution.retention import DAY, Retention, Rule
from remit.kube.lease import LEASE_NAME
from remit.operations.command import SEARCH_PATH
from remit.sandbox import KILL_GRACE_SECONDS
from remit.userpaths import default_state_dir

DEFAULT_DOCKER_HOST = "unix:///var/run/docker.sock"


@dataclass(frozen=True, slots=True)
class Settings:
    namespaces: tuple[str, ...] = ()
    """Namespaces to serve; empty: all."""
    operator_namespace: str = "remit-system"
    """The namespace of the Lease and of the policies that are the ceiling for all others."""
    state_dir: Path = field(default_factory=default_state_dir)
    """The run store and the audit trail. One operator at a time."""
    max_concurrent: int = 32
    """Attempts running at once."""
    workers: int = 16
    """Objects reconciled at once."""
    resync_seconds: float = 300
    """How often all objects are listed and reconciled, independently of watches, in seconds."""
    notifications: Path | None = None
    """The configuration of `remit.notifications`. None: no notifications are sent."""
    health_host: str = "127.0.0.1"
    health_port: int = 0
    """The port that serves /metrics, /healthz and /readyz; 0 picks a free one."""
    metrics_token_file: Path | None = None
    """The file with the token that /metrics asks for; None: it is open to everybody who reaches it."""
    search_path: tuple[str, ...] = SEARCH_PATH
    """Folders in which bare program names are looked up."""
    read_only_paths: tuple[Path, ...] = ()
    """Further directories of the host that sandboxes may read, for programs outside /usr."""
    trust_requested_by: bool = False
    """Believe the annotation that says who created a task. Only where admission policies guard it."""
    only_user: str = ""
    """The one user that the API server knows, where it knows but one."""
    docker_host: str = DEFAULT_DOCKER_HOST
    """The Docker engine for containers, as `unix://` and a path; `off`: none. It is not looked for until it is used."""
    backends: tuple[BackendName, ...] = ("process", "docker")
    """Where commands and scripts may run; the first is where those run that do not say. Empty: found out at the start,
    see `remit.controllers.placing`."""
    image: str = ""
    """The container image of what does not name one. Policies need not allow it."""
    remit_image: str = ""
    """An image with this version of Remit, of which file operations and the egress gateways of Jobs with
    `network: restricted` run; empty: the former are no Jobs, and the latter are refused. Policies need not allow it."""
    launchers: Path = Path("/usr/libexec/remit")
    """The folder with the programs that Jobs start with, see `remit.backends.kubernetes.launcher`."""
    accept_unenforced_network: bool = False
    """Whether Jobs with `network: none` or `restricted` run where nothing enforces NetworkPolicies, and so may connect
    to anything."""
    storage_class: str = ""
    """The storage class of the claims of Jobs' workspaces; empty: the cluster's default."""
    in_pod: bool = field(default_factory=lambda: "KUBERNETES_SERVICE_HOST" in os.environ)
    """Whether this operator is itself a pod of a cluster."""
    artifact_store: S3Location | None = None
    """The object store of artifacts; None: they are kept in the state directory."""
    artifact_bytes: int = ARTIFACT_BYTES
    """How much all artifacts together may have; beyond it the oldest go."""
    finished_task_ttl: int | None = 7 * 86400
    """Seconds after its end that a task with a generated name is deleted, where its spec does not say; None: never."""
    artifact_age_seconds: float | None = 90 * DAY
    """After which the artifacts of a task go, unless they are to be kept longer; None: never."""
    output_bytes: int | None = 10 * 1024**3
    """How much the output of all that has ended may have together; None: without limit."""
    output_age_seconds: float | None = 30 * DAY
    """After which it goes; None: never."""
    audit_bytes: int | None = 10 * 1024**3
    """How much the audit trail may have; beyond it the oldest closed files go. None: without limit."""
    audit_age_seconds: float | None = None
    """After which a closed file of the audit trail goes; None: never."""
    anomalies: bool = True
    """Whether runs that differ much from earlier runs are reported."""
    lease_name: str = LEASE_NAME
    """The name of the Lease. Operators in one namespace that serve different namespaces need different names."""
    leader_election: bool = True
    """Hold a Lease, so that of several operators one works."""
    replicas: int | None = None
    """How many operators compete for the Lease. With 1, work does not end because the Lease cannot be renewed: only
    because another holder is seen. None: unknown, and so possibly more than one."""
    lease_duration: int = 15
    """Seconds without a renewal after which another operator takes the Lease."""
    renew_deadline: float = 10
    """Seconds after which an operator that cannot renew the Lease has ended all its work. Less than the duration."""
    retry_period: float = 2
    """Seconds between two renewals, and between two looks of an operator that waits."""
    kill_grace: float = KILL_GRACE_SECONDS
    """Seconds that the work of an operator may take to die after its deadline."""

    @property
    def retention(self) -> Retention:
        return Retention(
            output=Rule(self.output_age_seconds, self.output_bytes),
            artifacts=Rule(self.artifact_age_seconds, self.artifact_bytes),
            audit=Rule(self.audit_age_seconds, self.audit_bytes),
        )
