"""Converts a task's volumes to the mounts of a backend. Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping, Sequence
from types import MappingProxyType

from remit.api.quantity import parse_bytes
from remit.api.volumes import Volume, VolumeMount
from remit.errors import InvalidInput
from remit.execution.artifacts.stored import StoredArtifact
from remit.execution.jobmounts import claim_mount, files_mount
from remit.policy.compile import CompiledPolicy
from remit.policy.request import PolicyRequest
from remit.policy.volumes import host_path_terms
from remit.sandbox import EmptyMount, HostMount, Mount


def mounts_of(
    request: PolicyRequest,
    policies: Sequence[CompiledPolicy],
    folders: Mapping[str, str],
    artifacts: Mapping[str, StoredArtifact] = MappingProxyType({}),
) -> tuple[Mount, ...]:
    """The mounts for `request` under the terms of `policies`, outer folders first.

    `folders` has the folder on this host of each workspace, artifact and release, by the volume's name, and `artifacts`
    what the artifacts are. ConfigMaps and
    Secrets are not among the mounts: they are placed as private files are.

    Raises `InvalidInput` where a volume cannot be had here.
    """
    volumes = {volume.name: volume for volume in request.volumes}
    _check_mounted_once(request, volumes)
    if request.backend == "kubernetes":
        found = [_job_mount(volumes[mount.name], mount, policies, folders, artifacts) for mount in request.mounts]
    else:
        found = [_mount(volumes[mount.name], mount, policies, folders) for mount in request.mounts]
    return tuple(sorted((mount for mount in found if mount), key=lambda mount: mount.mount_path))


def stdin_file_of(
    request: PolicyRequest, policies: Sequence[CompiledPolicy], folders: Mapping[str, str]
) -> HostMount | None:
    """The file that is read as standard input, if it is one of a volume. The arguments are those of `mounts_of`.

    Raises `InvalidInput` where the volume cannot be had here.
    """
    if request.backend == "kubernetes" or (file := request.stdin_file) is None:
        return None
    volume = next(volume for volume in request.volumes if volume.name == file.name)
    if volume.release:
        raise InvalidInput("is a release, of which no file is read; mount it", field="spec.stdinFrom.volume")
    nowhere = VolumeMount.model_construct(name=file.name, mount_path="", sub_path=file.path)
    found = _mount(volume, nowhere, policies, folders)
    if not isinstance(found, HostMount):
        raise InvalidInput(f"is {volume.source}, of which no file is read", field="spec.stdinFrom.volume")
    return found


def _check_mounted_once(request: PolicyRequest, volumes: Mapping[str, Volume]) -> None:
    """Each mount of an empty folder would be another one."""
    names = [mount.name for mount in request.mounts if volumes[mount.name].empty_dir]
    for name in names:
        if names.count(name) > 1:
            raise InvalidInput("is mounted twice; an emptyDir is mounted once", field=f"spec.volumes[{name}]")


def empty_bytes(request: PolicyRequest, default: int) -> int:
    """How large the empty folders are together, where one that says nothing has `default` bytes."""
    limits = [volume.empty_dir.size_limit for volume in request.volumes if volume.empty_dir]
    return sum(default if limit is None else parse_bytes(limit) for limit in limits)


def _mount(
    volume: Volume, mount: VolumeMount, policies: Sequence[CompiledPolicy], folders: Mapping[str, str]
) -> Mount | None:
    read_only, sub_path = mount.access == "ReadOnly", mount.sub_path or ""
    if volume.host_path:
        path = volume.host_path.path
        terms = host_path_terms(policies, path, mount.access)
        return HostMount(mount.mount_path, terms.root, path, sub_path, read_only, terms.run_as_user)
    if volume.empty_dir:
        limit = volume.empty_dir.size_limit
        return EmptyMount(mount.mount_path, None if limit is None else parse_bytes(limit))
    if volume.workspace or volume.artifact or volume.release:
        folder = folders.get(volume.name)
        if folder is None:
            raise InvalidInput(f"this operator keeps no {volume.source}s", field=f"spec.volumes[{volume.name}]")
        root = posixpath.dirname(folder)
        own, released = volume.workspace is not None, volume.release is not None
        return HostMount(
            mount.mount_path, root, folder, sub_path, read_only, own=own, internal=True, for_readers=released
        )
    return None


def _job_mount(
    volume: Volume,
    mount: VolumeMount,
    policies: Sequence[CompiledPolicy],
    folders: Mapping[str, str],
    artifacts: Mapping[str, StoredArtifact],
) -> Mount | None:
    if volume.artifact:
        return files_mount(volume, mount, folders, artifacts)
    if volume.release:
        message = "a Job mounts no releases; use backend: process or docker"
        raise InvalidInput(message, field=f"spec.volumes[{volume.name}]")
    if volume.workspace:
        return claim_mount(volume.workspace, mount, policies)
    return _mount(volume, mount, policies, {})


def mounted_files(volume: Volume, mount: VolumeMount, data: Mapping[str, bytes]) -> dict[str, bytes]:
    """The paths inside at which the keys of a ConfigMap or a Secret with this `data` are found.

    Raises `InvalidInput` for a key that is asked for and is not there, unless it is optional.
    """
    source = volume.config_map or volume.secret
    assert source is not None  # noqa: S101  # by its kind
    wanted = {item.path: item.key for item in source.items} or {key: key for key in data}
    if mount.sub_path is not None:
        inside = {posixpath.relpath(path, mount.sub_path): key for path, key in wanted.items()}
        wanted = {path: key for path, key in inside.items() if path.split("/")[0] != ".."}
    if detour := sorted({".", ".."} & wanted.keys() - ({"."} if mount.sub_path is not None else set())):
        message = f"has a key {detour[0]}, which is no name of a file; give it one in items"
        raise InvalidInput(message, field=f"spec.volumes[{volume.name}].{volume.source}")
    if missing := sorted(key for key in wanted.values() if key not in data and not source.optional):
        raise InvalidInput(f"has no key {missing[0]}", field=f"spec.volumes[{volume.name}].{volume.source}")
    at = mount.mount_path
    return {posixpath.normpath(f"{at}/{path}"): data[key] for path, key in wanted.items() if key in data}
