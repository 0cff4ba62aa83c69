"""Tests how the state of a release is read from the objects of a cluster."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from remit.release.targets.kubernetes.observation import OwnedObjects, observed, pods_without_containers

NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def workload(revision: int, replicas: int = 1) -> dict[str, Any]:
    return {"metadata": {"annotations": {"remit.dev/revision": str(revision)}}, "spec": {"replicas": replicas}}


def pod(name: str, slot: str, revision: int, *, ready: bool = True, leaving: bool = False) -> dict[str, Any]:
    labels = {"remit.dev/slot": slot, "remit.dev/revision": str(revision)}
    gone = {"deletionTimestamp": "2026-01-01T00:00:00Z"} if leaving else {}
    return {
        "metadata": {"name": name, "uid": f"uid-{name}", "labels": labels, **gone},
        "spec": {"containers": [{}]},
        "status": {"conditions": [{"type": "Ready", "status": str(ready)}]},
    }


def running(restarts: int = 0, **state: Any) -> dict[str, Any]:
    return {"restartCount": restarts, "state": state or {"running": {}}}


def service(live: str) -> dict[str, Any]:
    return {"metadata": {"annotations": {"remit.dev/live": live, "remit.dev/share": "0"}}, "spec": {}}


def endpoints(*names: str) -> dict[str, Any]:
    return {"endpoints": [{"targetRef": {"name": name}, "conditions": {"ready": True}} for name in names]}


def test_pods_of_a_workload_that_was_deleted_are_no_instances_of_its_successor() -> None:
    pods = [pod("old", "green", 2), pod("new", "green", 3, ready=False)]
    seen = OwnedObjects(
        workloads={"green": workload(3)}, pods=pods, service=service("green"), slices=[endpoints("old")]
    )
    found = observed(seen, frozenset(), NOW)
    assert not found.ready(3, "green", 1)
    assert (found.green.healthy, found.green.started) == (0, 2)
    assert not found.converged, "the old one still answers"
    seen = OwnedObjects(workloads={"green": workload(3)}, pods=[pod("new", "green", 3)], service=service("green"))
    assert observed(seen, frozenset(), NOW).ready(3, "green", 1)


def test_a_switch_is_seen_once_the_endpoints_are_the_ready_pods_of_the_live_side_and_no_others() -> None:
    pods = [pod("b", "blue", 1), pod("g", "green", 2), pod("late", "green", 2, ready=False)]
    workloads = {"blue": workload(1), "green": workload(2, 2)}

    def converged(*names: str) -> bool:
        seen = OwnedObjects(workloads=workloads, pods=pods, service=service("green"), slices=[endpoints(*names)])
        return observed(seen, frozenset(), NOW).converged

    assert [converged("b"), converged("b", "g"), converged(), converged("g")] == [False, False, False, True]


def test_what_is_on_its_way_out_is_still_there_but_no_instance() -> None:
    pods = [pod("going", "blue", 1, leaving=True), pod("staying", "blue", 1)]
    view = observed(OwnedObjects(workloads={"blue": workload(1, 2)}, pods=pods), frozenset(), NOW).blue
    assert (view.started, view.healthy) == (2, 1)


def test_a_restarted_container_has_another_incarnation_and_an_ended_one_has_none() -> None:
    def incarnation(container: dict[str, Any]) -> str:
        found = pod("p", "green", 2)
        found["status"]["containerStatuses"] = [container]
        view = observed(OwnedObjects(workloads={"green": workload(2)}, pods=[found]), frozenset(), NOW).green
        return view.instances["p"].incarnation

    first, again = incarnation(running()), incarnation(running(1))
    assert first and again and first != again
    assert incarnation(running()) == first
    assert incarnation(running(terminated={"exitCode": 1})) == ""
    assert incarnation(running(waiting={"reason": "CrashLoopBackOff"})) == ""


@pytest.mark.parametrize(
    "status",
    [
        {"phase": "Failed", "reason": "Evicted", "message": "the node was low on memory"},
        {"conditions": [{"type": "DisruptionTarget", "status": "True", "message": "the node was low on memory"}]},
    ],
)
def test_a_pod_that_its_node_takes_away_is_no_instance_and_has_not_failed(status: dict[str, Any]) -> None:
    evicted = pod("evicted", "green", 2, ready=False)
    evicted["status"] |= {"containerStatuses": [running(terminated={"exitCode": 137})], **status}
    seen = OwnedObjects(workloads={"green": workload(2, 2)}, pods=[evicted, pod("well", "green", 2)])
    view = observed(seen, frozenset(), NOW).green
    assert (set(view.instances), view.healthy, view.failed) == ({"well"}, 1, 0)
    assert view.message.startswith("evicted: ") and view.message.endswith("the node was low on memory")


def unstarted(name: str = "new", *, scheduled_at: str = "2025-12-31T23:59:00Z", **state: Any) -> dict[str, Any]:
    """A pod of green's revision 2 that has a node since `scheduled_at`, and whose container has this state."""
    made = pod(name, "green", 2, ready=False)
    made["status"]["conditions"].append({"type": "PodScheduled", "status": "True", "lastTransitionTime": scheduled_at})
    made["status"]["containerStatuses"] = [{"restartCount": 0, "state": state}] if state else []
    return made


CREATING = {"waiting": {"reason": "ContainerCreating"}}


@pytest.mark.parametrize(
    ("candidate", "listed"),
    [
        (unstarted(), True),
        (unstarted(**CREATING), True),
        (unstarted(waiting={"reason": "ImagePullBackOff"}), False),
        (unstarted(running={}), False),
        (unstarted(scheduled_at="2025-12-31T23:59:58Z"), False),
        (pod("new", "green", 2, ready=False), False),
    ],
)
def test_pods_without_a_container_are_listed_after_a_while(candidate: dict[str, Any], listed: bool) -> None:
    seen = OwnedObjects(workloads={"green": workload(2)}, pods=[candidate])
    assert pods_without_containers(seen, NOW) == ([candidate] if listed else [])


def test_why_a_pod_is_not_created_is_reported_and_is_no_failure_of_the_revision() -> None:
    why = "FailedCreatePodSandBox: the network is not ready"
    seen = OwnedObjects(workloads={"green": workload(2)}, pods=[unstarted(**CREATING)], start_failures={"uid-new": why})
    view = observed(seen, frozenset(), NOW).green
    assert view.message == f"new does not start: {why}"
    assert (view.failed, view.hopeless) == (0, "")


def test_the_end_of_an_instance_is_reported_before_one_that_is_not_ready_yet() -> None:
    slow, crashed = pod("a-slow", "green", 2, ready=False), pod("b-crashed", "green", 2, ready=False)
    slow["status"]["containerStatuses"] = [running(running={"startedAt": "2025-12-31T23:59:00Z"})]
    ended = {"terminated": {"exitCode": 1, "message": "no database"}}
    crashed["status"]["containerStatuses"] = [{**running(1), "lastState": ended}]
    seen = OwnedObjects(workloads={"green": workload(2, 2)}, pods=[slow, crashed])
    view = observed(seen, frozenset(), NOW).green
    assert (view.message, view.failed) == ("b-crashed: exit code 1: no database", 2)
    alone = OwnedObjects(workloads={"green": workload(2, 2)}, pods=[slow])
    assert observed(alone, frozenset(), NOW).green.message == "a-slow: its health check fails"
