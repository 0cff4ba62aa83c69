"""Reads the state of a release from the cluster's objects. Pure."""

from __future__ import annotations

import datetime
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from remit.api.slots import SLOTS, Slot, other
from remit.release.model import InstanceView, ObservedState, SlotView
from remit.release.targets.kubernetes.cluster import Object
from remit.release.targets.kubernetes.identity import REVISION, SLOT
from remit.release.targets.kubernetes.manifests import DRAINING, LIVE, SERVING, SHARE
from remit.telemetry.logs import escape

_STUCK: Final = frozenset(
    {
        "CrashLoopBackOff",
        "CreateContainerConfigError",
        "CreateContainerError",
        "ErrImageNeverPull",
        "ErrImagePull",
        "ImageInspectError",
        "ImagePullBackOff",
        "InvalidImageName",
        "RunContainerError",
    }
)
"""What a container waits for that is a failure."""
_FINAL: Final = frozenset({"ErrImageNeverPull", "InvalidImageName"})
_PULLING: Final = frozenset({"ErrImagePull", "ImagePullBackOff"})
_CREATING: Final = frozenset({"ContainerCreating", "PodInitializing"})
_CREATION_TIME: Final = datetime.timedelta(seconds=5)
"""How long a pod that has a node may take before its Events are read."""
_UNHEALTHY: Final = "its health check fails"
_NO_SUCH_IMAGE: Final = re.compile(r"not found|NotFound|manifest unknown|does not exist", re.IGNORECASE)
"""What registries say of an image that they do not have, as runtimes pass it on; a registry may also be just away."""


@dataclass(frozen=True, slots=True)
class OwnedObjects:
    """All that a look brings; only what is this Deployment's own."""

    workloads: Mapping[Slot, Object] = field(default_factory=dict)
    pods: Sequence[Object] = ()
    service: Object | None = None
    preview: Object | None = None
    slices: Sequence[Object] = ()
    """The EndpointSlices of `service`."""
    start_failures: Mapping[str, str] = field(default_factory=dict)
    """By the pod's uid, what its Events say of why no container of it is created."""

    @property
    def live(self) -> Slot | None:
        return _slot_in(self.service)

    @property
    def share(self) -> int:
        return int(_annotations(self.service).get(SHARE, "0"))

    def pods_of(self, slot: Slot) -> list[Object]:
        """The pods of the side's present workload that are not being deleted. Pods of a workload that was deleted may
        be there a while longer, ready as ever: they are nobody's proof."""
        revision = _annotations(self.workloads.get(slot)).get(REVISION)
        return [
            pod
            for pod in self.all_of(slot)
            if pod["metadata"]["labels"].get(REVISION) == revision and not pod["metadata"].get("deletionTimestamp")
        ]

    def all_of(self, slot: Slot) -> list[Object]:
        return [pod for pod in self.pods if pod["metadata"]["labels"].get(SLOT) == slot]


def observed(seen: OwnedObjects, prepared: frozenset[int], now: datetime.datetime) -> ObservedState:
    return ObservedState(
        blue=_view(seen, "blue", now),
        green=_view(seen, "green", now),
        live=seen.live,
        share=seen.share,
        converged=_converged(seen),
        preview=_slot_in(seen.preview),
        address=_address(seen.service),
        prepared=prepared,
        watched=True,
    )


def _view(seen: OwnedObjects, slot: Slot, now: datetime.datetime) -> SlotView:
    workload = seen.workloads.get(slot)
    if workload is None:
        return SlotView(started=len(seen.all_of(slot)))
    leaving = {pod["metadata"]["name"]: why for pod in seen.pods_of(slot) if (why := _disrupted(pod))}
    pods = [pod for pod in seen.pods_of(slot) if pod["metadata"]["name"] not in leaving]
    troubles = {pod["metadata"]["name"]: why for pod in pods if (why := _trouble(pod, now))}
    instances = {pod["metadata"]["name"]: _instance(pod) for pod in pods}
    disrupted = next((f"{name}: {why}" for name, why in sorted(leaving.items())), "")
    refused = next(
        (each.get("message", "") for each in _conditions(workload, "ReplicaFailure") if each["status"] == "True"), ""
    )
    # What ended an instance is the cause more often than the silence of one that still starts.
    causes = sorted(troubles.items(), key=lambda each: (each[1] == _UNHEALTHY, each[0]))
    trouble = next((f"{name}: {why}" for name, why in causes), "")
    waiting = next((why for pod in pods if (why := _unscheduled(pod) or _start_failure(pod, seen.start_failures))), "")
    return SlotView(
        revision=int(_annotations(workload).get(REVISION, "0")) or None,
        wanted=workload["spec"].get("replicas", 1),
        started=len(seen.all_of(slot)),
        healthy=sum(each.healthy for each in instances.values()),
        failed=len(troubles),
        hopeless=escape(next((why for pod in pods if (why := _hopeless(pod))), "")),
        restarts=sum(each.restarts for each in instances.values()),
        draining=_annotations(workload).get(DRAINING) == "true",
        message=escape(trouble or refused or waiting or disrupted),
        instances=instances,
    )


def _instance(pod: Object) -> InstanceView:
    containers = _containers(pod)
    restarts = sum(each.get("restartCount", 0) for each in containers)
    ended = any((each.get("state") or {}).keys() & {"terminated", "waiting"} for each in containers)
    return InstanceView("" if ended else f"{pod['metadata']['uid']}/{restarts}", _ready(pod), restarts)


