"""Deployment: an artifact that should be live on a target, and how it is released."""

from __future__ import annotations

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from remit.api.base import EnvFromSource, EnvVar, Name, Rule, SpecModel, map_by
from remit.api.deploymentstatus import DeploymentStatus
from remit.api.executiontask import TaskTemplate
from remit.api.operations import Argv, Path
from remit.api.quantity import Quantity
from remit.api.resource import CustomResource
from remit.api.strategy import Strategy

DnsLabel = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
PortNumber = Annotated[int, Field(ge=1, le=65535)]
Seconds = Annotated[int, Field(ge=0, le=86_400)]


class Artifact(SpecModel):
    """The artifact that is released. Exactly one of `image`, `path` and `archive` is set."""

    exactly_one = ("image", "path", "archive")
    rules = (
        Rule("!has(self.sha256) || has(self.archive)", "sha256 goes with archive"),
        Rule(
            "!has(self.archive) || self.archive.startsWith('/') || has(self.sha256)",
            "an archive at an address needs sha256: what is there may change, and a rollback has to bring the same",
            ".archive",
        ),
        Rule("!has(self.pullSecrets) || has(self.image)", "pullSecrets goes with image"),
    )

    image: Annotated[str, Field(min_length=1, max_length=512)] | None = None
    """A container image, for the docker and kubernetes targets. A reference with a digest always means the same
    image."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When to pull the image from its registry."""
    pull_secrets: Annotated[list[Name], Field(max_length=8)] | None = None
    """Names of Secrets of type `kubernetes.io/dockerconfigjson` with the registry's credentials."""
    path: Annotated[str, Field(pattern=r"^/", max_length=4096)] | None = None
    """A directory on the operator's host, for the process target. The operator copies it, so later changes to the
    directory do not affect the release."""
    archive: Annotated[str, Field(pattern=r"^(/|https?://)", max_length=2048)] | None = None
    """A tar or zip archive, for the process target, as an absolute path or an HTTP address. An address needs
    `sha256`."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """The archive's SHA-256 digest. An archive with another digest is refused."""

    @property
    def address(self) -> str | None:
        """The HTTP address of the archive. None if there is no archive or if it is a file of the host."""
        return None if self.archive is None or self.archive.startswith("/") else self.archive


class ProcessTarget(SpecModel):
    """Supervised processes on the operator's host, in a sandbox, behind a proxy."""

    command: Argv
    """The program and its arguments. It is started in the artifact's directory."""


class DockerTarget(SpecModel):
    """Containers on one Docker engine, behind a proxy."""

    host: Annotated[str, Field(pattern=r"^(unix|tcp|ssh)://", max_length=2048)] = "unix:///var/run/docker.sock"
    """The engine's address: `unix://`, `ssh://`, or `tcp://` with TLS."""
    tls_secret: Name | None = None
    """The Secret with `ca.crt`, `tls.crt` and `tls.key`, for `tcp://`."""
    command: Argv | None = None
    """The program and its arguments, instead of the image's own entry point and command."""


class KubernetesTarget(SpecModel):
    """Two `apps/v1` Deployments, and a Service that is switched from one to the other."""

    namespace: DnsLabel | None = None
    """The namespace to release to. Not set: the object's own namespace."""
    service_account_name: Name | None = None
    """The ServiceAccount that the pods run as. Not set: the namespace's default ServiceAccount, without a token."""
    command: Argv | None = None
    """The program and its arguments, instead of the image's own entry point and command."""


class Target(SpecModel):
    """Where the artifact is released to. Exactly one of its fields is set."""

    exactly_one = ("process", "docker", "kubernetes")
    rules = (
        Rule(
            " && ".join(f"has(self.{kind}) == has(oldSelf.{kind})" for kind in exactly_one),
            "what runs cannot move to another kind of target; create another Deployment there",
        ),
        Rule(
            "!has(self.docker) || !has(oldSelf.docker) || self.docker.host == oldSelf.docker.host",
            "what runs cannot move to another engine; create another Deployment there",
            ".docker.host",
        ),
        Rule(
            "!has(self.kubernetes) || !has(oldSelf.kubernetes)"
            " || (has(self.kubernetes.__namespace__) == has(oldSelf.kubernetes.__namespace__)"
            " && (!has(self.kubernetes.__namespace__)"
            " || self.kubernetes.__namespace__ == oldSelf.kubernetes.__namespace__))",
            "what runs cannot move to another namespace; create another Deployment there",
            ".kubernetes.namespace",
        ),
    )

    process: ProcessTarget | None = None
    """Processes on the operator's host."""
    docker: DockerTarget | None = None
    """Containers on a Docker engine."""
    kubernetes: KubernetesTarget | None = None
    """Pods on the cluster."""

    @property
    def kind(self) -> str:
        """The name of the target that is set."""
        return next(name for name in self.exactly_one if getattr(self, name) is not None)


