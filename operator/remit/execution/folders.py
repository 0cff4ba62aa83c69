"""The folders of this host that a task's volumes stand for: workspaces, and artifacts of earlier tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from remit.api import ExecutionTask
from remit.api.executiontaskstatus import VolumeStatus
from remit.errors import InvalidInput, MissingReference
from remit.execution.artifacts import ArtifactStore
from remit.execution.resolved import Resolved
from remit.execution.workspaces import WorkspaceStore
from remit.policy import CompiledPolicy
from remit.policy.volumes import workspace_bytes


@dataclass(frozen=True, slots=True)
class Folders:
    """Where they are kept."""

    artifacts: ArtifactStore
    workspaces: WorkspaceStore

    def lay_out(
        self, task: ExecutionTask, policies: Sequence[CompiledPolicy], resolved: Resolved
    ) -> list[VolumeStatus]:
        """Put the folder of each workspace and each artifact into `resolved`, under the terms of `policies`; gives what
        is to be pinned. Blocks.

        Raises:
            MissingReference: an artifact is not there, so far.
            InvalidInput: a workspace is full, or what was pinned is gone.
            OSError: the disk.
        """
        namespace, pinned = task.metadata.namespace, {each.name: each.digest for each in task.status.volumes}
        pins = []
        for volume in task.spec.volumes:
            if wanted := volume.workspace:
                size = workspace_bytes(policies, wanted)
                used = self.workspaces.use(namespace, wanted.name, size, wanted.ttl_seconds_after_last_use)
                resolved.folders[volume.name] = str(used.data)
            elif source := volume.artifact:
                digest = pinned.get(volume.name, "")
                found = self.artifacts.find(namespace, source.task, source.name, digest)
                if found is None and digest:
                    message = f"the artifact {source.name} of task {source.task} with {digest} is not kept any more"
                    raise InvalidInput(message, field=f"spec.volumes[{volume.name}]")
                if found is None:
                    raise MissingReference(f"task {source.task} has left no artifact {source.name} yet")
                resolved.folders[volume.name] = str(self.artifacts.tree(found))
                pins.append(VolumeStatus(name=volume.name, digest=found.digest))
        return pins
