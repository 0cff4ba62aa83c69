"""Reads the state of an attempt from its pod and the pod's Events. Pure."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from remit.backends.base import AttemptRequest
from remit.backends.confinementstatus import ConfinementStatus
from remit.backends.ending import CANCELLED_MESSAGE, Ending, conclude
from remit.backends.exceeded import Exceeded, exceeded, remedy
from remit.backends.kubernetes.manifests import CONTAINER
from remit.backends.kubernetes.records import Ended, Records
from remit.backends.outcome import ExitReason, Outcome, Usage
from remit.sandboxpaths import WORKSPACE

_KILLED: Final = 137
_IMAGE_FAILURES: Final = frozenset(
    {
        "ErrImagePull",
        "ImagePullBackOff",
        "InvalidImageName",
        "ErrImageNeverPull",
        "RegistryUnavailable",
        "ImageInspectError",
        "SignatureValidationFailed",
    }
)
_IMAGE_IS_NOT_THERE: Final = ("not found", "NotFound", "does not exist", "couldn't parse image", "access denied")
_CONTAINER_FAILURES: Final = frozenset({"CreateContainerError", "CreateContainerConfigError", "RunContainerError"})
_PASSING: Final = (
    "failed calling webhook",
    "Internal error occurred",
    "error looking up service account",
    "etcdserver:",
    "the object has been modified",
    "timed out",
    "Timeout:",
    "context deadline exceeded",
    "failed to sync",
    "failed to reserve container name",
    "code = Unavailable",
    "connection refused",
)
"""In the words of what is tried again by itself, and may well go then."""
_NOT_STARTED: Final = frozenset({"StartError", "ContainerCannotRun"})
_NODE_WENT: Final = frozenset({"DeletionByTaintManager", "DeletionByPodGC"})
_FOLDER_IS_FULL: Final = re.compile(r'Usage of EmptyDir volume "([^"]*)" exceeds the limit "([^"]*)"')
_POD_IS_FULL: Final = ("exceeded its local ephemeral storage limit", "local storage usage exceeds the total limit")
"""A node that is low on storage evicts pods that kept to their limits, too."""
_WHAT_FAILED: Final = {
    "exec": "spec.command: the image has no such program, or it cannot be run",
    "chdir": "spec.workingDir: there is no such folder",
    "stdin": "its input cannot be read",
    "network": "a pod that a NetworkPolicy allows no connection could still connect",
}


@dataclass(frozen=True, slots=True)
class Terminated:
    """How the container ended, as the kubelet says."""

    exit_code: int
    reason: str
    message: str
    finished_at: datetime | None
    started_at: datetime | None


@dataclass(frozen=True, slots=True)
class Look:
    """The result of one look at a pod: whether its container runs or has ended, else why it waits."""

    running: bool = False
    terminated: Terminated | None = None
    waits: str = ""
    """For people, where it has to wait."""
    refused: Outcome | None = None
    """It will not run."""
    over: bool = False
    """Whether the pod has ended, whatever became of its container."""
    node: str = ""


def look(pod: Mapping[str, Any], name: str = CONTAINER, image_setting: str = "spec.image") -> Look:
    """`name`: of the container that it is about. `image_setting`: where its image was chosen, for people."""
    status = pod.get("status") or {}
    containers = status.get("containerStatuses") or []
    container: Mapping[str, Any] = next((each for each in containers if each["name"] == name), {})
    state = container.get("state") or {}
    node = str((pod.get("spec") or {}).get("nodeName") or "")
    over = status.get("phase") in {"Succeeded", "Failed"}
    if terminated := state.get("terminated"):
        return Look(terminated=_terminated(terminated), over=over, node=node)
    if over:
        return Look(over=True, node=node)
    if state.get("running"):
        return Look(running=True, node=node)
    waiting = state.get("waiting") or {}
    reason, message = str(waiting.get("reason") or ""), str(waiting.get("message") or "")
    image = str(container.get("image") or "")
    if reason in _IMAGE_FAILURES:
        return Look(refused=_no_image(image, reason, message, image_setting), node=node)
    if reason in _CONTAINER_FAILURES and _passes(message):
        return Look(waits=message, node=node)
    if reason in _CONTAINER_FAILURES:
        return Look(refused=Outcome(ExitReason.START_FAILED, f"could not be started: {message or reason}"), node=node)
    return Look(waits=_scheduling(status) or reason, node=node)


def _passes(message: str) -> bool:
    return any(words in message for words in _PASSING)


def _no_image(image: str, reason: str, message: str, image_setting: str) -> Outcome:
    hopeless = reason in {"InvalidImageName", "ErrImageNeverPull"} or any(
        word in message for word in _IMAGE_IS_NOT_THERE
    )
    what = f"image {image} cannot be pulled: {message or reason}"
    advice = f"; correct {image_setting}" if hopeless else ""
    return Outcome(ExitReason.IMAGE_PULL_FAILED, what + advice, category="Infrastructure", retryable=not hopeless)


def _scheduling(status: Mapping[str, Any]) -> str:
    for condition in status.get("conditions") or []:
        if condition["type"] == "PodScheduled" and condition["status"] == "False":
            return str(condition.get("message") or condition.get("reason") or "")
    return ""


def refusal(events: Iterable[Mapping[str, Any]]) -> tuple[Outcome | None, str]:
    """Why a Job has no pod: that it will have none, or for people what it waits for."""
    told = [event for event in events if event.get("reason") == "FailedCreate"]
    if not told:
        return None, ""
    message = str(max(told, key=lambda event: str(event.get("lastTimestamp") or "")).get("message") or "")
    message = message.removeprefix("Error creating: ")
    if is_over_quota(message) or _passes(message):
        return None, message
    return refused(message), message


def trouble(events: Iterable[Mapping[str, Any]]) -> str:
    """Describe the latest failure of a pod to start; empty if there is none.

    The status of a pod says `ContainerCreating` also where its sandbox, its volumes or its network cannot be made. What
    keeps a pod from starting has a reason like `FailedMount`; other warnings, such as `MissingClusterDNS`, do not.
    """
    failures = [event for event in events if str(event.get("reason") or "").startswith("Failed")]
    if not failures:
        return ""
    latest = max(failures, key=lambda event: str(event.get("lastTimestamp") or event.get("eventTime") or ""))
    return f"{latest['reason']}: {latest.get('message') or ''}".removesuffix(": ")


def refused(message: str) -> Outcome:
    """The outcome of an attempt whose pod the cluster's admission refuses."""
    text = f"the cluster does not admit it: {message}"
    return Outcome(ExitReason.ADMISSION_REFUSED, text, category="Infrastructure", retryable=False)