class Port(SpecModel):
    name: DnsLabel
    """Name of the port, by which a health check refers to it."""
    container_port: PortNumber
    """The port that the program listens on."""
    published: PortNumber | None = None
    """The port at which clients reach the live side. Not set: the same as `containerPort`."""
    app_protocol: Literal["http", "tcp"] | None = None
    """The protocol that the program speaks at this port. With `tcp` the proxy forwards connections unchanged. Not set:
    `tcp` for the port that `healthCheck.tcp` names, and `http` for any other port."""


class Mount(SpecModel):
    """The keys of a ConfigMap or Secret as read-only files. A change of its data makes a new revision."""

    name: Name
    """Name of the ConfigMap or Secret, in the object's own namespace."""
    mount_path: Path
    """The directory that contains one file for each key."""
    optional: bool = False
    """Whether to continue without the object when it does not exist."""


class ReplicaResources(SpecModel):
    """Resource limits of each replica. On Kubernetes they are also its requests."""

    cpu: Quantity | None = None
    """Processor time, in cores, such as `500m`."""
    memory: Quantity | None = None
    """Memory, in bytes, such as `512Mi`."""
    pids: Annotated[int, Field(ge=1, le=4_194_304)] | None = None
    """Number of processes and threads, for the process and docker targets."""


PortRef = Annotated[
    int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True, "minimum": 1, "maximum": 65535})
]


class HttpCheck(SpecModel):
    path: Annotated[str, Field(pattern=r"^/", max_length=2048)] = "/"
    """The path to request. Any status from 200 to 399 is healthy."""
    port: PortRef
    """The port's name or number."""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    """The scheme of the request. HTTPS does not verify the certificate, because the check connects to an address and
    not to a name."""


class TcpCheck(SpecModel):
    port: PortRef
    """The name or number of the port that must accept a connection."""


class CommandCheck(SpecModel):
    argv: Argv
    """The program to run beside the replica. Exit code 0 is healthy."""


class HealthCheck(SpecModel):
    """The check that decides whether a replica is healthy and gets requests. Exactly one of `http`, `tcp` and `command`
    is set."""

    exactly_one = ("http", "tcp", "command")

    http: HttpCheck | None = None
    """Make an HTTP request."""
    tcp: TcpCheck | None = None
    """Open a TCP connection."""
    command: CommandCheck | None = None
    """Run a program."""
    initial_delay_seconds: Seconds = 0
    """Time between the start of the replica and the first check, in seconds."""
    period_seconds: Annotated[int, Field(ge=1, le=3600)] = 1
    """Time between two checks, in seconds."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 2
    """Maximum duration of a check, in seconds."""
    success_threshold: Annotated[int, Field(ge=1, le=100)] = 1
    """Number of consecutive successful checks after which the replica is healthy."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of consecutive failed checks after which the replica is unhealthy."""


class LivenessCheck(HealthCheck):
    """The check that decides whether a running replica is restarted. Exactly one of `http`, `tcp` and `command` is
    set."""

    period_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """Time between two checks, in seconds."""
    success_threshold: Annotated[int, Field(ge=1, le=1)] = 1
    """Number of successful checks that reset the count of failures. It must be 1, as on Kubernetes."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """Number of consecutive failed checks after which the replica is restarted."""


class Hook(SpecModel):
    """An ExecutionTask that a stage creates and waits for. Policies apply to it as to any other task."""

    name: Annotated[DnsLabel, Field(max_length=40)]
    """Name of the hook. The task's name consists of the names of the release and the hook and of the revision."""
    labels: Annotated[
        dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]], Field(max_length=16)
    ] = {}
    """Labels of the task, by which policies select it."""
    task: TaskTemplate
    """The operation to run."""


