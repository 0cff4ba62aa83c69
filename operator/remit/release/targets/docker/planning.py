"""Plans the container of a replica: its name, its labels, and its configuration for the engine. Pure.

A service needs more than a task: its image's own user and a writable root file system, which is deleted with the
container. It has no capability, cannot gain one, and shares no namespace with the engine's host.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from remit.api.deployment import DeploymentSpec, HealthCheck
from remit.api.slots import Slot
from remit.backends.docker import labels
from remit.backends.docker.planning import has_init
from remit.errors import DeploymentError
from remit.operations.container.creating import limited
from remit.policy.limits import Limits
from remit.release.context import CRASH_LIMIT
from remit.release.model import Revision
from remit.release.target import Material
from remit.release.targets.docker.files import folders

_NANO: Final = 1_000_000_000
ON_TRIAL: Final = "on-failure"
"""The restart policy of what was never live: the engine gives it up in the end, as no operator may be left to do so."""
_MOST_RESTARTS: Final = 2 * CRASH_LIMIT
_PIDS: Final = 4096
"""The default limit of processes: more than a service needs, and few enough to leave room for others."""


@dataclass(frozen=True, slots=True)
class Owner:
    """The Deployment that containers belong to. Names in Kubernetes have no underscore, so none is mixed up here."""

    namespace: str
    name: str
    uid: str
    """Tells it from one of the same name that another operator releases to the same engine."""

    def container(self, slot: Slot, index: int) -> str:
        return f"remit_{self.namespace}_{self.name}_{slot}_{index}"

    @property
    def images(self) -> str:
        """The repository whose tags keep the images of revisions."""
        return f"remit/{self.uid}"

    @property
    def mark(self) -> str:
        """The label that all of its containers have."""
        return f"{labels.DEPLOYMENT_UID}={self.uid}"


@dataclass(frozen=True, slots=True)
class Reach:
    """How the operator reaches replicas on an engine."""

    host: str = ""
    """The IP address where their ports are published. Empty: at their own addresses, and nothing is published."""
    bind: str = ""
    """The address of the engine's host on which ports are published; empty: all."""


@dataclass(frozen=True, slots=True)
class Replica:
    """One instance: which, of what, and where."""

    owner: Owner
    slot: Slot
    index: int
    revision: Revision
    image: str
    """The image's id."""
    network: str
    """The name of that which it is in."""
    address: str = ""
    """Its address in the network; empty if it is reached by published ports."""
    live: bool = False
    """Whether it is for the side that is live."""

    @property
    def name(self) -> str:
        return self.owner.container(self.slot, self.index)


def creation(
    replica: Replica, material: Material, limits: Limits, reach: Reach, info: Mapping[str, Any]
) -> dict[str, Any]:
    """The engine's `POST /containers/create`; `info` is what the engine says of itself.

    Raises DeploymentError for files that no volume can hold.
    """
    spec, owner = replica.revision.snapshot.spec, replica.owner
    command = spec.target.docker.command if spec.target.docker else None
    ports = [f"{port.container_port}/tcp" for port in spec.ports]
    published = [{"HostIp": reach.bind, "HostPort": ""}]
    init = has_init(info)
    return {
        "Image": replica.image,
        **({"Entrypoint": command[:1], "Cmd": command[1:]} if command else {}),
        "Env": [f"{name}={value}" for name, value in material.env.items()],
        "Labels": {
            labels.NAMESPACE: owner.namespace,
            labels.DEPLOYMENT: owner.name,
            labels.DEPLOYMENT_UID: owner.uid,
            labels.REVISION: str(replica.revision.number),
            labels.SLOT: replica.slot,
            labels.INDEX: str(replica.index),
        },
        "Healthcheck": _health(engine_check(spec)),
        "ExposedPorts": {port: dict[str, str]() for port in ports},
        "StopTimeout": limits.termination_grace_period_seconds,
        "NetworkingConfig": {
            "EndpointsConfig": {
                replica.network: {"IPAMConfig": {"IPv4Address": replica.address}} if replica.address else {}
            }
        },
        "HostConfig": {
            "NetworkMode": replica.network,
            "PortBindings": dict.fromkeys(ports, published) if reach.host else {},
            # The live side outlives the operator and restarts with the engine, unless it was asked to stop.
            "RestartPolicy": {"Name": "unless-stopped"}
            if replica.live
            else {"Name": ON_TRIAL, "MaximumRetryCount": _MOST_RESTARTS},
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            **limited(limits),
            "PidsLimit": (limits.pids or _PIDS) + init,
            "Mounts": _volumes(material.files),
            # The init forwards signals: the first process of a container ignores signals without a handler.
            "Init": init,
            "LogConfig": {"Type": "local", "Config": {"max-size": "20m", "max-file": "5", "compress": "false"}},
        },
    }


def engine_check(spec: DeploymentSpec) -> HealthCheck | None:
    """The check that is a command: the engine runs it, which also ends one that takes too long. It runs no more than
    one for a container."""
    checks = (spec.health_check, spec.liveness_check)
    return next((check for check in checks if check is not None and check.command is not None), None)


def _health(check: HealthCheck | None) -> dict[str, Any]:
    """The image's own check has no say."""
    if check is None or check.command is None:
        return {"Test": ["NONE"]}
    return {
        "Test": ["CMD", *check.command.argv],
        "StartPeriod": check.initial_delay_seconds * _NANO,
        "Interval": check.period_seconds * _NANO,
        "Timeout": check.timeout_seconds * _NANO,
        "Retries": check.failure_threshold,
    }


def _volumes(files: Mapping[str, bytes]) -> list[dict[str, Any]]:
    """The image's own files in such a folder are hidden, as a mount hides them on Kubernetes."""
    if "" in folders(files):
        message = "spec.config and spec.secrets: mountPath must be a folder below /, such as /etc/shop"
        raise DeploymentError(message, reason="InvalidSpec")
    return [{"Type": "volume", "Target": path, "VolumeOptions": {"NoCopy": True}} for path in folders(files)]