def _disrupted(pod: Object) -> str:
    """Why its node or the scheduler takes it away, such as an eviction; empty where nobody does.

    Its successor is another pod, so it is no instance any more, and its end is not a crash. A pod that is restarted in
    place never has the phase `Failed`, as its `restartPolicy` is `Always`.
    """
    status = pod.get("status") or {}
    if status.get("phase") == "Failed":
        return ": ".join(filter(None, [status.get("reason", "Failed"), status.get("message", "")]))
    disrupting = (each for each in _conditions(pod, "DisruptionTarget") if each["status"] == "True")
    return next((each.get("message") or each.get("reason") or "it is disrupted" for each in disrupting), "")


def _trouble(pod: Object, now: datetime.datetime) -> str:
    """Why it has failed; empty where it has not, or not yet."""
    if _ready(pod):
        return ""
    for container in _containers(pod):
        state, before = container.get("state") or {}, (container.get("lastState") or {}).get("terminated")
        waiting, ended = state.get("waiting") or {}, state.get("terminated") or before
        if waiting.get("reason") in _STUCK and not ended:
            return ": ".join(filter(None, [waiting["reason"], waiting.get("message", "")]))
        if ended:
            said = (ended.get("message") or "").strip().rpartition("\n")[2]
            why = "out of memory" if ended.get("reason") == "OOMKilled" else f"exit code {ended.get('exitCode')}"
            return f"{why}: {said}" if said else why
        if (running := state.get("running")) and _overdue(pod, running, now):
            return _UNHEALTHY
    return ""


def _hopeless(pod: Object) -> str:
    for container in _containers(pod):
        waiting = (container.get("state") or {}).get("waiting") or {}
        reason, message = waiting.get("reason", ""), waiting.get("message", "")
        if reason in _FINAL or (reason in _PULLING and _NO_SUCH_IMAGE.search(message)):
            return f"{reason}: {message}"
    return ""


def _overdue(pod: Object, running: Mapping[str, Any], now: datetime.datetime) -> bool:
    """Whether it should have become ready by now, by its own probe."""
    probe = pod["spec"]["containers"][0].get("readinessProbe") or {}
    checks = probe.get("failureThreshold", 3) + 1
    patience = probe.get("initialDelaySeconds", 0) + checks * (probe.get("periodSeconds", 10))
    since = [_time(running.get("startedAt"))]
    since += [_time(each.get("lastTransitionTime")) for each in _conditions(pod, "Ready")]
    began = max((each for each in since if each), default=now)
    return now - began > datetime.timedelta(seconds=patience)


def _unscheduled(pod: Object) -> str:
    said = [each.get("message", "") for each in _conditions(pod, "PodScheduled") if each["status"] == "False"]
    return f"{pod['metadata']['name']} has no node: {said[0]}" if said else ""


def _start_failure(pod: Object, start_failures: Mapping[str, str]) -> str:
    why = start_failures.get(pod["metadata"]["uid"], "")
    return f"{pod['metadata']['name']} does not start: {why}" if why else ""


def pods_without_containers(seen: OwnedObjects, now: datetime.datetime) -> list[Object]:
    """List the pods that have a node, but for a while no container. Their status says `ContainerCreating` at most, also
    where their sandbox, network or volumes cannot be made; only their Events tell."""
    return [pod for slot in SLOTS for pod in seen.pods_of(slot) if _lacks_containers(pod, now)]


def _lacks_containers(pod: Object, now: datetime.datetime) -> bool:
    scheduled = next((each for each in _conditions(pod, "PodScheduled") if each["status"] == "True"), None)
    if scheduled is None or _disrupted(pod):
        return False
    states = [each.get("state") or {} for each in _containers(pod)]
    creating = all((each.get("waiting") or {}).get("reason") in _CREATING for each in states)
    since = _time(scheduled.get("lastTransitionTime"))
    return creating and since is not None and now - since > _CREATION_TIME


def _converged(seen: OwnedObjects) -> bool:
    """Whether the endpoints are the pods that should serve: no other one, and none missing that is ready."""
    if seen.live is None:
        return True
    taking = seen.pods_of(seen.live)
    if seen.share:
        taking += seen.pods_of(other(seen.live))
        taking = [pod for pod in taking if pod["metadata"]["labels"].get(SERVING) != "false"]
    reached = {
        (endpoint.get("targetRef") or {}).get("name")
        for each in seen.slices
        for endpoint in each.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready", True)
    }
    ready = {pod["metadata"]["name"] for pod in taking if _ready(pod)}
    return ready <= reached <= {pod["metadata"]["name"] for pod in taking}


def _ready(pod: Object) -> bool:
    return any(each["status"] == "True" for each in _conditions(pod, "Ready"))


def _conditions(thing: Object, kind: str) -> list[Object]:
    return [each for each in (thing.get("status") or {}).get("conditions") or () if each["type"] == kind]


def _containers(pod: Object) -> list[Object]:
    return (pod.get("status") or {}).get("containerStatuses") or []


def _annotations(thing: Object | None) -> Mapping[str, str]:
    return (thing["metadata"].get("annotations") or {}) if thing else {}


def _address(service: Object | None) -> str:
    """Empty for a Service without one, or without an address of its own."""
    found = str(service["spec"].get("clusterIP") or "") if service else ""
    return "" if found == "None" else f"[{found}]" if ":" in found else found


def _slot_in(service: Object | None) -> Slot | None:
    return next((slot for slot in SLOTS if _annotations(service).get(LIVE) == slot), None)


def _time(text: str | None) -> datetime.datetime | None:
    return datetime.datetime.fromisoformat(text) if text else None
