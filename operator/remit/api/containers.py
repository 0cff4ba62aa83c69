"""What a container operation may say of containers. The set is closed: what is not here cannot be asked for."""

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
"""The options that a policy has to name. Host mounts are not among them: a policy lists their paths."""
CONTAINER_OPTIONS: tuple[ContainerOption, ...] = get_args(ContainerOption)

ImageReference = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._:/@-]*$", max_length=512)]
ContainerName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", min_length=2, max_length=128)]
NetworkName = Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$", max_length=128)]
PathInside = Annotated[str, Field(min_length=2, max_length=1024, pattern=r"^/[^\x00-\x1f\x7f:]*$")]
FolderInside = Annotated[str, Field(min_length=1, max_length=1024, pattern=r"^/[^\x00-\x1f\x7f]*$")]
PortNumber = Annotated[int, Field(ge=1, le=65535)]


class HostMount(SpecModel):
    """A directory or file of the engine's host, seen in the container."""

    source: PathInside
    """The absolute path on the engine's host."""
    target: PathInside
    """The absolute path in the container."""
    read_only: bool = True
    """Whether the container may only read it."""


class PublishedPort(SpecModel):
    """A port of the container that the engine's host forwards to it."""

    container_port: PortNumber
    """The port in the container."""
    host_port: PortNumber
    """The port on the host."""
    host_address: Annotated[str, Field(pattern=r"^[0-9a-fA-F.:]+$", max_length=45)] = "127.0.0.1"
    """The host's address that it is published on; `0.0.0.0` is all of them."""
    protocol: Literal["tcp", "udp"] = "tcp"
    """The protocol."""


class ContainerOptions(SpecModel):
    """What a container gets beyond the safe defaults. A policy must allow each that is set."""

    privileged: bool = False
    """All capabilities and devices of the host: no wall at all."""
    mounts: Annotated[list[HostMount], Field(max_length=16)] = []
    """Parts of the host's file system; a policy lists the paths in `containers.mounts`."""
    capabilities: Annotated[
        list[Annotated[str, Field(pattern=r"^[A-Z][A-Z_]*$", max_length=32)]], Field(max_length=40)
    ] = []
    """Capabilities to add, such as `NET_BIND_SERVICE`. There are none otherwise."""
    devices: Annotated[
        list[Annotated[str, Field(pattern=r"^/dev/[A-Za-z0-9_/-]+$", max_length=128)]], Field(max_length=16)
    ] = []
    """Devices of the host, such as `/dev/fuse`."""
    host_network: bool = False
    """Share the host's network."""
    host_pid: bool = False
    """See the host's processes."""
    host_ipc: bool = False
    """Share the host's System V IPC and shared memory."""
    network: NetworkName | None = None
    """A network of the engine, such as `bridge`. There is none otherwise."""
    ports: Annotated[list[PublishedPort], Field(max_length=32)] = []
    """Ports to publish on the host."""
    user: Annotated[str, Field(pattern=r"^[a-z0-9_][a-z0-9_-]*(:[a-z0-9_][a-z0-9_-]*)?$", max_length=64)] | None = None
    """The user, or `user:group`, by name or number, instead of the image's."""
    restart_policy: Literal["Always", "OnFailure", "Never"] | None = None
    """When the engine starts it again after it ends. Not set: never."""

    def named(self) -> list[ContainerOption]:
        """Those that are set and that a policy has to name."""
        names = {field.alias or name: name for name, field in type(self).model_fields.items()}
        return [option for option in CONTAINER_OPTIONS if getattr(self, names[option])]
