"""Represents the hooks of a release as ExecutionTasks.

Any user who may create tasks can give one the name, labels and owner of a hook. A hook's task is therefore identified
by its uid, which the API server returns at its creation and the release stores. Labels are for people and selectors.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
from collections.abc import Collection, Iterable, Mapping
from typing import Final, NamedTuple

from remit.api.controllerref import controller_of, is_controlled_by
from remit.api.deployment import Deployment
from remit.api.deploymentstatus import STAGES
from remit.api.executiontask import ExecutionTask
from remit.api.group import API_VERSION
from remit.api.phases import FINAL_PHASES
from remit.errors import ApiError, DeploymentError, InvalidInput
from remit.kube.client import TASKS, Kube, Object
from remit.kube.indexer import CONTROLLER
from remit.kube.reflector import Reflector
from remit.release.model import HookKey, HookView, hook_uids
from remit.release.steps import RunHook

RELEASE_LABEL: Final = "remit.dev/deployment"
_REVISION, _STAGE, _HOOK = "remit.dev/revision", "remit.dev/stage", "remit.dev/hook"
_LONGEST_NAME: Final = 180
"""Limit of the part of a task's name that comes from the Deployment's name."""
_ATTEMPTS: Final = 3
MOST_DELETED: Final = 50
"""Hooks of forgotten revisions that one look deletes. Their deletion brings the next look."""


class CreatedHook(NamedTuple):
    """A hook's task, and how it came about."""

    task: Object
    created: bool
    """It was created now."""
    replaced: bool
    """Another task of that name, which this release did not create, was deleted for it."""


def selector(name: str) -> str:
    """Finds the hooks of the Deployment of this name."""
    return f"{RELEASE_LABEL}={_label(name)},{_HOOK}"


def hook_tasks(deployment: Object, tasks: Iterable[Object]) -> dict[HookKey, ExecutionTask]:
    """Select those of `tasks` that are hooks of the Deployment, for display. Of the last release, only what it
    remembers; what earlier releases remembered is not kept, so theirs are known by what they say of themselves."""
    found = {}
    last = Deployment.parse(deployment).status.pipeline.release
    for obj in tasks:
        key = key_of_hook(obj)
        if key is None or not is_controlled_by(obj, deployment):
            continue
        if last is None or last.revision != key.revision or hook_uids(last).get(key) == obj["metadata"]["uid"]:
            with contextlib.suppress(InvalidInput):
                found[key] = ExecutionTask.parse(obj)
    return found


def key_of_hook(obj: Object) -> HookKey | None:
    """The hook whose task `obj` is according to its labels; None if they name no hook."""
    labels = obj["metadata"].get("labels") or {}
    revision, name = labels.get(_REVISION, ""), labels.get(_HOOK)
    stage = next((each for each in STAGES if each == labels.get(_STAGE)), None)
    if not name or stage is None or not (revision.isascii() and revision.isdecimal()):
        return None
    return HookKey(int(revision), stage, name)


def release_key(obj: Object) -> str | None:
    """The key of the Deployment that `obj` names as its controller, if it does."""
    name = controller_of(obj, API_VERSION, "Deployment")
    return None if name is None else f"{obj['metadata']['namespace']}/{name}"


def observe(tasks: Reflector, uids: Mapping[HookKey, str]) -> dict[HookKey, HookView]:
    """Returns the states of the hooks whose tasks have these uids. A hook whose task was deleted is omitted."""
    found = {key: tasks.objects.get_by_uid(uid) for key, uid in uids.items()}
    return {key: _view(obj) for key, obj in found.items() if obj is not None}


def _view(obj: Object) -> HookView:
    metadata = obj["metadata"]
    try:
        status = ExecutionTask.parse(obj).status
    except InvalidInput as error:
        return HookView("Failed", f"task {metadata['name']} cannot be read: {error}", metadata["uid"])
    if status.phase is None or not status.phase.final:
        return HookView("Running", status.message, metadata["uid"])
    message = f"task {metadata['name']}: {status.message}"
    return HookView("Succeeded" if status.phase == "Succeeded" else "Failed", message, metadata["uid"])


