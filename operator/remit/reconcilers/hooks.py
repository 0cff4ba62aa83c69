"""The hooks of a release, as the ExecutionTasks that they are."""

from __future__ import annotations

import contextlib
import datetime
import hashlib
from typing import Final

from remit.api import ExecutionTask
from remit.errors import ApiError, DeploymentError
from remit.reconcilers.cache import Cache
from remit.reconcilers.kube import TASKS, Kube, Object
from remit.release import HookKey, HookView, RunHook

RELEASE_LABEL: Final = "remit.dev/deployment"
_REVISION, _STAGE, _HOOK = "remit.dev/revision", "remit.dev/stage", "remit.dev/hook"
_BEGAN: Final = "remit.dev/release-began"
"""Tells the release of a revision from an earlier one of the same: what hooks said then, they did not say now."""
_LONGEST_NAME: Final = 180
"""Of what is left of a Deployment's name in that of a task."""


def selector(name: str) -> str:
    """Finds the hooks of the Deployment of this name."""
    return f"{RELEASE_LABEL}={_label(name)},{_HOOK}"


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


def observe(cache: Cache, key: str, began: datetime.datetime) -> dict[HookKey, HookView]:
    """What became of all hooks of a Deployment's release that began then."""
    found = {}
    for obj in cache.all(TASKS.plural):
        if release_key(obj) == key and (hook := key_of_hook(obj)) is not None and _of(obj, began):
            found[hook] = _view(ExecutionTask.parse(obj))
    return found


def _view(task: ExecutionTask) -> HookView:
    phase, message = task.status.phase, task.status.message
    if phase is None or not phase.final:
        return HookView("Running", message)
    return HookView("Succeeded" if phase == "Succeeded" else "Failed", f"task {task.metadata.name}: {message}")


async def run(kube: Kube, deployment: Object, step: RunHook, began: datetime.datetime) -> tuple[Object, bool]:
    """The hook's task in the release that began then, and whether it was created now. Raises DeploymentError.

    That of an earlier release of the same revision makes way for it.
    """
    namespace, body = deployment["metadata"]["namespace"], _task(deployment, step, began)
    name = body["metadata"]["name"]
    for _ in range(2):
        try:
            return await kube.create(TASKS, namespace, body), True
        except ApiError as error:
            if error.status != 409:
                message = f"hook {step.key.name}: the API server refuses its task: {error}"
                raise DeploymentError(message, reason="HookRefused", retryable=error.retryable) from None
        with contextlib.suppress(ApiError):
            old = await kube.get(TASKS, namespace, name)
            if deployment["metadata"]["uid"] not in {
                each["uid"] for each in old["metadata"].get("ownerReferences", ())
            }:
                message = f"hook {step.key.name}: there is a task {name} already; remove it, or rename the hook"
                raise DeploymentError(message, reason="NameTaken")
            if _of(old, began):
                return old, False
            await kube.delete(TASKS, namespace, name, uid=old["metadata"]["uid"])
    message = f"hook {step.key.name}: its task {name} of an earlier release is not gone yet"
    raise DeploymentError(message, reason="HookNotGone", retryable=True)


def _task(deployment: Object, step: RunHook, began: datetime.datetime) -> Object:
    metadata, key, hook = deployment["metadata"], step.key, step.hook
    owner = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "Deployment",
        "name": metadata["name"],
        "uid": metadata["uid"],
        "controller": True,
    }
    labels = {
        **hook.labels,
        RELEASE_LABEL: _label(metadata["name"]),
        _REVISION: str(key.revision),
        _STAGE: key.stage,
        _HOOK: key.name,
        _BEGAN: _moment(began),
    }
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {
            "name": f"{_short_name(metadata['name'])}-{key.revision}-{_short(key.stage)}-{key.name}",
            "namespace": metadata["namespace"],
            "labels": labels,
            "ownerReferences": [owner],
        },
        "spec": hook.task.model_dump(mode="json", by_alias=True, exclude_unset=True),
    }


async def cancel(kube: Kube, cache: Cache, key: str) -> None:
    """End those that still run: their release is over."""
    for obj in cache.all(TASKS.plural):
        if release_key(obj) == key and _view(ExecutionTask.parse(obj)).state == "Running":
            metadata = obj["metadata"]
            with contextlib.suppress(ApiError):  # it ended meanwhile
                await kube.patch(TASKS, metadata["namespace"], metadata["name"], {"spec": {"cancel": True}})


def _short(stage: str) -> str:
    return {"PrePromotion": "pre", "PostPromotion": "post"}.get(stage, stage.lower())


def _short_name(name: str) -> str:
    """A name with room for what is added to it; one that was cut is still nobody else's."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _label(name: str) -> str:
    """A name as the value of a label, which ends with a letter or digit."""
    return name[:63].rstrip("-.")


def _of(task: Object, began: datetime.datetime) -> bool:
    return bool((task["metadata"].get("labels") or {}).get(_BEGAN) == _moment(began))


def _moment(moment: datetime.datetime) -> str:
    return f"{moment:%Y%m%dT%H%M%SZ}"
