"""Converts a task's volumes to the mounts of its Job. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from remit.api.quantity import format_bytes
from remit.api.volumes import Volume, VolumeMount, WorkspaceVolume
from remit.errors import InvalidInput
from remit.execution.artifacts.stored import StoredArtifact
from remit.policy.compile import CompiledPolicy
from remit.policy.request import PolicyRequest
from remit.policy.volumes import workspace_bytes
from remit.sandbox import ClaimMount, FilesMount, MountedFile

MOST_FILE_BYTES: Final = 900 << 10
"""Limit of one file of an artifact that a Job mounts. It is passed in a Secret, and etcd accepts 1 MiB."""
MOST_BYTES: Final = 4 << 20
"""Limit of all files of an artifact together."""
MOST_FILES: Final = 500
"""A pod's manifest lists them."""


def claim_mount(wanted: WorkspaceVolume, mount: VolumeMount, policies: Sequence[CompiledPolicy]) -> ClaimMount:
    size, ttl = workspace_bytes(policies, wanted), wanted.ttl_seconds_after_last_use
    return ClaimMount(mount.mount_path, wanted.name, size, mount.sub_path or "", mount.access == "ReadOnly", ttl)


def files_mount(
    volume: Volume, mount: VolumeMount, folders: Mapping[str, str], artifacts: Mapping[str, StoredArtifact]
) -> FilesMount:
    """Raises `InvalidInput` for more than Secrets take."""
    where = f"spec.volumes[{volume.name}].artifact"
    artifact, folder = artifacts.get(volume.name), folders.get(volume.name)
    if artifact is None or folder is None:
        raise InvalidInput("this operator keeps no artifacts", field=where)
    remedy = "pass it on in a workspace, or pack it smaller"
    if (size := artifact.bytes) > MOST_BYTES or len(artifact.files) > MOST_FILES:
        message = (
            f"has {len(artifact.files)} files with {format_bytes(size)}, and a Job mounts at most {MOST_FILES} with"
            f" {format_bytes(MOST_BYTES)}; {remedy}"
        )
        raise InvalidInput(message, field=where)
    for file in artifact.files:
        if file.size > MOST_FILE_BYTES:
            most = format_bytes(MOST_FILE_BYTES)
            message = f"{file.path!r} has {format_bytes(file.size)}, and a Job mounts files of at most {most}; {remedy}"
            raise InvalidInput(message, field=where)
        if file.path.startswith(".."):
            message = f"has a file {file.path!r}, which no volume of Kubernetes can have; rename it"
            raise InvalidInput(message, field=where)
    files = tuple(MountedFile(each.path, each.size, each.executable) for each in artifact.files)
    return FilesMount(mount.mount_path, volume.name, folder, files, mount.sub_path or "")


def stdin_volume_of(
    request: PolicyRequest,
    policies: Sequence[CompiledPolicy],
    folders: Mapping[str, str],
    artifacts: Mapping[str, StoredArtifact],
) -> ClaimMount | FilesMount | None:
    """The file that a Job's program reads as standard input, if it is one of a volume: `sub_path` of that.

    Raises `InvalidInput` where the volume cannot be had.
    """
    if request.backend != "kubernetes" or (file := request.stdin_file) is None:
        return None
    volume = next(volume for volume in request.volumes if volume.name == file.name)
    if file.path is None:
        message = f"a {volume.source} is a folder; name a regular file in path, relative to the volume"
        raise InvalidInput(message, field="spec.stdinFrom.volume")
    nowhere = VolumeMount.model_construct(name=file.name, mount_path="", sub_path=file.path, access="ReadOnly")
    if volume.workspace:
        return claim_mount(volume.workspace, nowhere, policies)
    return files_mount(volume, nowhere, folders, artifacts)
