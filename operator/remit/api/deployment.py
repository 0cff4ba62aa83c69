"""Deployment: an artifact that should be live on a target, and how to get it there."""

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
    """What goes live. Exactly one of `image`, `path` and `archive` is set."""

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
    """A container image, for the docker and kubernetes targets. With a digest it is the same for ever."""
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = "IfNotPresent"
    """When to fetch the image from its registry."""
    pull_secrets: Annotated[list[Name], Field(max_length=8)] | None = None
    """Names of Secrets of type `kubernetes.io/dockerconfigjson` with the registry's credentials."""
    path: Annotated[str, Field(pattern=r"^/", max_length=4096)] | None = None
    """A directory on the operator's host, for the process target. It is copied, so later edits do not reach it."""
    archive: Annotated[str, Field(pattern=r"^(/|https?://)", max_length=2048)] | None = None
    """A tar or zip archive, for the process target, as an absolute path or an address; the latter with `sha256`."""
    sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")] | None = None
    """The archive's digest. An archive with another one is refused."""

    @property
    def address(self) -> str | None:
        """Of an archive that has to be fetched."""
        return None if self.archive is None or self.archive.startswith("/") else self.archive


class ProcessTarget(SpecModel):
    """Supervised processes on the operator's host, in a sandbox, behind a proxy."""

    command: Argv
    """The program and its arguments; started in the artifact's directory."""


class DockerTarget(SpecModel):
    """Containers on one Docker engine, behind a proxy."""

    host: Annotated[str, Field(pattern=r"^(unix|tcp|ssh)://", max_length=2048)] = "unix:///var/run/docker.sock"
    """The engine's address: `unix://`, `ssh://`, or `tcp://` with TLS."""
    tls_secret: Name | None = None
    """The Secret with `ca.crt`, `tls.crt` and `tls.key`, for `tcp://`."""
    command: Argv | None = None
    """Runs instead of the image's own entry point and command."""


class KubernetesTarget(SpecModel):
    """Two `apps/v1` Deployments, and a Service that is switched from one to the other."""

    namespace: DnsLabel | None = None
    """The namespace to release into. Not set: the object's own."""
    service_account_name: Name | None = None
    """The ServiceAccount that the pods run as. Not set: the namespace's default, without a token."""
    command: Argv | None = None
    """Runs instead of the image's own entry point and command."""


class Target(SpecModel):
    """Where the artifact goes live. Exactly one of its fields is set."""

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
        """The one that is set."""
        return next(name for name in self.exactly_one if getattr(self, name) is not None)


class Port(SpecModel):
    name: DnsLabel
    """Name of the port, by which a health check refers to it."""
    container_port: PortNumber
    """The port that the program listens on."""
    published: PortNumber | None = None
    """The port where whatever is live is reached. Not set: the same as `containerPort`."""
    app_protocol: Literal["http", "tcp"] | None = None
    """What the program speaks there. `tcp`: the proxy passes connections through as they are. Not set: `tcp` for the
    port that `healthCheck.tcp` names, and `http` for any other."""


class Mount(SpecModel):
    """The keys of a ConfigMap or Secret as read-only files. A change to it is a new revision."""

    name: Name
    """Name of the ConfigMap or Secret, in the object's own namespace."""
    mount_path: Path
    """The directory that holds one file for each key."""
    optional: bool = False
    """Go on without it when it is not there."""


class ReplicaResources(SpecModel):
    """What each replica may use; on Kubernetes also what it requests."""

    cpu: Quantity | None = None
    """Processor time, in cores, such as `500m`."""
    memory: Quantity | None = None
    """Memory, such as `512Mi`."""
    pids: Annotated[int, Field(ge=1, le=4_194_304)] | None = None
    """Processes and threads, for the process and docker targets."""


PortRef = Annotated[
    int | str, Field(json_schema_extra={"x-kubernetes-int-or-string": True, "minimum": 1, "maximum": 65535})
]


class HttpCheck(SpecModel):
    path: Annotated[str, Field(pattern=r"^/", max_length=2048)] = "/"
    """The path to ask for. Any status from 200 to 399 is healthy."""
    port: PortRef
    """The port's name or number."""
    scheme: Literal["HTTP", "HTTPS"] = "HTTP"
    """HTTPS does not verify the certificate: the check goes to an address, not to a name."""


class TcpCheck(SpecModel):
    port: PortRef
    """The name or number of the port that must accept a connection."""


class CommandCheck(SpecModel):
    argv: Argv
    """The program to run beside the replica; exit code 0 is healthy."""


