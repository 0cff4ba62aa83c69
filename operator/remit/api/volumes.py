"""Volumes: files that a task's program finds besides its private workspace, and what is kept of those it makes."""

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
"""What nothing is mounted over: the sandbox's own. Below `/etc`, `/run`, `/tmp` and `/workspace` there is room."""


class HostPathVolume(SpecModel):
    """A folder or a file of the operator's host. Refused on a cluster, where nobody knows which host that would be."""

    path: Annotated[str, Field(pattern=_ABSOLUTE, max_length=1024)]
    """Its absolute path, without `.`, `..`, `//` and a final `/`. A policy's `volumes.hostPaths` must allow it. It must
    be there: nothing is made."""


class EmptyDirVolume(SpecModel):
    """A folder that is empty when an attempt starts and gone when it ends."""

    size_limit: Quantity | None = None
    """How much fits in, in memory that counts for the attempt as `resources.disk` does. Not set: as much as in
    `/workspace`."""


class KeyToPath(SpecModel):
    key: DataKey
    """The key."""
    path: Annotated[str, Field(pattern=_RELATIVE, max_length=256)]
    """The file that it becomes, relative to where the volume is mounted."""


class ConfigMapVolume(SpecModel):
    """Every key of a ConfigMap as a file."""

    name: Name
    """Name of the ConfigMap, in the task's own namespace."""
    items: Annotated[list[KeyToPath], Field(max_length=MAX_ITEMS)] = []
    """Only these keys, at these paths. Empty: every key, at its own name."""
    optional: bool = False
    """Go on without what is not there."""


class SecretVolume(SpecModel):
    """Every key of a Secret as a file. The values are redacted everywhere else, as those of `env` are."""

    secret_name: Name
    """Name of the Secret, in the task's own namespace."""
    items: Annotated[list[KeyToPath], Field(max_length=MAX_ITEMS)] = []
    """Only these keys, at these paths. Empty: every key, at its own name."""
    optional: bool = False
    """Go on without what is not there."""


class WorkspaceVolume(SpecModel):
    """A named folder of the namespace, which is kept from one task to the next. The first task that uses it makes it.
    One task at a time may write; others wait in the queue."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """Its name. A policy's `volumes.workspaces` must allow it."""
    size: Quantity | None = None
    """How much fits in. Not set: what the policy allows at most."""
    ttl_seconds_after_last_use: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """Remove it when no task has used it for this long. Not set: keep it until `remit workspace rm`."""


class ArtifactVolume(SpecModel):
    """What an earlier task of the namespace left as an artifact. Which content that was is recorded by its digest when
    the first attempt starts, and later attempts find the same."""

    task: Name
    """The task."""
    name: Name
    """The artifact, by its name in the task's `artifacts`."""


class ReleaseVolume(SpecModel):
    """The artifact of a Deployment that releases to processes: the operator's own copy, which instances run from. It is
    compared with the digest of its revision before it is mounted."""

    deployment: Name | None = None
    """The Deployment, of the task's own namespace. A policy's `volumes.releases` must allow it. Not set, in a hook:
    that of the hook."""
    revision: Annotated[int, Field(ge=1)] | None = None
    """Its revision. Not set, in a hook: the one that is released."""


class Volume(SpecModel):
    """Files to be mounted. Exactly one source is set."""

    exactly_one = ("hostPath", "emptyDir", "configMap", "secret", "workspace", "artifact", "release")

    name: Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$", max_length=63)]
    """By which `volumeMounts` refer to it."""
    host_path: HostPathVolume | None = None
    """A folder or a file of the host."""
    empty_dir: EmptyDirVolume | None = None
    """An empty folder."""
    config_map: ConfigMapVolume | None = None
    """The keys of a ConfigMap, as files."""
    secret: SecretVolume | None = None
    """The keys of a Secret, as files."""
    workspace: WorkspaceVolume | None = None
    """A folder that is kept from task to task."""
    artifact: ArtifactVolume | None = None
    """What an earlier task left."""
    release: ReleaseVolume | None = None
    """What is released."""

    @property
    def source(self) -> str:
        """Which source is set, by its name on the wire."""
        aliases = {field.alias or name: name for name, field in type(self).model_fields.items()}
        return next(alias for alias in self.exactly_one if getattr(self, aliases[alias]) is not None)


class VolumeFile(SpecModel):
    """A file in a volume of the task, which need not be mounted."""

    name: Annotated[str, Field(max_length=63)]
    """The volume: a hostPath, a workspace or an artifact."""
    path: Annotated[str, Field(pattern=_RELATIVE, max_length=1024)] | None = None
    """Where in the volume the file is, relative to its root; no link may lead out of the volume. Not set: the volume
    is itself a file."""


class VolumeMount(SpecModel):
    """Where the program finds a volume."""

    rules = (
        Rule(
            f"!self.mountPath.matches('{OWN_PATHS}')",
            "mountPath is the sandbox's own; choose another, such as /src, /data or a folder below /workspace",
            ".mountPath",
        ),
    )

    name: Annotated[str, Field(max_length=63)]
    """The volume."""
    mount_path: Annotated[str, Field(pattern=_ABSOLUTE, max_length=256)]
    """Where it is found: an absolute path that is not one of the sandbox's own, such as `/usr` and `/workspace`, though
    it may be a folder below `/workspace`."""
    sub_path: Annotated[str, Field(pattern=_RELATIVE, max_length=256)] | None = None
    """What of the volume is mounted, relative to its root; no link in it may lead out of the volume. Not set: all."""
    access: Access = "ReadOnly"
    """Whether the program may change it. ConfigMaps, Secrets, artifacts and releases can only be read."""


class Artifact(SpecModel):
    """Files that an attempt leaves to be kept."""

    name: Name
    """By which it is found again."""
    path: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f]+$", min_length=1, max_length=1024)]
    """A path relative to `workingDir`, or an absolute one below `/workspace` or a mounted folder. `*` and `?` stay
    within one folder, `**` spans them; of a folder, everything below it is kept. No link is followed."""
    when: Literal["Succeeded", "Always"] = "Succeeded"
    """Of which attempts: those that succeed, or all."""
    optional: bool = False
    """Go on without it when no file is there. Otherwise an attempt that succeeded then fails as ArtifactMissing."""
    max_bytes: Quantity | None = None
    """The most that is kept. An attempt that leaves more fails as ArtifactTooLarge, and nothing of it is kept. Not set:
    what the policy allows at most."""
    retain_seconds: Annotated[int, Field(ge=0, le=315_360_000)] | None = None
    """How long it is kept after the task was deleted. Not set: until then."""


class Result(SpecModel):
    """A small text that an attempt leaves for the next step, shown in status."""

    name: Name
    """By which it is found in `status.results`."""
    path: Annotated[str, Field(pattern=r"^[^\x00-\x1f\x7f*?]+$", min_length=1, max_length=1024)]
    """The file, as in `artifacts`, at most 4 KiB of UTF-8 text. A final line break is left out."""
    optional: bool = False
    """Go on without it when the file is not there."""
