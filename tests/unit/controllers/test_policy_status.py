"""Tests when the status of policies is written, with a clock that the test advances."""

from __future__ import annotations

import asyncio
import copy
import itertools
from collections.abc import Iterator
from typing import Any, cast

import pytest

from remit.api.executiontaskstatus import PolicyStatus
from remit.controllers.controller import Controller, Watch, generation_changed, own_key
from remit.controllers.intake import Intake
from remit.controllers.policies import STATUS_DELAY, Policies
from remit.errors import ApiError
from remit.kube.client import POLICIES, TASKS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.reflector import Reflector
from remit.kube.workqueue import WorkQueue
from remit.telemetry.metrics import Metrics
from statusreaders import kstatus, waits_for
from virtualtime import VirtualTimeLoop, virtual_time

ALLOWED = PolicyStatus(name="p", decision="Allowed")
versions = itertools.count(1)


def new(name: str, generation: int = 1, **spec: Any) -> Object:
    metadata = {"namespace": "default", "name": name, "uid": f"uid-{name}", "generation": generation}
    kind = {"apiVersion": "remit.dev/v1alpha1", "kind": "CommandPolicy"}
    return {**kind, "metadata": {**metadata, "resourceVersion": str(next(versions))}, "spec": spec}


class Server:
    """An API server that accepts writes of status and returns them."""

    def __init__(self) -> None:
        self.policies: dict[str, Object] = {}
        self.written: list[tuple[str, dict[str, Any]]] = []
        self.failures: list[ApiError] = []
        self.events: list[Object] = []

    async def create(self, resource: Any, namespace: str, body: Object) -> Object:
        self.events.append(body)
        return body

    async def patch(self, resource: Any, namespace: str, name: str, body: Object, **_: Any) -> Object:
        if self.failures:
            raise self.failures.pop(0)
        obj = copy.deepcopy(self.policies[name])
        obj["status"] = obj.get("status", {}) | body["status"]
        obj["metadata"]["resourceVersion"] = str(next(versions))
        self.policies[name] = obj
        self.written.append((name, body["status"]))
        return obj

    async def get(self, resource: Any, namespace: str, name: str) -> Object:
        return self.policies[name]


class World:
    def __init__(self, loop: VirtualTimeLoop) -> None:
        self.loop = loop
        self.server, self.metrics = Server(), Metrics()
        kube = cast(Kube, self.server)
        self.reflectors = {POLICIES: Reflector(POLICIES), TASKS: Reflector(TASKS)}
        self.queue = WorkQueue("commandpolicy", self.metrics, loop.time)
        self.policies = Policies(
            kube, *self.reflectors.values(), self.queue, self.metrics, Recorder(kube, self.metrics), "remit-system"
        )
        self.controller = Controller(
            kind="CommandPolicy",
            resource=POLICIES,
            queue=self.queue,
            reconcile=self.policies.reconcile,
            watches=(Watch(POLICIES, own_key, generation_changed),),
            workers=1,
        )
        Intake(kube, self.reflectors, (self.controller,), resync_seconds=300)
        self.running = loop.create_task(self.controller.run(self.metrics))

    def observe(self, resource: Any, obj: Object) -> None:
        if resource is POLICIES:
            self.server.policies[obj["metadata"]["name"]] = obj
        self.loop.run_until_complete(self._called(self.reflectors[resource].observe, obj))

    def count(self, times: int = 1) -> None:
        for _ in range(times):
            self.loop.run_until_complete(self._called(self.policies.count, "default", "t", ALLOWED))

    async def _called(self, function: Any, *arguments: Any) -> None:
        function(*arguments)

    def written(self) -> list[tuple[str, dict[str, Any]]]:
        """Runs everything that is ready, and returns the writes since the last call."""
        self.loop.settle()
        written, self.server.written = self.server.written, []
        return written

    def reconciliations(self) -> float:
        return (
            self.metrics.registry.get_sample_value("remit_reconcile_duration_seconds_count", {"kind": "CommandPolicy"})
            or 0.0
        )


@pytest.fixture
def world() -> Iterator[World]:
    with virtual_time() as loop:
        world = World(loop)
        world.observe(POLICIES, new("p"))
        world.observe(POLICIES, new("other"))
        assert {name for name, _ in world.written()} == {"p", "other"}
        loop.advance(60)
        world.written()
        yield world
        world.running.cancel()
        loop.run_until_complete(asyncio.gather(world.running, return_exceptions=True))


def test_decisions_that_follow_each_other_are_written_together(world: World) -> None:
    world.count(20)
    assert world.written() == []
    world.loop.advance(STATUS_DELAY / 2)
    world.count()
    world.loop.advance(STATUS_DELAY / 2)
    assert world.written() == [("p", {"allowed": 21})]


def test_a_change_of_a_policy_is_told_at_once_with_the_counts_so_far(world: World) -> None:
    world.count()
    world.observe(POLICIES, {**new("p", generation=2), "status": world.server.policies["p"]["status"]})
    [(name, status)] = world.written()
    assert (name, status["observedGeneration"], status["allowed"]) == ("p", 2, 1)


