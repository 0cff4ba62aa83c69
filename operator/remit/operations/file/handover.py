"""The data that an operator hands over to its own program in a Job, which performs one file operation there. Pure.

The program asks the same policies as the operator would, about whatever only shows while it works. So both must be of
the same version.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Final

import orjson

from remit import __version__
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.api.operations import FileOperation
from remit.backends.failure import OperationFailed
from remit.policy.compile import CompiledPolicy, compile_policy
from remit.policy.grant import Grant
from remit.policy.request import Installation, request_for

_NOT_ASKED: Final = {
    *("env", "env_from", "private_files", "stdin", "stdin_from", "artifacts", "results", "schedule", "working_dir")
}
"""Parts of a task's spec that the program does not get."""
_NOT_ABOUT_FILES: Final = (
    *("commands", "scripts", "egress", "processes", "http", "databases", "containers", "releases", "rate"),
)
"""Parts of a policy's spec that the program does not get."""


@dataclass(frozen=True, slots=True)
class Handover:
    """`values` are the referenced values, as in `OperationRequest`. `file_size` is the most bytes that a file may have
    that is written; None means no limit."""

    grant: Grant
    values: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    file_size: int | None = None

    @property
    def file(self) -> FileOperation:
        """The operation."""
        subject = self.grant.request.subject
        assert isinstance(subject, FileOperation)  # noqa: S101  # by its operation
        return subject

    @property
    def mounts(self) -> list[str]:
        """The folders that it may work in."""
        return [mount.mount_path for mount in self.grant.request.mounts]


def encode(task: ExecutionTask, handover: Handover) -> bytes:
    """The handover for the program's standard input. `handover.grant` was given to `task`."""
    grant = handover.grant
    request = grant.request
    return orjson.dumps(
        {
            "version": __version__,
            "task": {
                "metadata": {"name": task.metadata.name, "namespace": request.namespace, "labels": request.labels},
                "spec": task.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=_NOT_ASKED),
            },
            "image": request.image,
            "policies": _written(grant.policies, grant),
            "ceilings": _written(grant.ceilings, grant),
            "values": {name: base64.b64encode(value).decode() for name, value in handover.values.items()},
            "fileSize": handover.file_size,
        }
    )


def decode(text: bytes) -> Handover:
    """Decode what `encode` made. Raises `OperationFailed` if another version made it, and `RemitError` if it was not
    made by `encode`."""
    said: dict[str, Any] = orjson.loads(text)
    if said["version"] != __version__:
        raise OperationFailed(
            "BackendError",
            f"the image for file operations has Remit {__version__}, and the operator is {said['version']}; start the"
            " operator with --remit-image of its own version",
            retryable=False,
        )
    installation = Installation(backend="kubernetes", remit_image=said["image"])
    task = ExecutionTask.parse(said["task"])
    return Handover(
        grant=Grant(
            replace(request_for(task, None, installation=installation), backend="kubernetes", image=said["image"]),
            [compile_policy(CommandPolicy.parse(each)) for each in said["policies"]],
            [compile_policy(CommandPolicy.parse(each)) for each in said["ceilings"]],
        ),
        values={name: base64.b64decode(value) for name, value in said["values"].items()},
        file_size=said["fileSize"],
    )


def _written(policies: Sequence[CompiledPolicy], grant: Grant) -> list[dict[str, Any]]:
    """The policies that allow the task, without their rules about other operations."""
    chosen = [each for each in policies if each.selects(grant.request.namespace, grant.request.labels)]
    return [
        {
            "metadata": {"name": each.name, "namespace": each.namespace, "uid": each.uid},
            "spec": each.spec.model_dump(mode="json", by_alias=True, exclude_unset=True, exclude=set(_NOT_ABOUT_FILES)),
        }
        for each in chosen
    ]