async def run(
    kube: Kube, deployment: Object, step: RunHook, uid: str | None, annotations: Mapping[str, str] | None = None
) -> CreatedHook:
    """The hook's task. It is created, unless the one that is there has the `uid` that is known. Raises DeploymentError.

    Another task of that name which names the Deployment as its controller is deleted first. It is left from an earlier
    release of the revision, or from an operator that was killed before it could store the uid, or another user created
    it. None of these shows that the hook ran in this release and at this stage.
    """
    namespace, body = deployment["metadata"]["namespace"], _task(deployment, step, annotations or {})
    name, replaced = body["metadata"]["name"], False
    for _ in range(_ATTEMPTS):
        try:
            return CreatedHook(await kube.create(TASKS, namespace, body), created=True, replaced=replaced)
        except ApiError as error:
            if error.status != 409:
                message = f"hook {step.key.name}: the API server refuses its task: {error}"
                raise DeploymentError(message, reason="HookRefused", retryable=error.retryable) from None
        with contextlib.suppress(ApiError):
            existing = await kube.get(TASKS, namespace, name)
            if existing["metadata"]["uid"] == uid:
                return CreatedHook(existing, created=False, replaced=False)
            if not is_controlled_by(existing, deployment):
                message = f"hook {step.key.name}: there is a task {name} already; remove it, or rename the hook"
                raise DeploymentError(message, reason="NameTaken")
            await kube.delete(TASKS, namespace, name, uid=existing["metadata"]["uid"])
            replaced = True
    message = f"hook {step.key.name}: another task {name} is not gone yet"
    raise DeploymentError(message, reason="HookNotGone", retryable=True)


def _task(deployment: Object, step: RunHook, annotations: Mapping[str, str]) -> Object:
    metadata, key, hook = deployment["metadata"], step.key, step.hook
    owner = {
        "apiVersion": API_VERSION,
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
    }
    return {
        "apiVersion": API_VERSION,
        "kind": "ExecutionTask",
        "metadata": {
            "name": _task_name(metadata["name"], key),
            "namespace": metadata["namespace"],
            "labels": labels,
            "annotations": dict(annotations),
            "ownerReferences": [owner],
        },
        "spec": _with_release(
            hook.task.model_dump(mode="json", by_alias=True, exclude_unset=True), metadata["name"], key
        ),
    }


def _with_release(spec: Object, deployment: str, key: HookKey) -> Object:
    """A hook's task, whose volumes of a release that name none are of this one."""
    own = {"deployment": deployment, "revision": key.revision}
    for volume in spec.get("volumes", ()):
        if volume.get("release") == {}:
            volume["release"] = own
    return spec


async def cancel(kube: Kube, tasks: Reflector, deployment: Object) -> None:
    """Cancels the hooks that still run after their release has ended. Raises `ApiError` after all have been tried."""
    failed: ApiError | None = None
    for obj in tasks.objects.by_index(CONTROLLER, deployment["metadata"]["uid"]):
        metadata = obj["metadata"]
        if obj["spec"].get("cancel") or _is_over(obj):
            continue
        if not is_controlled_by(obj, deployment) or _HOOK not in (metadata.get("labels") or {}):
            continue
        body = {"metadata": {"uid": metadata["uid"]}, "spec": {"cancel": True}}
        try:
            tasks.observe(await kube.patch(TASKS, metadata["namespace"], metadata["name"], body))
        except ApiError as error:
            if error.status not in {404, 409}:
                failed = error
    if failed is not None:
        raise failed


async def prune(kube: Kube, tasks: Reflector, deployment: Object, revisions: Collection[int]) -> None:
    """Delete finished hooks of revisions that are not kept any more; `revisions` are those that are. A revision newer
    than all of them is one that status does not have yet. Raises `ApiError` once all have been tried."""
    newest = max(revisions, default=0)

    def is_forgotten(obj: Object) -> bool:
        key = key_of_hook(obj)
        if key is None or key.revision in revisions or key.revision > newest:
            return False
        return _is_over(obj) and not obj["metadata"].get("deletionTimestamp") and is_controlled_by(obj, deployment)

    forgotten = filter(is_forgotten, tasks.objects.by_index(CONTROLLER, deployment["metadata"]["uid"]))
    failed: ApiError | None = None
    for obj in list(itertools.islice(forgotten, MOST_DELETED)):
        metadata = obj["metadata"]
        try:
            await kube.delete(TASKS, metadata["namespace"], metadata["name"], uid=metadata["uid"])
        except ApiError as error:
            if error.status not in {404, 409}:
                failed = error
    if failed is not None:
        raise failed


def _is_over(obj: Object) -> bool:
    return (obj.get("status") or {}).get("phase") in FINAL_PHASES


def _task_name(deployment: str, key: HookKey) -> str:
    return f"{_short_name(deployment)}-{key.revision}-{_short(key.stage)}-{key.name}"


def _short(stage: str) -> str:
    return {"PrePromotion": "pre", "PostPromotion": "post"}.get(stage, stage.lower())


def _short_name(name: str) -> str:
    """Returns a name that is short enough for suffixes. A shortened name is still unique."""
    if len(name) <= _LONGEST_NAME:
        return name
    return f"{name[:_LONGEST_NAME].rstrip('-.')}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


def _label(name: str) -> str:
    """A name as the value of a label, which ends with a letter or digit."""
    return name[:63].rstrip("-.")
