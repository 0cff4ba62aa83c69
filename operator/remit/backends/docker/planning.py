"""How an attempt is confined in a container: what the engine is told, and what that amounts to. Pure."""

from __future__ import annotations

import dataclasses
import posixpath
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, Final

from remit.backends.base import AttemptRequest
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.docker import labels, pause
from remit.backends.filetree import is_below
from remit.errors import InvalidInput, SandboxUnavailable
from remit.sandbox import NETWORK_PACE, NOT_ENFORCED, Confinement, EmptyMount, HostMount, Layer
from remit.sandboxpaths import WORKSPACE

USER: Final = 65534
"""Nobody: as whom an attempt runs, whatever the image says."""
_WRITABLE: Final = (WORKSPACE, "/tmp")  # noqa: S108 (the container's own)
_ENGINES_OWN: Final = ("/dev", "/proc", "/sys", "/etc/hostname", "/etc/hosts", "/etc/resolv.conf")
_INIT: Final = "/sbin/docker-init"
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


@dataclasses.dataclass(frozen=True, slots=True, kw_only=True)
class Given:
    """The settings of a container besides those of the request. `user`, `group` and `groups` are as whom it runs;
    `binds` has a folder of the host, and whether it can only be read, by where it is mounted; `host_files` are those
    places where it is a file. `holder` is the id of the container that has the folders of which something is kept, and
    `filled` that of the one that has the private files."""

    user: int = USER
    group: int = USER
    groups: tuple[int, ...] = ()
    binds: Mapping[str, tuple[str, bool]] = dataclasses.field(default_factory=dict)
    host_files: frozenset[str] = frozenset()
    holder: str = ""
    filled: str = ""


def container_name(attempt_id: str) -> str:
    """The same for an attempt wherever and whenever it is asked for."""
    return f"remit-{attempt_id}"