HookList = Annotated[
    list[Hook],
    Field(max_length=8, json_schema_extra=map_by("name")),
]


class Proxy(SpecModel):
    """Settings of the proxy in front of the replicas, for the process and docker targets."""

    max_header_bytes: Annotated[int, Field(ge=4096, le=1_048_576)] = 32_768
    """Maximum size of the header section of a request or a response, in bytes. The proxy answers 400 to a longer
    request and 502 in place of a longer response."""


class Stages(SpecModel):
    """Settings of the stages before and after the switch."""

    pre_promotion: HookList = []
    """Hooks that run one after the other against the preview, before the switch. If one fails, the old side stays
    live."""
    post_promotion: HookList = []
    """Hooks that run one after the other after the switch. If one fails, the release is switched back."""
    bake_seconds: Seconds = 30
    """How long the new side is observed after the switch, before the old side is retired, in seconds."""
    failure_threshold_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """Maximum share of failed requests, in percent, among those since the switch and among those of the last one to two
    minutes. Above it the release is rolled back. The proxy of the process and docker targets counts a request as failed
    if its status is 500 or higher, and fewer than five failures are ignored. 100: any share is accepted. Not set: 5.
    The field is refused on Kubernetes, where requests are not counted."""


class Rollback(SpecModel):
    automatic: bool = True
    """Whether to return to the last good revision when something fails after the switch. If false, the failure is only
    reported."""


class RollbackTo(SpecModel):
    """A revision to return to, for users who declare a rollback in Git."""

    revision: Annotated[int, Field(ge=1)]
    """The revision's number in `status.history`."""


def protocol_of(spec: DeploymentSpec, port: Port) -> Literal["http", "tcp"]:
    """Returns the protocol that the program speaks at a port: `appProtocol`, or else what the health check implies."""
    tcp = spec.health_check.tcp if spec.health_check else None
    checked = tcp is not None and tcp.port in (port.name, port.container_port)
    return port.app_protocol or ("tcp" if checked else "http")


def _published(port: str) -> str:
    """Returns a CEL expression for the published port of `port`."""
    return f"(has({port}.published) ? {port}.published : {port}.containerPort)"


def _names_a_port(check: str, how: str) -> Rule:
    return Rule(
        f"!has(self.{check}) || !has(self.{check}.{how}) || type(self.{check}.{how}.port) == int"
        f" || (has(self.ports) && self.ports.exists(p, p.name == self.{check}.{how}.port))",
        f"{check}.{how}.port names none of ports",
        f".{check}",
    )