class HealthCheck(SpecModel):
    """When a replica counts as healthy and gets requests. Exactly one of `http`, `tcp` and `command` is set."""

    exactly_one = ("http", "tcp", "command")

    http: HttpCheck | None = None
    """Ask for a path."""
    tcp: TcpCheck | None = None
    """Open a connection."""
    command: CommandCheck | None = None
    """Run a program."""
    initial_delay_seconds: Seconds = 0
    """How long after the start the first check is made."""
    period_seconds: Annotated[int, Field(ge=1, le=3600)] = 1
    """How long after a check the next one is made."""
    timeout_seconds: Annotated[int, Field(ge=1, le=3600)] = 2
    """How long a check may take."""
    success_threshold: Annotated[int, Field(ge=1, le=100)] = 1
    """How many checks in a row make it healthy."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """How many failed checks in a row make it unhealthy."""


class LivenessCheck(HealthCheck):
    """When a replica is beyond help and is restarted. Exactly one of `http`, `tcp` and `command` is set."""

    period_seconds: Annotated[int, Field(ge=1, le=3600)] = 10
    """How long after a check the next one is made."""
    success_threshold: Annotated[int, Field(ge=1, le=1)] = 1
    """One success ends a row of failures, so this is 1, as on Kubernetes."""
    failure_threshold: Annotated[int, Field(ge=1, le=100)] = 3
    """After how many failed checks in a row it is restarted."""


class Hook(SpecModel):
    """An ExecutionTask that a stage creates and waits for. Policies hold it like any other."""

    name: Annotated[DnsLabel, Field(max_length=40)]
    """Name of the hook; the task is named after the release, its revision and this."""
    labels: Annotated[
        dict[Annotated[str, Field(max_length=317)], Annotated[str, Field(max_length=63)]], Field(max_length=16)
    ] = {}
    """Labels for the task, by which policies select it."""
    task: TaskTemplate
    """What to run."""


HookList = Annotated[
    list[Hook],
    Field(max_length=8, json_schema_extra=map_by("name")),
]


class Proxy(SpecModel):
    """The proxy in front, for the process and docker targets."""

    max_header_bytes: Annotated[int, Field(ge=4096, le=1_048_576)] = 32_768
    """How long the head of a request, or of an answer, may be: 400 and 502 are said to longer ones."""


class Stages(SpecModel):
    """What happens around the switch."""

    pre_promotion: HookList = []
    """Run one after the other against the preview, before the switch. One that fails leaves the old side live."""
    post_promotion: HookList = []
    """Run one after the other after the switch. One that fails switches back."""
    bake_seconds: Seconds = 30
    """How long the new side is watched after the switch, before the old one is retired."""
    failure_threshold_percent: Annotated[int, Field(ge=0, le=100)] | None = None
    """How many of the requests since the switch, and of those in the last one to two minutes, may fail, in percent,
    before the release goes back: at the proxy of the process and docker targets, with a status of 500 and above, and
    from the fifth failure on. 100: any number. Not set: 5. On Kubernetes nothing counts requests, so it is refused."""


class Rollback(SpecModel):
    automatic: bool = True
    """Go back to the last good revision when something fails after the switch. Otherwise only say so."""


class RollbackTo(SpecModel):
    """A revision to return to, for those who want that intent in Git."""

    revision: Annotated[int, Field(ge=1)]
    """The revision's number in `status.history`."""


def protocol_of(spec: DeploymentSpec, port: Port) -> Literal["http", "tcp"]:
    """What the program speaks at one of its ports."""
    tcp = spec.health_check.tcp if spec.health_check else None
    checked = tcp is not None and tcp.port in (port.name, port.container_port)
    return port.app_protocol or ("tcp" if checked else "http")


def _published(port: str) -> str:
    """Where a port is published, in CEL."""
    return f"(has({port}.published) ? {port}.published : {port}.containerPort)"


def _names_a_port(check: str, how: str) -> Rule:
    return Rule(
        f"!has(self.{check}) || !has(self.{check}.{how}) || type(self.{check}.{how}.port) == int"
        f" || (has(self.ports) && self.ports.exists(p, p.name == self.{check}.{how}.port))",
        f"{check}.{how}.port names none of ports",
        f".{check}",
    )


class DeploymentSpec(SpecModel):
    """An artifact that should be live on a target, and how to get it there."""

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
        # 5 was filled in by an earlier version, and 100 asks for nothing.
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
    """What goes live."""
    target: Target
    """Where."""
    replicas: Annotated[int, Field(ge=0, le=1000)] = 1
    """How many copies run on each side. A change reaches the live side at once; it is not a new revision."""
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
    """ConfigMaps and Secrets whose keys all become environment variables; `env` wins over them. A policy must list
    every key as a name."""
    config: Annotated[list[Mount], Field(max_length=16)] = []
    """ConfigMaps as files."""
    secrets: Annotated[list[Mount], Field(max_length=16)] = []
    """Secrets as files."""
    resources: ReplicaResources = ReplicaResources.model_construct()
    """What each replica may use."""
    health_check: HealthCheck | None = None
    """When a replica counts as healthy, which is when it gets requests: Kubernetes' readiness probe. Not set: as soon
    as it runs. One that fails it later is not restarted; see `livenessCheck`."""
    liveness_check: LivenessCheck | None = None
    """When a replica that runs is restarted all the same, because it hangs: Kubernetes' liveness probe. Not set: only
    one that ended is started again."""
    termination_grace_period_seconds: Annotated[int, Field(ge=0, le=3600)] | None = None
    """How long an instance may take to end once it was told to, before it is killed; a policy may set a limit. Not set:
    5 on the process and docker targets, 30 on Kubernetes."""
    min_ready_seconds: Seconds = 0
    """How long the new side must have been healthy before requests are switched to it."""
    drain_seconds: Seconds = 30
    """How long requests in flight, WebSockets and connections may go on at a side that gets no new ones. They are cut
    after that. On the process and docker targets."""
    proxy: Proxy = Proxy.model_construct()
    """The proxy in front."""
    strategy: Strategy = Strategy.model_construct()
    """How the new side takes over from the old one."""
    stages: Stages = Stages.model_construct()
    """What happens around the switch."""
    rollback: Rollback = Rollback.model_construct()
    """What happens when a release fails."""
    rollback_to: RollbackTo | None = None
    """Return to an earlier revision: its artifact, its configuration and its secrets."""
    progress_deadline_seconds: Annotated[int, Field(ge=1, le=86_400)] = 600
    """How long a release may go without progress before it fails."""
    revision_history_limit: Annotated[int, Field(ge=0, le=100)] = 10
    """How many old revisions are kept for a rollback."""
    paused: bool = False
    """Take no further step until it is false again. What is live stays live."""


class Deployment(CustomResource):
    """An artifact that should be live on a target: released blue-green, with its history kept for a rollback."""

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