def enforcement_of(confinement: Confinement, info: Mapping[str, Any], *, keeps: bool = False) -> ConfinementStatus:
    """The enforcement by the engine that describes itself by `info`; `keeps`: for an attempt of which something is to
    be kept.

    Raises:
        SandboxUnavailable: a required layer is missing, or a limit that is asked for cannot be held.
    """
    seccomp = [option.split(",") for option in info.get("SecurityOptions") or [] if option.startswith("name=seccomp")]
    # An engine can be configured to run containers unconfined.
    filtered = any("profile=unconfined" not in option for option in seccomp)
    counted = bool(info.get("MemoryLimit") and info.get("PidsLimit") and info.get("CpuCfsQuota"))
    given = {Layer.NAMESPACES: True, Layer.RLIMITS: True, Layer.SECCOMP: filtered, Layer.CGROUP: counted}
    layers = tuple(layer for layer in Layer if given.get(layer))
    missing = tuple(layer for layer in Layer if layer not in layers)
    if lacking := sorted(confinement.require & set(missing)):
        raise SandboxUnavailable(
            f"the backend docker has no {', '.join(lacking)} here, and a policy requires it; use backend: process"
        )
    if info.get("Architecture") not in pause.ARCHITECTURES and (keeps or confinement.network == "restricted"):
        known = " and ".join(sorted(set(pause.ARCHITECTURES.values())))
        what, remedy = (
            ("restricts the network to hosts", "use network: none")
            if confinement.network == "restricted"
            else ("keeps artifacts and results", "leave them out")
        )
        here = info.get("Architecture") or "an unknown one"
        raise SandboxUnavailable(
            f"the backend docker {what} on {known}, and its engine is on {here}; {remedy}, or use backend: process"
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
    return ConfinementStatus(
        layers, missing, {field: by for field, by in held.items() if getattr(limits, field) is not None}
    )


def private_folders(request: AttemptRequest) -> list[str]:
    """The folders at which volumes for private files are mounted. Raises `InvalidInput` for files that would hide a
    folder of the attempt, or be written to one of the host."""
    hosts = _of_the_host(request)
    whole = {"", *_WRITABLE, *_folders_in_memory(request), *hosts}
    folders: dict[str, None] = {}
    for path in request.files:
        folder = path.rpartition("/")[0]
        if any(is_below(path, host) for host in hosts):
            raise InvalidInput(
                f"{path!r} lies in a mounted folder, to which it would be written; choose another path", field="files"
            )
        if folder in whole:
            message = (
                f"the backend docker cannot place a private file at {path}; put it below /run, or use backend: process"
            )
            raise InvalidInput(message)
        folders[folder] = None
    # A volume inside another one must be mounted after it; the engine sorts mounts by depth.
    return sorted(folders)


def places_to_resolve(request: AttemptRequest, image: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    """The mount points that `check_links` wants to have resolved in the image."""
    if not _of_the_host(request):
        return private_folders(request)
    return [*_of_the_task(request), *_of_the_engine(image, info)]


def check_links(request: AttemptRequest, leads: Mapping[str, str]) -> None:
    """Raises `InvalidInput` where an engine would follow a link of the image to where it mounts something. `leads` says
    where each of `places_to_resolve` leads."""
    hosts = _of_the_host(request)
    chosen = set(_of_the_task(request))
    for place, real in leads.items():
        if place in chosen and real != place:
            raise InvalidInput(
                f"the image {request.image} has a link on the way there, which leads to {real}; choose a path without"
                " links, such as that one",
                field=f"the volume or file at {place}",
            )
        if inside := [host for host in hosts if real != place and is_below(real, host)]:
            raise InvalidInput(
                f"the image {request.image} has a link at {place}, which leads to {real} in the mounted folder, where"
                " its engine would make what it mounts; choose another mountPath",
                field=f"the volume at {inside[0]}",
            )


def _of_the_task(request: AttemptRequest) -> list[str]:
    """The mount points of what the task asks for, without those that lie in a folder of the host, which is no engine's
    to mount."""
    hosts = _of_the_host(request)
    places = [mount.mount_path for mount in request.confinement.mounts]
    outer = [place for place in places if not any(is_below(place, host) and place != host for host in hosts)]
    return [*outer, *private_folders(request)]


def _of_the_engine(image: Mapping[str, Any], info: Mapping[str, Any]) -> list[str]:
    return [*_WRITABLE, *declared_volumes(image), *_ENGINES_OWN, *([_INIT] if has_init(info) else [])]


def kept_folders(request: AttemptRequest) -> dict[str, int | None]:
    """The folders in memory that are read when the attempt has ended, with the size of each; none where nothing is."""
    return _folders_in_memory(request) if request.collector else {}


def _of_the_host(request: AttemptRequest) -> list[str]:
    return [mount.mount_path for mount in request.confinement.mounts if isinstance(mount, HostMount)]


def _folders_in_memory(request: AttemptRequest) -> dict[str, int | None]:
    disk = request.confinement.limits.disk_bytes
    hosts = _of_the_host(request)
    empty = [
        mount
        for mount in request.confinement.mounts
        if isinstance(mount, EmptyMount) and not any(is_below(mount.mount_path, host) for host in hosts)
    ]
    sizes = {mount.mount_path: disk if mount.size_bytes is None else mount.size_bytes for mount in empty}
    return {WORKSPACE: disk, **sizes}


def missing_working_dir(request: AttemptRequest) -> str | None:
    """None, or why an attempt cannot start where it should: an engine would make the directory, as root."""
    path = posixpath.normpath(request.confinement.working_dir)
    there = {WORKSPACE, *(mount.mount_path for mount in request.confinement.mounts), *private_folders(request)}
    if path in there:
        return None
    return (
        f"spec.workingDir {path} is not there: in a container there are only {', '.join(sorted(there))}; leave it out,"
        " or name one of them"
    )


def creation(
    request: AttemptRequest,
    image: Mapping[str, Any],
    info: Mapping[str, Any],
    network: str,
    proxy: Mapping[str, str] = MappingProxyType({}),
    given: Given = Given(),
) -> dict[str, Any]:
    """The engine's `POST /containers/create` for an attempt in `image`, as the engine inspected it.

    `network` is its mode, in the engine's words; `proxy` is the environment by which programs find the way out.
    """
    command, limits = request.command, request.confinement.limits
    # Volumes that the image declares would be disk space without a limit, so they are replaced by memory.
    folders = private_folders(request)
    kept, disk = kept_folders(request), limits.disk_bytes
    places = {place: disk for place in (*_WRITABLE, *declared_volumes(image)) if place not in folders}
    places |= _folders_in_memory(request)
    hosts = _of_the_host(request)
    for host in hosts:
        if inside := [place for place in declared_volumes(image) if is_below(place, host) and place != host]:
            raise InvalidInput(
                f"the image has a volume at {inside[0]}, which its engine would make in the mounted folder; choose"
                " another mountPath",
                field=f"the volume at {host}",
            )
    places = {place: size for place, size in places.items() if place not in hosts}
    ulimits = {"nofile": limits.open_files, "fsize": limits.file_bytes}
    return {
        "Image": image["Id"],
        # The image's entry point, user and health check are not used.
        "Entrypoint": [command.executable or command.argv[0]],
        "Cmd": list(command.argv[1:]),
        "User": f"{given.user}:{given.group}",
        "Healthcheck": {"Test": ["NONE"]},
        "Env": [f"{name}={value}" for name, value in {**command.env, **proxy}.items()],
        "WorkingDir": request.confinement.working_dir,
        "OpenStdin": bool(command.stdin or request.confinement.stdin_file),
        "StdinOnce": bool(command.stdin or request.confinement.stdin_file),
        "Labels": attempt_labels(request),
        "HostConfig": {
            "NetworkMode": network,
            "ReadonlyRootfs": True,
            "ShmSize": limits.disk_bytes or 0,
            # The holder comes first, so that an operator that adopts the container recognizes it.
            "VolumesFrom": [*([given.holder] if kept else []), *([f"{given.filled}:ro"] if given.filled else [])],
            "Mounts": [
                *(in_memory(place, size) for place, size in places.items() if place not in kept),
                *(_bind(target, *bind, has_more=_has_more(request, target)) for target, bind in given.binds.items()),
            ],
            "GroupAdd": [str(group) for group in given.groups],
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
            # The init forwards signals: the first process of a container ignores signals without a handler.
            "Init": has_init(info),
            "LogConfig": dict(LOG),
            "RestartPolicy": {"Name": "no"},
        },
    }


def attempt_labels(request: AttemptRequest) -> dict[str, str]:
    """The labels of every container of an attempt."""
    env = request.command.env
    return {
        labels.NAMESPACE: env.get("REMIT_TASK_NAMESPACE", ""),
        labels.TASK: env.get("REMIT_TASK_NAME", ""),
        labels.UID: request.id.rpartition("-")[0],
        labels.ATTEMPT: request.id,
    }


def declared_volumes(image: Mapping[str, Any]) -> list[str]:
    """The paths at which an image declares volumes. `image` is its inspection by the engine."""
    return list((image.get("Config") or {}).get("Volumes") or {})


def in_memory(place: str, size: int | None) -> dict[str, Any]:
    """A tmpfs, as a volume: the engine's own tmpfs takes over the mode of a directory in the image, and makes the
    working directory one that root alone may write."""
    options = _FLAGS if size is None else f"{_FLAGS},size={size}"
    driver = {"Name": "local", "Options": {"type": "tmpfs", "device": "tmpfs", "o": options}}
    return {"Type": "volume", "Target": place, "VolumeOptions": {"NoCopy": True, "DriverConfig": driver}}


def _has_more(request: AttemptRequest, target: str) -> bool:
    """Whether something else is mounted in what is at `target`."""
    places = (mount.mount_path for mount in request.confinement.mounts)
    return any(place != target and is_below(place, target) for place in places)


def _bind(target: str, source: str, read_only: bool, *, has_more: bool) -> dict[str, Any]:
    """Bind what is staged at `source`, which is as read-only as it has to be. Docker 25 would have all within be so,
    too."""
    return {
        "Type": "bind",
        "Source": source,
        "Target": target,
        "ReadOnly": read_only,
        "BindOptions": {"Propagation": "rprivate", "ReadOnlyNonRecursive": has_more},
    }


def has_init(info: Mapping[str, Any]) -> bool:
    """Whether the engine that says `info` of itself can start containers under an init."""
    return bool(info.get("InitBinary")) and (info.get("InitCommit") or {}).get("ID") != "N/A"
