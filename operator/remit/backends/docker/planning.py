"""How an attempt is confined in a container: what the engine is told, and what that amounts to. Pure."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from remit.backends.base import AttemptRequest
from remit.backends.docker import labels, pause
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import NETWORK_PACE, NOT_ENFORCED, Confinement, Layer

USER: Final = 65534
"""Nobody: as whom an attempt runs, whatever the image says."""
_WRITABLE: Final = ("/workspace", "/tmp")  # noqa: S108 (the container's own)
LOG: Final[Mapping[str, Any]] = MappingProxyType(
    {"Type": "local", "Config": {"max-size": "20m", "max-file": "5", "compress": "false"}}
)
"""Holds raw bytes, and no more than 100 MiB; from it a new operator takes up the output so far."""
_FLAGS: Final = "nosuid,nodev,mode=1777"
_NANO: Final = 1_000_000_000
_NO_DISK_PACE: Final = (
    "spec.resources.diskBytesPerSecond: the backend docker cannot hold it, as an engine does not tell which disks its"
    " host has, and only warns of a limit that it cannot hold; leave it out, or use backend: process"
)
_NO_NETWORK_PACE: Final = (
    "spec.resources.networkBytesPerSecond cannot be held with network: host; use network: restricted"
)


@dataclasses.dataclass(frozen=True, slots=True)
class Walls:
    """What is in force in a container, what is not, and what holds each limit."""

    layers: tuple[Layer, ...]
    missing: tuple[Layer, ...]
    enforced_by: Mapping[str, str]


def container_name(attempt_id: str) -> str:
    """The same for an attempt wherever and whenever it is asked for."""
    return f"remit-{attempt_id}"


def walls(confinement: Confinement, info: Mapping[str, Any]) -> Walls:
    """What the engine that says `info` of itself gives.

    Raises:
        SandboxUnavailable: a required layer is missing, or a limit that is asked for cannot be held.
    """
    seccomp = [option.split(",") for option in info.get("SecurityOptions") or [] if option.startswith("name=seccomp")]
    filtered = any("profile=unconfined" not in option for option in seccomp)  # as an engine may be told to run
    counted = bool(info.get("MemoryLimit") and info.get("PidsLimit") and info.get("CpuCfsQuota"))
    given = {Layer.NAMESPACES: True, Layer.RLIMITS: True, Layer.SECCOMP: filtered, Layer.CGROUP: counted}
    layers = tuple(layer for layer in Layer if given.get(layer))
    missing = tuple(layer for layer in Layer if layer not in layers)
    if lacking := sorted(confinement.require & set(missing)):
        raise SandboxUnavailable(
            f"the backend docker has no {', '.join(lacking)} here, and a policy requires it; use backend: process"
        )
    if confinement.network == "restricted" and info.get("Architecture") not in pause.ARCHITECTURES:
        known = " and ".join(sorted(set(pause.ARCHITECTURES.values())))
        raise SandboxUnavailable(
            f"the backend docker restricts the network to hosts on {known}, and its engine is on"
            f" {info.get('Architecture') or 'an unknown one'}; use network: none, or backend: process"
        )
    limits, name = confinement.limits, f"cgroup v{info.get('CgroupVersion', '1')}"
    pace = NETWORK_PACE[confinement.network]
    if limits.disk_bytes_per_second is not None:
        raise SandboxUnavailable(_NO_DISK_PACE)
    if limits.network_bytes_per_second is not None and pace == NOT_ENFORCED:
        raise SandboxUnavailable(_NO_NETWORK_PACE)
    held = {
        "memory_bytes": f"{name} memory",
        "cpu_cores": f"{name} cpu",
        "pids": f"{name} pids",
        "disk_bytes": "tmpfs size",
        "file_bytes": "rlimit FSIZE",
        "open_files": "rlimit NOFILE",
        "network_bytes_per_second": pace,
    }
    return Walls(layers, missing, {field: by for field, by in held.items() if getattr(limits, field) is not None})


def private_folders(request: AttemptRequest) -> list[str]:
    """Where volumes for private files are mounted. Raises `InvalidInput` for files that would hide the workspace."""
    folders: dict[str, None] = {}
    for path in request.files:
        folder = path.rpartition("/")[0]
        if not folder or any(f"{folder}/".startswith(f"{place}/") for place in _WRITABLE):
            message = (
                f"the backend docker cannot place a private file at {path}; put it below /run, or use backend: process"
            )
            raise InvalidInput(message)
        folders[folder] = None
    # A volume within another would have to be mounted after it; the engine sorts them by their depth.
    return sorted(folders)


def missing_working_dir(request: AttemptRequest) -> str | None:
    """None, or why an attempt cannot start where it should: an engine would make the directory, as root."""
    path = request.confinement.working_dir
    if posixpath.normpath(path) == _WRITABLE[0]:
        return None
    return f"spec.workingDir {path} is not there: in a container, {_WRITABLE[0]} is the only one; leave it out"


def creation(
    request: AttemptRequest,
    image: Mapping[str, Any],
    info: Mapping[str, Any],
    network: str,
    proxy: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    """The engine's `POST /containers/create` for an attempt in `image`, as the engine inspected it.

    `network` is its mode, in the engine's words; `proxy` is the environment by which programs find the way out.
    """
    command, limits = request.command, request.confinement.limits
    # Volumes that the image declares would be a disk without a limit.
    folders = private_folders(request)
    places = dict.fromkeys([*_WRITABLE, *(path for path in declared_volumes(image) if path not in folders)])
    ulimits = {"nofile": limits.open_files, "fsize": limits.file_bytes}
    return {
        "Image": image["Id"],
        # The image's entry point has no say, nor have its user and its health check.
        "Entrypoint": [command.executable or command.argv[0]],
        "Cmd": list(command.argv[1:]),
        "User": f"{USER}:{USER}",
        "Healthcheck": {"Test": ["NONE"]},
        "Env": [f"{name}={value}" for name, value in {**command.env, **proxy}.items()],
        "WorkingDir": request.confinement.working_dir,
        "OpenStdin": bool(command.stdin),
        "StdinOnce": bool(command.stdin),
        "Labels": attempt_labels(request),
        "HostConfig": {
            "NetworkMode": network,
            "ReadonlyRootfs": True,
            "ShmSize": limits.disk_bytes or 0,
            "Mounts": [
                *(in_memory(place, limits.disk_bytes) for place in places),
                *({"Type": "volume", "Target": folder} for folder in folders),
            ],
            "CapDrop": ["ALL"],
            "SecurityOpt": ["no-new-privileges"],
            "IpcMode": "private",
            "Memory": limits.memory_bytes or 0,
            "MemorySwap": limits.memory_bytes or 0,
            "NanoCpus": int((limits.cpu_cores or 0) * _NANO),
            "PidsLimit": None if limits.pids is None else limits.pids + has_init(info),
            "Ulimits": [
                {"Name": name, "Soft": most, "Hard": most} for name, most in ulimits.items() if most is not None
            ],
            # An init passes signals on: the first process of a container ignores what it has no handler for.
            "Init": has_init(info),
            "LogConfig": dict(LOG),
            "RestartPolicy": {"Name": "no"},
        },
    }


def attempt_labels(request: AttemptRequest) -> dict[str, str]:
    """On every container of an attempt."""
    env = request.command.env
    return {
        labels.NAMESPACE: env.get("REMIT_TASK_NAMESPACE", ""),
        labels.TASK: env.get("REMIT_TASK_NAME", ""),
        labels.UID: request.id.rpartition("-")[0],
        labels.ATTEMPT: request.id,
    }


def declared_volumes(image: Mapping[str, Any]) -> list[str]:
    """Where an image, as the engine inspected it, wants volumes."""
    return list((image.get("Config") or {}).get("Volumes") or {})


def in_memory(place: str, size: int | None) -> dict[str, Any]:
    """A tmpfs, as a volume: the engine's own tmpfs takes over the mode of a directory in the image, and makes the
    working directory one that root alone may write."""
    options = _FLAGS if size is None else f"{_FLAGS},size={size}"
    driver = {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": options}}
    return {"Type": "volume", "Target": place, "VolumeOptions": {"NoCopy": True, "DriverConfig": driver}}


def has_init(info: Mapping[str, Any]) -> bool:
    """Whether the engine that says `info` of itself can start containers under an init."""
    return bool(info.get("InitBinary")) and (info.get("InitCommit") or {}).get("ID") != "N/A"
