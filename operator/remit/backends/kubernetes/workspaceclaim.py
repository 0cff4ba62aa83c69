"""The PersistentVolumeClaim that keeps a workspace, and which pods mount it. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

import orjson

from remit.api.quantity import format_bytes, parse_bytes
from remit.backends.base import AttemptRequest
from remit.backends.kubernetes import labels
from remit.errors import InvalidInput
from remit.sandbox import ClaimMount

SELECTOR: Final = ",".join(f"{name}={value}" for name, value in labels.WORKSPACE.items())
"""Selects the claims of workspaces."""
LAST_USED: Final = "remit.dev/last-used"
"""The time of day, for people: no decision depends on it."""
LAST_USED_BY: Final = "remit.dev/last-used-by"
"""The attempt that began last. Each has another id, so each begin gives the claim another resourceVersion."""
TTL: Final = "remit.dev/ttl-seconds-after-last-use"
IDLE: Final = "remit.dev/idle"
"""A mark of `ElapsedTime`: for how long nothing has used it. Not set: something uses it, or nobody has looked since."""
_PREFIX: Final = "remit-workspace-"
_OVER: Final = frozenset({"Succeeded", "Failed"})
_CONTAINERS: Final = ("containers", "initContainers", "ephemeralContainers")


@dataclass(frozen=True, slots=True)
class WorkspaceClaim:
    """A claim as it was read. Sizes are in bytes; None: not known, so far."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    size: int | None
    """What was asked for."""
    capacity: int | None
    storage_class: str
    phase: str
    """Such as `Pending`, `Bound` or `Terminating`."""
    last_used: str
    ttl_seconds: int | None
    idle: object

    @classmethod
    def of(cls, claim: Mapping[str, Any]) -> WorkspaceClaim | None:
        """None: Remit did not make it."""
        metadata, spec, status = claim["metadata"], claim.get("spec") or {}, claim.get("status") or {}
        if not labels.WORKSPACE.items() <= (metadata.get("labels") or {}).items():
            return None
        if not metadata["name"].startswith(_PREFIX):
            return None
        told = metadata.get("annotations") or {}
        going = "deletionTimestamp" in metadata
        return cls(
            metadata["namespace"],
            metadata["name"].removeprefix(_PREFIX),
            metadata["uid"],
            metadata["resourceVersion"],
            _bytes(((spec.get("resources") or {}).get("requests") or {}).get("storage")),
            _bytes((status.get("capacity") or {}).get("storage")),
            str(spec.get("storageClassName") or ""),
            "Terminating" if going else str(status.get("phase") or ""),
            str(told.get(LAST_USED) or metadata.get("creationTimestamp") or ""),
            _seconds(told.get(TTL)),
            _mark(told.get(IDLE)),
        )

    @property
    def is_going(self) -> bool:
        """Whether it was deleted, and stays until no pod mounts it."""
        return self.phase == "Terminating"


@dataclass(frozen=True, slots=True)
class PodUse:
    """A pod that mounts a claim and has not ended. `attempt` is empty for a stranger's."""

    pod: str
    attempt: str
    writes: bool


def claim_name(workspace: str) -> str:
    return f"{_PREFIX}{workspace}"


def claims(request: AttemptRequest) -> dict[str, ClaimMount]:
    """The workspaces of an attempt, by their names; where one is mounted twice, so that it can be written."""
    volumes: list[Any] = [*request.confinement.mounts, request.confinement.stdin_volume]
    found = [mount for mount in volumes if isinstance(mount, ClaimMount)]
    return {mount.workspace: mount for mount in sorted(found, key=lambda mount: not mount.read_only)}


def claim(
    mount: ClaimMount, namespace: str, storage_class: str, annotations: Mapping[str, str | None]
) -> dict[str, Any]:
    """The PersistentVolumeClaim of a workspace. It belongs to no task."""
    spec = {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": str(mount.size_bytes)}}}
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "metadata": {
            "name": claim_name(mount.workspace),
            "namespace": namespace,
            "labels": dict(labels.WORKSPACE),
            "annotations": {name: text for name, text in annotations.items() if text is not None},
        },
        "spec": {**spec, **({"storageClassName": storage_class} if storage_class else {})},
    }


def begun(attempt: str, ttl_seconds: int | None, now: str) -> dict[str, str | None]:
    """The annotations of a claim that the attempt uses from now on; None: it has no such one."""
    ttl = None if ttl_seconds is None else str(ttl_seconds)
    return {LAST_USED: now, LAST_USED_BY: attempt, TTL: ttl, IDLE: None}


def idle(mark: object) -> dict[str, str]:
    """The annotation of a claim that nothing uses."""
    return {IDLE: orjson.dumps(mark).decode()}


def uses(pods: Iterable[Mapping[str, Any]], workspace: str) -> Iterator[PodUse]:
    """Which of `pods` mount the workspace of their namespace."""
    for pod in pods:
        if (pod.get("status") or {}).get("phase") in _OVER:
            continue
        spec, metadata = pod.get("spec") or {}, pod["metadata"]
        volumes = {
            volume["name"]: bool(source.get("readOnly"))
            for volume in spec.get("volumes") or []
            if (source := volume.get("persistentVolumeClaim")) and source.get("claimName") == claim_name(workspace)
        }
        if volumes:
            mounts = [
                mount
                for kind in _CONTAINERS
                for container in spec.get(kind) or []
                for mount in container.get("volumeMounts") or []
            ]
            writes = any(not (mount.get("readOnly") or volumes.get(mount["name"], True)) for mount in mounts)
            yield PodUse(metadata["name"], str((metadata.get("labels") or {}).get(labels.ATTEMPT, "")), writes)


def size_told(found: WorkspaceClaim, wanted: int) -> str:
    """The message for a task that asks for less than there is, else the empty string."""
    if found.size is None or wanted >= found.size:
        return ""
    return (
        f"workspace {found.name} has {format_bytes(found.size)}, and the task asks for {format_bytes(wanted)}; a claim"
        f" does not shrink: to have a smaller one made, remove it with 'remit workspace rm {found.name}'"
    )


def _bytes(quantity: object) -> int | None:
    """None also for what no task can ask for, such as `1Ei`."""
    try:
        return parse_bytes(str(quantity))
    except InvalidInput:
        return None


def _seconds(text: object) -> int | None:
    """None: it is kept. So is one with a text that is no number, which somebody wrote by hand."""
    return int(text) if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) < 12 else None


def _mark(text: object) -> object:
    try:
        return orjson.loads(str(text))
    except orjson.JSONDecodeError:
        return None
