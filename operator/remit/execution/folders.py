"""The folders of this host that a task's volumes stand for: workspaces, artifacts of earlier tasks, and releases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

import structlog

from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import VolumeStatus
from remit.api.volumes import ArtifactVolume, ReleaseVolume
from remit.errors import InvalidInput, MissingReference
from remit.execution.artifacts.store import ArtifactStore, StoreUnavailable
from remit.execution.artifacts.stored import Damaged
from remit.execution.pruning import Pruner
from remit.execution.resolved import Resolved
from remit.execution.workspaces import Workspace, WorkspaceStore
from remit.policy.compile import CompiledPolicy
from remit.policy.volumes import workspace_bytes
from remit.telemetry.logs import escape

log = structlog.get_logger(__name__)
_PRUNE_SECONDS: Final = 600.0
FindRelease = Callable[[str, str, int], tuple[Path, str]]
"""The intact copy of what a Deployment releases, by namespace, name and revision, and its digest. Blocks.

Raises MissingReference where it is not there, so far; InvalidInput for what is never mounted; OSError.
"""


@dataclass(frozen=True, slots=True)
class Folders:
    """Lays out the folders that tasks mount, and keeps workspaces and artifacts."""

    artifacts: ArtifactStore
    workspaces: WorkspaceStore
    find_release: FindRelease | None = None
    """None if no releases exist here that tasks could mount."""
    _used: dict[str, frozenset[Path]] = field(default_factory=dict)
    """The data folders of the workspaces that a task has, by its uid."""
    _written: dict[str, tuple[Workspace, ...]] = field(default_factory=dict)
    """The workspaces among them that the task may write to."""

    def lay_out(
        self, task: ExecutionTask, policies: Sequence[CompiledPolicy], resolved: Resolved, *, running: bool = False
    ) -> list[VolumeStatus]:
        """Put the folder of each workspace, artifact and release into `resolved`, under the terms of `policies`; gives
        what is to be pinned. They stay until `let_go`. `running`: it has them already. Blocks.

        Raises:
            MissingReference: an artifact or a release is not there, so far.
            InvalidInput: a workspace is full, or what was pinned is gone, or an artifact is damaged.
            OSError: the disk.
        """
        namespace, pinned = task.metadata.namespace, {each.name: each.digest for each in task.status.volumes}
        pins, uid, written = [], task.metadata.uid, []
        writable = {mount.name for mount in task.spec.volume_mounts if mount.access == "ReadWrite"}
        on_this_host = task.status.backend != "kubernetes"
        # Other volumes belong to the cluster.
        volumes = [each for each in task.spec.volumes if on_this_host or each.artifact]
        wanted_names = [volume.workspace.name for volume in volumes if volume.workspace]
        self._used[uid] = frozenset(self.workspaces.data(namespace, name) for name in wanted_names)
        for volume in volumes:
            if wanted := volume.workspace:
                size = workspace_bytes(policies, wanted)
                ttl = wanted.ttl_seconds_after_last_use
                used = self.workspaces.use(namespace, wanted.name, size, ttl, running=running)
                resolved.folders[volume.name] = str(used.data)
                if volume.name in writable:
                    written.append(used)
            elif source := volume.artifact:
                try:
                    pins.append(self._artifact(task, volume.name, source, pinned.get(volume.name, ""), resolved))
                except StoreUnavailable as error:
                    if running:
                        raise
                    raise MissingReference(f"its artifacts cannot be looked for: {error}") from None
            elif volume.release:
                folder, digest = self._released(namespace, volume.name, volume.release)
                if (before := pinned.get(volume.name, digest)) != digest:
                    message = f"has {digest} by now, and the first attempt had {before}"
                    raise InvalidInput(message, field=f"spec.volumes[{volume.name}]")
                resolved.folders[volume.name] = str(folder)
                pins.append(VolumeStatus(name=volume.name, digest=digest))
        self._written[uid] = tuple(written)
        return pins

    def _artifact(
        self, task: ExecutionTask, volume: str, source: ArtifactVolume, digest: str, resolved: Resolved
    ) -> VolumeStatus:
        """`digest` is what was pinned."""
        namespace = task.metadata.namespace
        found = self.artifacts.find(namespace, source.task, source.name, digest)
        if found is None and digest:
            message = f"the artifact {source.name} of task {source.task} with {digest} is not kept any more"
            raise InvalidInput(message, field=f"spec.volumes[{volume}]")
        if found is None:
            others = ", ".join(each.name for each in self.artifacts.artifacts(namespace, source.task))
            so_far = f"; it has left {others}" if others else ""
            raise MissingReference(f"task {source.task} has left no artifact {source.name} yet{so_far}")
        try:
            resolved.folders[volume] = str(self.artifacts.tree(found, task.metadata.uid))
        except Damaged as error:
            message = (
                f"the artifact {source.name} of task {source.task}: {escape(str(error.filename))}: {error.strerror}"
            )
            raise InvalidInput(message, field=f"spec.volumes[{volume}]") from None
        resolved.artifacts[volume] = found
        return VolumeStatus(name=volume, digest=found.digest)

    def _released(self, namespace: str, volume: str, wanted: ReleaseVolume) -> tuple[Path, str]:
        if self.find_release is None or wanted.deployment is None or wanted.revision is None:
            raise InvalidInput("nothing that tasks could mount is released here", field=f"spec.volumes[{volume}]")
        return self.find_release(namespace, wanted.deployment, wanted.revision)

    def has(self, uid: str) -> bool:
        """Whether folders are laid out for the task `uid`."""
        return uid in self._used

    def workspaces_written(self, uid: str) -> tuple[Workspace, ...]:
        """The workspaces that the task `uid` may write to, as they were laid out for it."""
        return self._written.get(uid, ())

    def workspaces_in_use(self) -> set[Path]:
        """The data folders that tasks have mounted."""
        return {path for paths in list(self._used.values()) for path in paths}

    def let_go(self, uid: str) -> None:
        """The task `uid` has nothing mounted any more. Blocks; raises OSError."""
        self.artifacts.let_go(uid)
        for path in self._used.get(uid, ()):
            self.workspaces.touch(path)
        self._used.pop(uid, None)
        self._written.pop(uid, None)

    def forget(self, uid: str) -> None:
        """`let_go` of a task that did not start."""
        self.artifacts.let_go(uid)
        self._used.pop(uid, None)
        self._written.pop(uid, None)


async def keep_pruning(folders: Folders, pruner: Pruner) -> None:
    """Remove what is out of date now and then, for as long as it is let. What goes wrong is logged."""
    while True:
        # Not immediately: a new operator does not know yet which artifacts the tasks of the previous one have mounted.
        await asyncio.sleep(_PRUNE_SECONDS)
        await asyncio.to_thread(pruner.prune)
        try:
            await asyncio.to_thread(folders.workspaces.prune, folders.workspaces_in_use())
        except (OSError, ValueError) as error:
            log.warning("workspaces could not be pruned", error=str(error))