def is_over_quota(message: str) -> bool:
    return "exceeded quota" in message


def over_quota(message: str) -> Outcome:
    text = f"{message}; ask for less, or have the namespace's ResourceQuota raised"
    return Outcome(ExitReason.QUOTA_EXCEEDED, text, category="Infrastructure")


def never_started(
    waited_for: str, request: AttemptRequest, enforcement: ConfinementStatus, *, cancelled: bool
) -> Outcome:
    """Its time was over, or it was cancelled, before the container ran."""
    if cancelled:
        outcome = Outcome(ExitReason.CANCELLED, CANCELLED_MESSAGE)
    elif is_over_quota(waited_for):
        outcome = over_quota(waited_for)
    else:
        why = f": {waited_for}" if waited_for else ""
        text = f"timed out after {request.timeout_seconds:g} s, before it could be started{why}"
        outcome = Outcome(ExitReason.TIMED_OUT, text, exceeded=(Exceeded.TIME,))
    return confined(outcome, enforcement)


def confined(outcome: Outcome, enforcement: ConfinementStatus) -> Outcome:
    return replace(outcome, layers=enforcement.layers, missing=enforcement.missing, enforced_by=enforcement.enforced_by)


def outcome_of(
    pod: Mapping[str, Any],
    records: Records,
    first_stderr: bytes,
    stopped: ExitReason | None,
    request: AttemptRequest,
    enforcement: ConfinementStatus,
    *,
    by_itself: bool = False,
) -> Outcome:
    """How an attempt ended whose container ran, from the last that was seen of its pod and its log.

    `by_itself`: whether the program had ended before its pod was taken away."""
    seen, ended = look(pod), records.how_it_ended
    end = _end(pod, seen, records, first_stderr, stopped, request, by_itself)
    if records.lost_bytes:
        lost = f"{records.lost_bytes} bytes of its output were rotated away on the node before they were read"
        end = replace(end, message=f"{end.message}; {lost}")
    terminated = seen.terminated
    if terminated is not None and terminated.finished_at is not None:
        end = replace(end, finished_at=terminated.finished_at)
    return confined(replace(end, usage=_usage(ended, terminated)), enforcement)


def _end(
    pod: Mapping[str, Any],
    seen: Look,
    records: Records,
    first_stderr: bytes,
    stopped: ExitReason | None,
    request: AttemptRequest,
    by_itself: bool,
) -> Outcome:
    ended, terminated = records.how_it_ended, seen.terminated
    if stopped is None and terminated is not None and terminated.reason in _NOT_STARTED:
        said = terminated.message or records.unexpected.decode(errors="replace").strip() or terminated.reason
        return Outcome(ExitReason.START_FAILED, f"could not be started: {said}")
    if stopped is None and ended is not None and ended.error:
        reason = ExitReason.SANDBOX_UNAVAILABLE if ended.error == "network" else ExitReason.START_FAILED
        return Outcome(reason, f"could not be started: {_why_not(ended, request)}")
    code = ended.exit_code if ended is not None else terminated.exit_code if terminated is not None else None
    if stopped is None and not by_itself and (taken := _taken_away(pod, seen, code, request)) is not None:
        return replace(taken, exit_code=code)
    if ended is None and terminated is None and stopped is None:
        return Outcome(ExitReason.INTERRUPTED, "its pod was taken away, and nobody saw how it ended")
    killed = terminated is not None and terminated.reason == "OOMKilled"
    met = exceeded(
        exit_code=code,
        oom_kills=(ended.oom_kills if ended is not None else 0) or int(killed),
        refused_tasks=None,
        stderr=first_stderr,
        timed_out=stopped is ExitReason.TIMED_OUT,
    )
    if code == _KILLED and ended is None and stopped is None and not killed:
        return Outcome(ExitReason.INTERRUPTED, "its container was killed from outside", code, exceeded=met)
    return conclude(Ending(stopped, code, None, met, first_stderr, kills_counted=False), request)


