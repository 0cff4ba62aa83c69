"""Volumes, with files for a task's program, and artifacts and results, which are kept of the files that it writes."""

from __future__ import annotations

from typing import Annotated, Final, Literal

from pydantic import Field

from remit.api.base import DataKey, Name, Rule, SpecModel
from remit.api.privatefile import PATH_PART
from remit.api.quantity import Quantity

MAX_VOLUMES: Final = 16
MAX_ITEMS: Final = 64
Access = Literal["ReadOnly", "ReadWrite"]

_RELATIVE = rf"^{PATH_PART}(/{PATH_PART})*$"
_ABSOLUTE = rf"^(/{PATH_PART})+$"
_OWN_TREES: Final = "proc|sys|dev|usr|bin|sbin|lib|lib32|lib64|libx32|run/remit"
_OWN_FOLDERS: Final = "etc|run|tmp|workspace|run/private"
_OWN_CONFIGURATION: Final = (
    "passwd|group|shadow|localtime|nsswitch[.]conf|alternatives|ssl|pki|hosts|hostname|resolv[.]conf|gai[.]conf"
    "|host[.]conf|protocols|services|ld[.]so[.][a-z.]+"
)
OWN_PATHS: Final = rf"^/(({_OWN_TREES})(/.*)?|{_OWN_FOLDERS}|etc/({_OWN_CONFIGURATION})(/.*)?)$"
"""A regular expression for the sandbox's own paths, over which no volume may be mounted. Other paths below `/etc`,
`/run`, `/tmp` and `/workspace` may be used."""


class HostPathVolume(SpecModel):
    """A folder or a file of the operator's host. It is refused on a cluster, where the operator's host is not known in
    advance."""

    path: Annotated[str, Field(pattern=_ABSOLUTE, max_length=1024)]
    """The absolute path, without `.`, `..`, `//` and a final `/`. A policy's `volumes.hostPaths` must allow it. The
    path must exist; it is not created."""


class EmptyDirVolume(SpecModel):
    """A folder that is empty when an attempt starts and gone when it ends."""

    size_limit: Quantity | None = None
    """Maximum size of the folder, in bytes. It is in memory and counts towards the attempt's memory like
    `resources.disk`. Not set: the size of `/workspace`."""


class KeyToPath(SpecModel):
    key: DataKey
    """The key of the ConfigMap or the Secret."""
    path: Annotated[str, Field(pattern=_RELATIVE, max_length=256)]
    """Path of the key's file, relative to the mount path of the volume."""


class ConfigMapVolume(SpecModel):
    """Every key of a ConfigMap as a file."""

    name: Name
    """Name of the ConfigMap, in the task's own namespace."""
    items: Annotated[list[KeyToPath], Field(max_length=MAX_ITEMS)] = []
    """The keys to mount, and their paths. Empty: every key, in a file named after it."""
    optional: bool = False
    """Whether to continue without the object or a key of `items` when it does not exist."""


class SecretVolume(SpecModel):
    """Every key of a Secret as a file. The values are redacted everywhere else, like those of `env`."""

    secret_name: Name
    """Name of the Secret, in the task's own namespace."""
    items: Annotated[list[KeyToPath], Field(max_length=MAX_ITEMS)] = []
    """The keys to mount, and their paths. Empty: every key, in a file named after it."""
    optional: bool = False
    """Whether to continue without the object or a key of `items` when it does not exist."""


class WorkspaceVolume(SpecModel):
    """A named folder of the namespace that is kept between tasks. The first task that uses it creates it. Only one task
    at a time may write to it; others wait in the queue."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """Name of the workspace. A policy's `volumes.workspaces` must allow it."""
    size: Quantity | None = None
    """Maximum size of the workspace, in bytes. Not set: the maximum that the policy allows."""
    ttl_seconds_after_last_use: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Time after its last use at which the workspace is removed, in seconds. Not set: it is kept until `remit workspace
    rm`."""


class ArtifactVolume(SpecModel):
    """An artifact of an earlier task of the namespace. The digest of its content is recorded when the first attempt
    starts, and later attempts mount the same content."""

    task: Name
    """Name of the earlier task."""
    name: Name
    """Name of the artifact in that task's `artifacts`."""


