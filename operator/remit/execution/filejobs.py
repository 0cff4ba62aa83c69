"""File operations as Jobs: what of them can be one, and what such a Job runs. Pure.

The program is Remit's own, in an image of the installation, and is given nothing by which a task could make it run
another: no variables, no private files, no volume over the files that it is loaded from.
"""

from __future__ import annotations

import sys
from itertools import permutations
from typing import TYPE_CHECKING, Final

from remit.api.executiontask import ExecutionTask, ExecutionTaskSpec
from remit.api.operations import FileOperation
from remit.api.volumes import VolumeMount
from remit.backends.base import AttemptRequest, Command, TaskReference
from remit.backends.filetree import is_below
from remit.execution.mounts import mounts_of
from remit.execution.resolved import Resolved
from remit.operations.file.handover import Handover, encode
from remit.operations.file.report import changes
from remit.sandbox import Confinement, Limits

if TYPE_CHECKING:
    from remit.execution.admission import Admitted

ARGV: Final = ("/opt/remit/bin/python", "-I", "-B", "-m", "remit.operations.file")
_ENVIRONMENT: Final = {"HOME": "/workspace", "TMPDIR": "/tmp", "LANG": "C.UTF-8"}  # noqa: S108 (the container's own)
_PROGRAM_FILES: Final = ("/opt/remit", sys.prefix, sys.base_prefix)
"""Folders of Python and Remit, on this host and in the image."""
_LINKS: Final = ("/var/run", "/var/lock")
"""Folders that are links in images: what is mounted below them lands elsewhere."""


def unfit(spec: ExecutionTaskSpec, remit_image: str) -> str | None:
    """Why a file operation cannot be a Job, and what to do; None where it can."""
    file = spec.file
    assert file is not None  # noqa: S101  # by its operation
    if not remit_image:
        return (
            "spec.file: this operator has no image for file operations (--remit-image), so they cannot be Jobs here;"
            " set it, or use a command with a volume"
        )
    if file.content_from and file.content_from.url:
        return (
            "spec.file.contentFrom.url: a Job downloads nothing; download it with a command into a workspace, or put it"
            " into a ConfigMap"
        )
    if file.operation == "chown":
        return "spec.file.operation: chown needs rights that no Job has, and all Jobs have the same user; leave it out"
    return _misplaced(spec.volume_mounts) or _out_of_reach(file, spec.volume_mounts)


def _misplaced(mounts: list[VolumeMount]) -> str | None:
    for mount in mounts:
        path = mount.mount_path
        if any(is_below(path, own) or is_below(own, path) for own in _PROGRAM_FILES):
            return f"spec.volumeMounts: {path} has Remit's own program in it; choose another mountPath, such as /data"
        if any(is_below(path, link) for link in _LINKS):
            return f"spec.volumeMounts: {path} is below a link; choose another mountPath, such as /data"
    for outer, inner in permutations((mount.mount_path for mount in mounts), 2):
        if is_below(inner, outer):
            return (
                f"spec.volumeMounts: {inner} is in {outer}, which is itself mounted; mount each at a folder of its own"
                " for a file operation"
            )
    return None


def _out_of_reach(file: FileOperation, mounts: list[VolumeMount]) -> str | None:
    for name, path in (("path", file.path), ("destination", file.destination)):
        if path is None:
            continue
        mount = next((each for each in mounts if is_below(path, each.mount_path)), None)
        if mount is None:
            there = ", ".join(each.mount_path for each in mounts) or "nothing is"
            return (
                f"spec.file.{name}: {path} is in no volume, and a Job has no other files that last; mount a workspace"
                f" by spec.volumes and spec.volumeMounts, and name a path in it (mounted: {there})"
            )
        only_read = name == "path" and file.operation == "copy"
        if mount.access == "ReadOnly" and changes(file) and not only_read:
            return (
                f"spec.file.{name}: {file.operation} changes {path}, and {mount.mount_path} is mounted ReadOnly; set"
                " access: ReadWrite in spec.volumeMounts"
            )
    return None


def file_job(
    task: ExecutionTask, admitted: Admitted, attempt_id: str, resolved: Resolved, timeout: float
) -> AttemptRequest:
    """The attempt of an admitted file operation. Raises `InvalidInput` where a volume cannot be had."""
    judged, limits, metadata = admitted.grant.request, admitted.limits, task.metadata
    mounted = [
        mount.mount_path
        for mount in judged.mounts
        if any(each.name == mount.name and (each.config_map or each.secret) for each in judged.volumes)
    ]
    handover = Handover(admitted.grant, resolved.values, limits.file_size)
    return AttemptRequest(
        id=attempt_id,
        command=Command(
            argv=ARGV,
            executable="",
            env=_ENVIRONMENT,
            stdin=encode(task, handover),
            public=frozenset(_ENVIRONMENT),
        ),
        confinement=Confinement(
            # The program itself enforces the limit on the file size.
            limits=Limits(memory_bytes=limits.memory, cpu_cores=limits.cpu, disk_bytes=limits.disk),
            network="none",
            require=admitted.layers,
            mounts=mounts_of(judged, admitted.policies, resolved.folders, resolved.artifacts),
        ),
        timeout_seconds=timeout,
        grace_seconds=float(limits.termination_grace_period_seconds or 0),
        files={
            path: content
            for path, content in resolved.files.items()
            if any(is_below(path, folder) for folder in mounted)
        },
        image=judged.image or "",
        pod=judged.pod.model_dump(mode="json", by_alias=True, exclude_unset=True) if judged.pod else {},
        task=TaskReference(metadata.namespace, metadata.name, metadata.uid),
        secret_versions=resolved.secret_versions,
        own_program=True,
    )
