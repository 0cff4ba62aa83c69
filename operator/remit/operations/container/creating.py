"""Puts together what a container is created from: the safe defaults, and what the operation asks for beyond them.
Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from remit.api.containers import ContainerOptions
from remit.api.operations import ContainerOperation
from remit.backends.docker import labels
from remit.backends.docker.planning import LOG
from remit.backends.failure import OperationFailed
from remit.operations.base import OperationRequest
from remit.policy.limits import Limits

STARTED_BY: Final = "remit.dev/started-by"
"""The attempt of a task that made the container, so that no other undoes it."""
REMOVED: Final = "remit.dev/remove"
"""Label of a container that is removed when it has ended."""
_RESTART: Final = {"Always": "always", "OnFailure": "on-failure", "Never": "no"}
_NANO: Final = 1_000_000_000


def container_name(request: OperationRequest, container: ContainerOperation) -> str:
    """The name that was asked for, or else one that is the same for every attempt of the task."""
    return container.name or f"remit-{request.id.rpartition('-')[0]}"


def creation(request: OperationRequest, container: ContainerOperation, env: Mapping[str, str]) -> dict[str, Any]:
    """The engine's `POST /containers/create`. Raises `OperationFailed` for options that contradict each other."""
    options = container.options or ContainerOptions()
    ports = {f"{port.container_port}/{port.protocol}": port for port in options.ports}
    config: dict[str, Any] = {
        "Image": container.image,
        "Env": [f"{name}={value}" for name, value in env.items()],
        "Labels": {
            labels.NAMESPACE: request.namespace,
            labels.TASK: request.task,
            labels.UID: request.id.rpartition("-")[0],
            STARTED_BY: request.id,
            **({REMOVED: "true"} if container.remove else {}),
        },
        "ExposedPorts": {name: {} for name in ports},
        "HostConfig": {
            **limited(request.limits),
            "NetworkMode": _network(options),
            "Privileged": options.privileged,
            "CapDrop": ["ALL"],
            "CapAdd": list(options.capabilities),
            "SecurityOpt": ["no-new-privileges"],
            "PidMode": "host" if options.host_pid else "",
            "IpcMode": "host" if options.host_ipc else "private",
            "Devices": [
                {"PathOnHost": path, "PathInContainer": path, "CgroupPermissions": "rwm"} for path in options.devices
            ],
            "Mounts": [
                {"Type": "bind", "Source": mount.source, "Target": mount.target, "ReadOnly": mount.read_only}
                for mount in options.mounts
            ],
            "PortBindings": {
                name: [{"HostIp": port.host_address, "HostPort": str(port.host_port)}] for name, port in ports.items()
            },
            "RestartPolicy": {"Name": _RESTART[options.restart_policy or "Never"]},
            # An operator that was restarted continues to read the output of a container with `wait` from this log.
            **({"LogConfig": dict(LOG)} if container.wait else {}),
        },
    }
    if options.privileged:  # the engine does not accept a list of capabilities for a privileged container
        config["HostConfig"] |= {"CapDrop": [], "CapAdd": []}
    if container.argv:
        config |= {"Entrypoint": container.argv[:1], "Cmd": container.argv[1:]}
    return config | ({"User": options.user} if options.user else {})


def environment(container: ContainerOperation, request: OperationRequest) -> dict[str, str]:
    """The variables of `run` and `exec`. Raises `OperationFailed` for a value that is not text."""
    env: dict[str, str] = {}
    for index, variable in enumerate(container.env):
        if variable.value_from is None:
            env[variable.name] = variable.value or ""
            continue
        start = f"env[{index}].valueFrom."
        found = next((value for path, value in request.values.items() if path.startswith(start)), None)
        if found is not None:  # an optional object may not exist
            try:
                env[variable.name] = found.decode()
            except UnicodeDecodeError:
                raise invalid(f"the value for env {variable.name} is not text") from None
    return env


def image_of(container: ContainerOperation) -> str:
    """Raises `OperationFailed` where there is none."""
    if container.image is None:
        raise invalid(f"{container.action} needs spec.container.image")
    return container.image


def invalid(message: str) -> OperationFailed:
    return OperationFailed("Invalid", message, retryable=False)


def limited(limits: Limits) -> dict[str, Any]:
    """Limits in the words of `HostConfig`. Memory counts swap, as everywhere in Remit."""
    ulimits = {"nofile": limits.open_files, "fsize": limits.file_size}
    return {
        "Memory": limits.memory or 0,
        "MemorySwap": limits.memory or 0,
        "NanoCpus": int((limits.cpu or 0) * _NANO),
        "PidsLimit": limits.pids,
        "Ulimits": [{"Name": name, "Soft": most, "Hard": most} for name, most in ulimits.items() if most is not None],
    }


def _network(options: ContainerOptions) -> str:
    if options.host_network and (options.network or options.ports):
        raise _contradiction("hostNetwork is the host's own network; leave out network and ports")
    if options.ports and not options.network:
        raise _contradiction("ports are published from a network; set network too, such as bridge")
    return "host" if options.host_network else options.network or "none"


def _contradiction(message: str) -> OperationFailed:
    return invalid(f"spec.container.options: {message}")
