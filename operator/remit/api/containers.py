"""Options of container operations. The set is closed: an engine option that is not listed here cannot be used."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

from pydantic import Field

from remit.api.base import SpecModel

ContainerAction = Literal[
    "run", "start", "stop", "restart", "remove", "logs", "exec", "inspect", "stats", "pull", "list"
]
ContainerOption = Literal[
    "privileged", "capabilities", "devices", "hostNetwork", "hostPid", "hostIpc", "network", "ports", "user",
    "restartPolicy",
]  # fmt: skip
"""Options that a policy must name to allow them. Host mounts are not among them: a policy lists their paths."""
CONTAINER_OPTIONS: tuple[ContainerOption, ...] = get_args(ContainerOption)

ImageReference = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", max_length=512)]
ContainerName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", min_length=2, max_length=128)]
NetworkName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=128)]
PathInside = Annotated[str, Field(min_length=2, max_length=1024, pattern=r"^/[^\x00-\x1f\x7f:]*$")]
FolderInside = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^/[^\x00-\x1f\x7f]*$")]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class HostMount(SpecModel):
    """A directory or file of the engine's host that is mounted into the container."""

    source: PathInside
    """The absolute path on the engine's host."""
    target: PathInside
    """The absolute path in the container."""
    read_only: bool = True
    """Whether the container can only read the mount."""


class PublishedPort(SpecModel):
    """A port of the container that the engine's host forwards to it."""

    container_port: PortNumber
    """The port in the container."""
    host_port: PortNumber
    """The port on the host."""
    host_address: Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+$", max_length=45)] = "127.0.0.1"
    """The host's address that the port is published on; `0.0.0.0` stands for all addresses."""
    protocol: Literal["tcp", "udp"] = "tcp"
    """The protocol."""


class ContainerOptions(SpecModel):
    """Options of a container beyond the safe defaults. A policy must allow each option that is set."""

    privileged: bool = False
    """Give the container all capabilities and all devices of the host. It is then not isolated from the host."""
    mounts: Annotated[list[HostMount], Field(max_length=16)] = []
    """Paths of the engine's host to mount. A policy's `containers.mounts` must list each path."""
    capabilities: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Z][A-Z_]*$", max_length=32)]], Field(max_length=40)
    ] = []
    """Capabilities to add, such as `NET_BIND_SERVICE`. By default a container has none."""
    devices: Annotated[
        list[Annotated[str, Field(pattern=r"^/dev/[A-Za-z0-9_/-]+$", max_length=128)]], Field(max_length=16)
    ] = []
    """Devices of the engine's host to add, such as `/dev/fuse`."""
    host_network: bool = False
    """Whether the container shares the host's network."""
    host_pid: bool = False
    """Whether the container sees the host's processes."""
    host_ipc: bool = False
    """Whether the container shares the host's System V IPC and shared memory."""
    network: NetworkName | None = None
    """The engine's network that the container joins, such as `bridge`. By default a container has no network."""
    ports: Annotated[list[PublishedPort], Field(max_length=32)] = []
    """Ports to publish on the host."""
    user: Annotated[str, Field(pattern=r"^[a-z0-9_][a-z0-9_-]*(:[a-z0-9_][a-z0-9_-]*)?$", max_length=64)] | None = None
    """The user, or `user:group`, by name or number, instead of the image's."""
    restart_policy: Literal["Always", "OnFailure", "Never"] | None = None
    """When the engine starts the container again after it ended. Not set: never."""

    def named(self) -> list[ContainerOption]:
        """Returns the options that are set and that a policy must name."""
        names = {field.alias or name: name for name, field in type(self).model_fields.items()}
        return [option for option in CONTAINER_OPTIONS if getattr(self, names[option])]
