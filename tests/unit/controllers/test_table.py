"""Tests which keys the operator's own controllers reconcile, without an API server."""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any, cast

from remit.api.executiontaskstatus import ExecutionTaskStatus
from remit.controllers.intake import Intake, reflectors
from remit.controllers.table import controllers
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Kube, Object
from remit.kube.status import StatusWriter
from remit.kube.workqueue import WorkQueue
from remit.telemetry.metrics import Metrics

versions = itertools.count(1)


async def nothing(*_: Any) -> None:
    return


def new(kind: str, name: str, owner: tuple[str, str] | None = None) -> Object:
    metadata: dict[str, Any] = {"namespace": "ns", "name": name, "uid": f"{kind}-{name}", "generation": 1}
    if owner is not None:
        references = {"apiVersion": "remit.dev/v1alpha1", "kind": owner[0], "name": owner[1], "uid": "u"}
        metadata["ownerReferences"] = [{**references, "controller": True}]
    return {"metadata": {**metadata, "resourceVersion": str(next(versions))}, "spec": {}}


class World:
    def __init__(self) -> None:
        self.metrics, self.reflectors = Metrics(), reflectors((), "remit-system")
        self.tasks, self.releases, self.policies = (
            WorkQueue(name, self.metrics) for name in ("executiontask", "deployment", "commandpolicy")
        )
        kube = cast(Kube, self)
        writers = {
            resource: StatusWriter(kube, self.reflectors[resource], self.metrics, resource.plural)
            for resource in (TASKS, DEPLOYMENTS)
        }
        self.write_task, self.write_release = writers[TASKS].write, writers[DEPLOYMENTS].write
        runner = SimpleNamespace(shutdown=nothing, close=nothing)
        table = controllers(
            cast(Any, SimpleNamespace(queue=self.policies, reconcile=nothing, write_counts=nothing)),
            cast(
                Any,
                SimpleNamespace(
                    reconcile=nothing,
                    deleted=lambda obj: None,
                    vanished=lambda obj: None,
                    sweep=nothing,
                    runner=runner,
                    writer=writers[TASKS],
                ),
            ),
            self.tasks,
            cast(Any, SimpleNamespace(reconcile=nothing, close=nothing, writer=writers[DEPLOYMENTS])),
            self.releases,
            workers=1,
        )
        self.intake = Intake(kube, self.reflectors, table, resync_seconds=300)

    async def patch(self, resource: Any, namespace: str, name: str, body: Object, **_: Any) -> Object:
        known = self.reflectors[resource].objects.get(f"{namespace}/{name}")
        assert known is not None
        metadata = {**known["metadata"], "resourceVersion": str(next(versions))}
        return {**known, "metadata": metadata, "status": body["status"]}

    async def queued(self) -> list[list[str]]:
        """Returns the ready keys of tasks, of releases and of policies."""
        taken = []
        for queue in (self.tasks, self.releases, self.policies):
            keys = [await queue.get() for _ in range(len(queue))]
            taken.append(sorted(keys))
            for key in keys:
                queue.done(key)
        return taken


async def test_a_task_and_those_that_it_is_of_are_looked_at() -> None:
    world = World()
    world.intake.event(TASKS.plural, "ADDED", new("task", "alone"))
    world.intake.event(TASKS.plural, "ADDED", new("task", "hook", ("Deployment", "shop")))
    world.intake.event(TASKS.plural, "ADDED", new("task", "run", ("ExecutionTask", "nightly")))
    assert await world.queued() == [["ns/alone", "ns/hook", "ns/nightly", "ns/run"], ["ns/shop"], []]
    world.intake.event(POLICIES.plural, "ADDED", new("policy", "p"))
    world.intake.event(POLICIES.plural, "MODIFIED", new("policy", "p"))  # a change of its status
    world.intake.event(DEPLOYMENTS.plural, "ADDED", new("release", "shop"))
    assert await world.queued() == [[], ["ns/shop"], ["ns/p"]]


async def test_what_we_create_is_looked_at_before_a_watch_tells_of_it() -> None:
    world = World()
    world.reflectors[TASKS].observe(new("task", "run", ("ExecutionTask", "nightly")))
    world.reflectors[TASKS].observe(new("task", "hook", ("Deployment", "shop")))
    assert await world.queued() == [["ns/hook", "ns/nightly", "ns/run"], ["ns/shop"], []]


async def test_our_own_status_is_looked_at_by_others_alone() -> None:
    """The controller that wrote the status has already decided when to reconcile again."""
    world = World()
    hook, run, release = (
        new("task", "hook", ("Deployment", "shop")),
        new("task", "run", ("ExecutionTask", "nightly")),
        new("release", "shop"),
    )
    for resource, obj in ((TASKS, hook), (TASKS, run), (DEPLOYMENTS, release)):
        world.intake.event(resource.plural, "ADDED", obj)
    await world.queued()
    status = ExecutionTaskStatus(message="on its way")
    await world.write_release(release, status)
    assert await world.queued() == [[], [], []]
    for task in (hook, run):
        written = await world.write_task(task, status)
        world.intake.event(TASKS.plural, "MODIFIED", written)
    assert await world.queued() == [["ns/nightly"], ["ns/shop"], []]
    world.intake.event(TASKS.plural, "MODIFIED", new("task", "run", ("ExecutionTask", "nightly")))
    assert await world.queued() == [["ns/nightly", "ns/run"], [], []]