class DeploymentSpec(SpecModel):
    """An artifact that should be live on a target, and how it is released."""

    rules: ClassVar[tuple[Rule, ...]] = (
        Rule(
            "has(self.target.process) || has(self.artifact.image)",
            "targets docker and kubernetes need artifact.image",
            ".artifact",
        ),
        Rule(
            "!has(self.target.process) || !has(self.artifact.image)",
            "target process needs artifact.path or artifact.archive, not an image",
            ".artifact",
        ),
        *(_names_a_port(check, how) for check in ("healthCheck", "livenessCheck") for how in ("http", "tcp")),
        Rule(
            f"!has(self.ports) || self.ports.all(p, self.ports.exists_one(q, {_published('q')} == {_published('p')}))",
            "two of ports are published at the same one; set published",
            ".ports",
        ),
        Rule(
            "!has(self.ports) || !has(self.strategy) || !has(self.strategy.blueGreen)"
            " || !has(self.strategy.blueGreen.previewPort)"
            f" || !self.ports.exists(p, {_published('p')} == self.strategy.blueGreen.previewPort)",
            "previewPort is published already, for what is live; take another one",
            ".strategy.blueGreen.previewPort",
        ),
        # An earlier version set 5 as the default, so stored objects have it. 100 accepts any share of failures.
        Rule(
            "!has(self.target.kubernetes) || !has(self.stages) || !has(self.stages.failureThresholdPercent)"
            " || self.stages.failureThresholdPercent in [5, 100]",
            "on Kubernetes nothing counts requests, a Service does not: leave failureThresholdPercent out, and have"
            " healthCheck or a postPromotion hook decide",
            ".stages.failureThresholdPercent",
        ),
        Rule(
            "!has(self.target.docker) || !has(self.healthCheck) || !has(self.healthCheck.command)"
            " || self.healthCheck.successThreshold == 1",
            "a Docker engine runs a command itself, and one success makes it healthy: leave successThreshold at 1",
            ".healthCheck.successThreshold",
        ),
        Rule(
            "!has(self.target.docker) || !has(self.healthCheck) || !has(self.healthCheck.command)"
            " || !has(self.livenessCheck) || !has(self.livenessCheck.command)",
            "a Docker engine runs one command for a container: let healthCheck or livenessCheck be http or tcp",
            ".livenessCheck.command",
        ),
    )

    artifact: Artifact
    """The artifact that is released."""
    target: Target
    """Where the artifact is released to."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """Number of replicas on each side. A change is applied to the live side at once and makes no new revision."""
    ports: Annotated[
        list[Port],
        Field(max_length=16, json_schema_extra=map_by("name")),
    ] = []
    """The ports that the program listens on."""
    env: Annotated[
        list[EnvVar],
        Field(max_length=128, json_schema_extra=map_by("name")),
    ] = []
    """Environment variables. A policy's `environment.allow` must list each name, as for a task."""
    env_from: Annotated[list[EnvFromSource], Field(max_length=16)] = []
    """ConfigMaps and Secrets all of whose keys become environment variables. `env` overrides them. A policy's
    `environment.allow` must list every key as a name."""
    config: Annotated[list[Mount], Field(max_length=16)] = []
    """ConfigMaps to mount as files."""
    secrets: Annotated[list[Mount], Field(max_length=16)] = []
    """Secrets to mount as files."""
    resources: ReplicaResources = ReplicaResources.model_construct()
    """Resource limits of each replica."""
    health_check: HealthCheck | None = None
    """The check that decides whether a replica is healthy and gets requests, like Kubernetes' readiness probe. Not set:
    a replica is healthy as soon as it runs. A replica that fails the check later is not restarted; see
    `livenessCheck`."""
    liveness_check: LivenessCheck | None = None
    """The check that decides whether a running replica hangs and is restarted, like Kubernetes' liveness probe. Not
    set: only a replica that ended is started again."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """Time that an instance has to end after it was asked to, before it is killed, in seconds. A policy may set a
    limit. Not set: 5 on the process and docker targets, 30 on Kubernetes."""
    min_ready_seconds: Seconds = 0
    """How long the new side must have been healthy before requests are switched to it, in seconds."""
    drain_seconds: Seconds = 30
    """How long requests in flight, WebSockets and connections may continue on a side that gets no new ones, in seconds.
    After that they are closed. For the process and docker targets."""
    proxy: Proxy = Proxy.model_construct()
    """Settings of the proxy in front of the replicas."""
    strategy: Strategy = Strategy.model_construct()
    """How the new side takes over from the old one."""
    stages: Stages = Stages.model_construct()
    """Settings of the stages before and after the switch."""
    rollback: Rollback = Rollback.model_construct()
    """What happens when a release fails."""
    rollback_to: RollbackTo | None = None
    """Return to an earlier revision, including its configuration and its secrets."""
    progress_deadline_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """How long a release may make no progress before it fails, in seconds."""
    revision_history_limit: Annotated[int, Field(ge=0, le=100)] = 10
    """Number of old revisions that are kept for a rollback."""
    paused: bool = False
    """Whether the release is paused: it takes no further step until the field is false again. The live side stays
    live."""


class Deployment(CustomResource):
    """An artifact that should be live on a target. It is released blue-green, and its history is kept for rollbacks."""

    kind: Literal["Deployment"] = "Deployment"
    spec: DeploymentSpec
    status: DeploymentStatus = DeploymentStatus.model_construct()


PRINTER_COLUMNS: list[dict[str, Any]] = [
    {"name": "Phase", "type": "string", "jsonPath": ".status.phase"},
    {"name": "Stage", "type": "string", "jsonPath": ".status.stage"},
    {"name": "Active", "type": "string", "jsonPath": ".status.active"},
    {"name": "Preview", "type": "string", "jsonPath": ".status.preview"},
    {"name": "Ready", "type": "string", "jsonPath": ".status.ready"},
    {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"},
    {"name": "Strategy", "type": "string", "jsonPath": ".spec.strategy.type", "priority": 1},
    {"name": "Message", "type": "string", "jsonPath": ".status.message", "priority": 1},
]