class ReleaseVolume(SpecModel):
    """The artifact of a Deployment with the process target: the operator's own copy, from which instances run. Its
    digest is compared with that of the revision before it is mounted."""

    deployment: Name | None = None
    """Name of the Deployment, in the task's own namespace. A policy's `volumes.releases` must allow it. A hook may
    leave it out and then gets its own Deployment."""
    revision: Annotated[int, Field(ge=1)] | None = None
    """The revision to mount. A hook may leave it out and then gets the revision that is released."""


class Volume(SpecModel):
    """A volume to mount. Exactly one source is set."""

    exactly_one = ("hostPath", "emptyDir", "configMap", "secret", "workspace", "artifact", "release")

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """Name of the volume, by which `volumeMounts` refer to it."""
    host_path: HostPathVolume | None = None
    """A folder or a file of the host."""
    empty_dir: EmptyDirVolume | None = None
    """An empty folder."""
    config_map: ConfigMapVolume | None = None
    """The keys of a ConfigMap, as files."""
    secret: SecretVolume | None = None
    """The keys of a Secret, as files."""
    workspace: WorkspaceVolume | None = None
    """A folder that is kept between tasks."""
    artifact: ArtifactVolume | None = None
    """An artifact of an earlier task."""
    release: ReleaseVolume | None = None
    """The artifact of a Deployment."""

    @property
    def source(self) -> str:
        """The source that is set, by its name on the wire."""
        aliases = {field.alias or name: name for name, field in type(self).model_fields.items()}
        return next(alias for alias in self.exactly_one if getattr(self, aliases[alias]) is not None)


class VolumeFile(SpecModel):
    """A file in a volume of the task. The volume need not be mounted."""

    name: Annotated[str, Field(max_length=63)]
    """Name of the volume, which is a hostPath, a workspace or an artifact."""
    path: Annotated[str, Field(pattern=_RELATIVE, max_length=1024)] | None = None
    """Path of the file, relative to the root of the volume. Links must not lead out of the volume. Not set: the volume
    itself is a file."""


class VolumeMount(SpecModel):
    """The path at which the program finds a volume."""

    rules = (
        Rule(
            f"!self.mountPath.matches('{OWN_PATHS}')",
            "mountPath is the sandbox's own; choose another, such as /src, /data or a folder below /workspace",
            ".mountPath",
        ),
    )

    name: Annotated[str, Field(max_length=63)]
    """Name of the volume."""
    mount_path: Annotated[str, Field(pattern=_ABSOLUTE, max_length=256)]
    """Absolute path of the mount. It must not be one of the sandbox's own paths, such as `/usr` and `/workspace`, but
    it may be a folder below `/workspace`."""
    sub_path: Annotated[str, Field(pattern=_RELATIVE, max_length=256)] | None = None
    """The part of the volume to mount, as a path relative to its root. Links must not lead out of the volume. Not set:
    the whole volume."""
    access: Access = "ReadOnly"
    """Whether the program may change the files. ConfigMaps, Secrets, artifacts and releases can only be read."""


class Artifact(SpecModel):
    """Files of an attempt that are kept."""

    name: Name
    """Name of the artifact, by which it is retrieved."""
    path: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", min_length=1, max_length=1024)]
    """Path of the files, relative to `workingDir`, or absolute below `/workspace` or a mounted folder. `*` and `?`
    match within one folder, `**` matches across folders. If the path is a folder, everything below it is kept. Links
    are not followed."""
    when: Literal["Succeeded", "Always"] = "Succeeded"
    """Whether only the files of successful attempts are kept, or those of all attempts."""
    optional: bool = False
    """Whether to continue without the artifact if there are no files. If false, an attempt that succeeded without them
    fails as ArtifactMissing."""
    max_bytes: Quantity | None = None
    """Maximum size of the artifact, in bytes. An attempt with larger files fails as ArtifactTooLarge, and none of them
    is kept. Not set: the maximum that the policy allows."""
    retain_seconds: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """How long the artifact is kept after the task was deleted, in seconds. Not set: it is deleted with the task."""


class Result(SpecModel):
    """A small text of an attempt, for example for the next step. Status shows it."""

    name: Name
    """Name of the result in `status.results`."""
    path: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f*?]+$", min_length=1, max_length=1024)]
    """Path of the file, as in `artifacts`. The file contains at most 4 KiB of UTF-8 text; a final line break is
    removed."""
    optional: bool = False
    """Whether to continue without the result if the file does not exist."""
