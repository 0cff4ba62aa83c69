"""The hooks of a release, as the ExecutionTasks that they are."""

from __future__ import annotations

import contextlib
from typing import Final

from remit.api import ExecutionTask
from remit.errors import ApiError
from remit.reconcilers.cache import Cache
from remit.reconcilers.kube import TASKS, Kube, Object
from remit.release import HookKey, HookView, RunHook

RELEASE_LABEL: Final = "remit.dev/deployment"
_REVISION, _STAGE, _HOOK = "remit.dev/revision", "remit.dev/stage", "remit.dev/hook"


def selector(name: str) -> str:
    """Finds the hooks of the Deployment of this name."""
    return f"{RELEASE_LABEL}={name[:63]},{_HOOK}"


def key_of_hook(obj: Object) -> HookKey | None:
    """Which hook's task `obj` is, if it is one's."""
    labels = obj["metadata"].get("labels") or {}
    if _HOOK not in labels or release_key(obj) is None:
        return None
    return HookKey(int(labels[_REVISION]), labels[_STAGE], labels[_HOOK])


def release_key(obj: Object) -> str | None:
    """The key of the Deployment whose hook `obj` is, if it is one."""
    metadata = obj["metadata"]
    for owner in metadata.get("ownerReferences", ()):
        if owner.get("kind") == "Deployment" and owner.get("controller"):
            return f"{metadata['namespace']}/{owner['name']}"
    return None


def observe(cache: Cache, key: str) -> dict[HookKey, HookView]:
    """What became of all hooks of a Deployment."""
    found = {}
    for obj in cache.all(TASKS.plural):
        if release_key(obj) == key and (hook := key_of_hook(obj)) is not None:
            found[hook] = _view(ExecutionTask.parse(obj))
    return found


def _view(task: ExecutionTask) -> HookView:
    phase, message = task.status.phase, task.status.message
    if phase is None or not phase.final:
        return HookView("Running", message)
    return HookView("Succeeded" if phase == "Succeeded" else "Failed", f"task {task.metadata.name}: {message}")


async def run(kube: Kube, deployment: Object, step: RunHook) -> Object | None:
    """Create the hook's task; None if it is there already."""
    metadata = deployment["metadata"]
    key, hook = step.key, step.hook
    body = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {
            "name": f"{metadata['name']}-{key.revision}-{_short(key.stage)}-{key.name}",
            "namespace": metadata["namespace"],
            "labels": {
                **hook.labels,
                RELEASE_LABEL: metadata["name"][:63],
                _REVISION: str(key.revision),
                _STAGE: key.stage,
                _HOOK: key.name,
            },
            "ownerReferences": [
                {
                    "apiVersion": "remit.dev/v1alpha1",
                    "kind": "Deployment",
                    "name": metadata["name"],
                    "uid": metadata["uid"],
                    "controller": True,
                }
            ],
        },
        "spec": hook.task.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }
    try:
        return await kube.create(TASKS, metadata["namespace"], body)
    except ApiError as error:
        if error.status == 409:
            return None
        raise


async def cancel(kube: Kube, cache: Cache, key: str) -> None:
    """End those that still run: their release is over."""
    for obj in cache.all(TASKS.plural):
        if release_key(obj) == key and _view(ExecutionTask.parse(obj)).state == "Running":
            metadata = obj["metadata"]
            with contextlib.suppress(ApiError):  # it ended meanwhile
                await kube.patch(TASKS, metadata["namespace"], metadata["name"], {"spec": {"cancel": True}})


def _short(stage: str) -> str:
    return {"PrePromotion": "pre", "PostPromotion": "post"}.get(stage, stage.lower())
