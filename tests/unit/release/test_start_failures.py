"""What Events say of pods for which no container is created."""

from __future__ import annotations

from typing import Any

from remit.api.endpoint import Resource
from remit.errors import ApiError
from remit.kube.client import EVENTS
from remit.release.targets.kubernetes.startfailures import MOST_PODS, REREAD_SECONDS, StartFailures


class Cluster:
    """An API server with these Events, by the uid of the pod that they are about."""

    def __init__(self, events: dict[str, list[dict[str, Any]]]) -> None:
        self.events = events
        self.reads: list[str] = []
        self.refuses = False

    async def list(
        self, resource: Resource, namespace: str | None = None, *, label_selector: str = "", field_selector: str = ""
    ) -> list[dict[str, Any]]:
        assert (resource, namespace, label_selector) == (EVENTS, "shop", "")
        uid = field_selector.removeprefix("involvedObject.uid=")
        self.reads.append(uid)
        if self.refuses:
            raise ApiError("events is forbidden", status=403)
        return self.events.get(uid, [])


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def pod(uid: str) -> dict[str, Any]:
    return {"metadata": {"name": f"pod-{uid}", "namespace": "shop", "uid": uid}}


def failed(reason: str) -> dict[str, Any]:
    return {"reason": reason, "message": f"why {reason}", "lastTimestamp": "2026-01-01T00:00:00Z"}


def failures(cluster: Cluster, clock: Clock) -> StartFailures:
    return StartFailures(cluster, clock)  # type: ignore[arg-type]  # of an API server only lists are needed


async def test_the_latest_failure_is_given_and_read_again_after_a_while() -> None:
    cluster, clock = Cluster({"a": [failed("FailedMount")], "b": [{"reason": "Scheduled"}]}), Clock()
    reader = failures(cluster, clock)
    assert await reader.of([pod("a"), pod("b")]) == {"a": "FailedMount: why FailedMount"}
    cluster.events["a"] = [failed("FailedCreatePodSandBox")]
    assert await reader.of([pod("a"), pod("b")]) == {"a": "FailedMount: why FailedMount"}
    assert cluster.reads == ["a", "b"]
    clock.now += REREAD_SECONDS
    assert await reader.of([pod("a"), pod("b")]) == {"a": "FailedCreatePodSandBox: why FailedCreatePodSandBox"}


async def test_events_that_cannot_be_read_leave_what_was_known() -> None:
    cluster, clock = Cluster({"a": [failed("FailedMount")]}), Clock()
    reader = failures(cluster, clock)
    cluster.refuses = True
    assert await reader.of([pod("a")]) == {}
    cluster.refuses, clock.now = False, clock.now + REREAD_SECONDS
    known = await reader.of([pod("a")])
    cluster.refuses, clock.now = True, clock.now + REREAD_SECONDS
    assert await reader.of([pod("a")]) == known == {"a": "FailedMount: why FailedMount"}


async def test_few_pods_are_read_and_those_that_started_are_forgotten() -> None:
    many = [pod(str(number)) for number in range(MOST_PODS + 4)]
    cluster, clock = Cluster({"0": [failed("FailedMount")]}), Clock()
    reader = failures(cluster, clock)
    await reader.of(many)
    assert len(cluster.reads) == MOST_PODS
    assert await reader.of([]) == {}
    cluster.events.clear()
    assert await reader.of(many) == {}
    assert len(cluster.reads) == 2 * MOST_PODS