def test_a_new_task_is_counted_in_the_status_of_the_policies_that_select_it(world: World) -> None:
    world.observe(TASKS, new("t"))
    world.loop.advance(STATUS_DELAY)
    assert {(name, status["matchedTasks"]) for name, status in world.written()} == {("p", 1), ("other", 1)}


def test_tools_read_whether_a_policy_is_in_force(world: World) -> None:
    def read() -> tuple[str, bool]:
        world.written()
        obj = world.server.policies["p"]
        return kstatus(obj), waits_for(obj, "Ready")

    assert read() == ("Current", True)
    broken = {"commands": {"allow": [{"pattern": "echo ("}]}}
    world.observe(POLICIES, {**new("p", generation=2, **broken), "status": world.server.policies["p"]["status"]})
    assert kstatus({**world.server.policies["p"], "metadata": {"generation": 3}}) == "InProgress"
    assert read() == ("Failed", False)
    world.observe(POLICIES, {**new("p", generation=3), "status": world.server.policies["p"]["status"]})
    assert read() == ("Current", True)


def test_a_policy_for_backends_that_the_operator_lacks_says_so_once(world: World) -> None:
    """As policies for which an earlier version set `backends`."""
    world.policies.backends = ("kubernetes", "docker")

    def said(name: str) -> str:
        status: Object = world.server.policies[name]["status"]
        return str(next(each["message"] for each in status["conditions"] if each["type"] == "Ready"))

    before = {"status": {"observedGeneration": 1, "conditions": []}}
    world.observe(POLICIES, new("old", backends=["process"]) | before)
    for name, backends in (("some", ["process", "docker"]), ("default", None)):
        world.observe(POLICIES, new(name, **({"backends": backends} if backends else {})))
    for _ in range(2):
        world.loop.advance(6)
        world.written()
        world.observe(
            POLICIES,
            {**world.server.policies["old"], "status": {**world.server.policies["old"]["status"], "allowed": 9}},
        )
    wanted = "spec.backends: this operator runs commands and scripts on kubernetes, docker, and none of that is listed"
    assert wanted in said("old")
    assert "add kubernetes, or leave backends out" in said("old")
    assert "backends" not in said("some") + said("default")
    assert [event["reason"] for event in world.server.events] == ["BackendsNotOffered"]


def test_at_rest_no_policy_is_looked_at(world: World) -> None:
    before = world.reconciliations()
    world.observe(TASKS, new("t"))
    world.loop.advance(60)
    world.observe(TASKS, new("t"))  # nothing that a selector could match has changed
    changed = world.reconciliations()
    world.loop.advance(3600)
    assert before < world.reconciliations() == changed
    assert "default/" not in repr(world.queue)


def test_a_status_that_was_written_is_not_looked_at_again(world: World) -> None:
    world.count()
    before = world.reconciliations()
    world.loop.advance(60)
    assert world.written() == [("p", {"allowed": 1})]
    assert world.reconciliations() == before + 1


def test_a_status_that_somebody_else_writes_is_mended(world: World) -> None:
    world.observe(POLICIES, {**new("p"), "status": {}})
    world.loop.advance(60)
    [(name, status)] = world.written()
    assert (name, status["observedGeneration"]) == ("p", 1)


def test_a_policy_with_another_spec_is_in_force_at_once_although_its_generation_comes_again(world: World) -> None:
    """An API server that was restored from a backup continues with the generations of the backup."""

    def enforcement() -> str:
        [policy] = [each for each in world.policies.current().by_namespace["default"] if each.name == "p"]
        return str(policy.spec.enforcement)

    assert enforcement() == "Enforce"
    world.observe(POLICIES, new("p", generation=1, enforcement="Audit"))
    assert enforcement() == "Audit"
    world.observe(POLICIES, new("p", generation=2))
    world.observe(POLICIES, new("p", generation=1, enforcement="Enforce"))
    assert enforcement() == "Enforce"


def test_counts_outlive_a_write_that_fails_or_comes_too_late(world: World) -> None:
    world.count()
    world.server.failures += [ApiError("not now", status=503), ApiError("outdated", status=409)]
    world.loop.advance(60)
    assert world.written() == [("p", {"allowed": 1})]
    assert world.metrics.registry.get_sample_value("remit_reconcile_errors_total", {"kind": "CommandPolicy"}) == 1


def test_what_is_not_written_yet_is_written_at_the_end(world: World) -> None:
    world.count()
    world.loop.run_until_complete(world.policies.write_counts())
    world.loop.run_until_complete(world.policies.write_counts())
    assert world.written() == [("p", {"allowed": 1})]


def test_at_the_end_a_server_that_is_away_keeps_nobody(world: World) -> None:
    world.count()
    world.server.failures.append(ApiError("not now", status=503))
    world.loop.run_until_complete(world.policies.write_counts())
    assert world.written() == []


def test_of_a_deleted_policy_nothing_is_written(world: World) -> None:
    world.count()
    gone = {**new("p"), "spec": {}}
    world.loop.run_until_complete(world._called(world.reflectors[POLICIES].observe_deletion, gone))
    world.loop.advance(60)
    world.loop.run_until_complete(world.policies.write_counts())
    assert world.written() == []