def _why_not(ended: Ended, request: AttemptRequest) -> str:
    what = _WHAT_FAILED.get(ended.error, ended.error)
    stdin = request.confinement.stdin_volume
    places = {"exec": request.command.argv[0], "chdir": request.confinement.working_dir}
    where = (places | ({"stdin": stdin.sub_path} if stdin else {})).get(ended.error, "")
    return f"{what}: {where}: {os.strerror(ended.errno)}" if where else f"{what}: {os.strerror(ended.errno)}"


def is_being_deleted(pod: Mapping[str, Any]) -> bool:
    return bool((pod.get("metadata") or {}).get("deletionTimestamp"))


def _taken_away(pod: Mapping[str, Any], seen: Look, code: int | None, request: AttemptRequest) -> Outcome | None:
    """Whether it was ended by the cluster, or by somebody who deleted it, and not by itself."""
    status = pod.get("status") or {}
    if is_being_deleted(pod) and not _ended_before_deletion(pod, seen):
        return _disrupted(pod, status, request) or Outcome(
            ExitReason.INTERRUPTED, "somebody else deleted its pod or Job"
        )
    return None if code == 0 else _disrupted(pod, status, request)


def _ended_before_deletion(pod: Mapping[str, Any], seen: Look) -> bool:
    """In whole seconds, as Kubernetes tells them."""
    metadata, ended = pod["metadata"], seen.terminated
    killed_at = moment(metadata["deletionTimestamp"])
    if ended is None or ended.finished_at is None or killed_at is None:
        return False
    return ended.finished_at < killed_at - timedelta(seconds=int(metadata.get("deletionGracePeriodSeconds") or 0))


def _disrupted(pod: Mapping[str, Any], status: Mapping[str, Any], request: AttemptRequest) -> Outcome | None:
    message = str(status.get("message") or "")
    disruption: Mapping[str, Any] = next(
        (
            each
            for each in status.get("conditions") or []
            if each["type"] == "DisruptionTarget" and each["status"] == "True"
        ),
        {},
    )
    why = str(disruption.get("reason") or "")
    if status.get("reason") == "Evicted" and (text := _overfilled(pod, message, request)):
        return Outcome(ExitReason.DISK_EXCEEDED, text, exceeded=(Exceeded.DISK,))
    if status.get("reason") == "NodeLost" or why in _NODE_WENT:
        node = (pod.get("spec") or {}).get("nodeName") or "its node"
        return Outcome(ExitReason.NODE_LOST, f"node {node} went away with it")
    if status.get("reason") in {"Evicted", "Preempting", "Shutdown", "Terminated"} or why:
        text = message.strip() or str(disruption.get("message") or why)
        return Outcome(ExitReason.EVICTED, f"the cluster took its place away: {text}")
    return None


def _overfilled(pod: Mapping[str, Any], message: str, request: AttemptRequest) -> str:
    """Which folder has more than it may; empty where it was not evicted for that."""
    full = _FOLDER_IS_FULL.search(message)
    if full is None:
        advice = remedy(Exceeded.DISK, request.confinement.limits)
        return f"{message.strip()}; {advice}" if any(words in message for words in _POD_IS_FULL) else ""
    volume, limit = full.groups()
    containers = (pod.get("spec") or {}).get("containers") or [{}]
    paths = {each["name"]: each["mountPath"] for each in containers[0].get("volumeMounts") or ()}
    path = paths.get(volume, volume)
    own = path in (WORKSPACE, "/tmp")  # noqa: S108 (the container's own)
    field = "spec.resources.disk" if own else "sizeLimit of its emptyDir in spec.volumes"
    return f"wrote more than {limit} bytes in {path}; set {field} higher"


def _usage(ended: Ended | None, terminated: Terminated | None) -> Usage:
    seconds = 0.0
    if terminated is not None and terminated.started_at and terminated.finished_at:
        seconds = max(0.0, (terminated.finished_at - terminated.started_at).total_seconds())
    if ended is None:
        return Usage(wall_seconds=seconds)
    return Usage(
        cpu_seconds=ended.cpu_seconds,
        max_memory_bytes=ended.max_memory_bytes,
        wall_seconds=seconds,
        throttled_seconds=ended.throttled_seconds,
        max_tasks=ended.max_tasks,
        source="cgroup",
    )


def _terminated(state: Mapping[str, Any]) -> Terminated:
    return Terminated(
        exit_code=int(state.get("exitCode") or 0),
        reason=str(state.get("reason") or ""),
        message=str(state.get("message") or ""),
        finished_at=moment(state.get("finishedAt")),
        started_at=moment(state.get("startedAt")),
    )


def moment(text: Any) -> datetime | None:
    """A time of Kubernetes', in UTC."""
    if not isinstance(text, str) or not text:
        return None
    return datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone(UTC)
