"""Tests a controller of the operator's table, connected to reflectors by the intake, without an API server."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Iterable
from typing import Any, cast

import pytest

from remit.api.endpoint import Resource
from remit.controllers.controller import Controller, Watch, generation_changed, own_key
from remit.controllers.intake import Intake
from remit.errors import ApiError, RemitError
from remit.kube.client import Kube, Object
from remit.kube.reflector import Reflector
from remit.kube.workqueue import WorkQueue
from remit.telemetry.metrics import Metrics

GADGETS, PARTS = Resource("example.dev", "v1", "gadgets"), Resource("example.dev", "v1", "parts")
versions = itertools.count(1)


def new(name: str, *, uid: str = "", generation: int = 1, gadget: str = "") -> Object:
    metadata = {
        "namespace": "default",
        "name": name,
        "uid": uid or f"uid-{name}",
        "resourceVersion": str(next(versions)),
        "generation": generation,
    }
    return {"metadata": metadata, "spec": {"gadget": gadget}}


def gadget_of(part: Object) -> Iterable[str]:
    return [f"default/{part['spec']['gadget']}"] if part["spec"]["gadget"] else []


class Lists:
    """An API server that supports only lists."""

    def __init__(self) -> None:
        self.objects: dict[Resource, list[Object]] = {GADGETS: [], PARTS: []}
        self.failure: Exception | None = None
        self.failed = asyncio.Event()

    async def snapshot(self, resource: Resource, namespace: str | None, **_: Any) -> tuple[list[Object], str]:
        if self.failure is not None:
            self.failed.set()
            raise self.failure
        return list(self.objects[resource]), str(next(versions))


class World:
    """A controller of gadgets, which also observes the parts that name a gadget."""

    def __init__(self, watch: Watch | None = None) -> None:
        self.server = Lists()
        self.metrics = Metrics()
        self.queue = WorkQueue("gadget", self.metrics)
        self.calls: list[str] = []
        self.failures: list[Exception] = []
        self.controller = Controller(
            kind="Gadget",
            resource=GADGETS,
            queue=self.queue,
            reconcile=self._reconcile,
            watches=(watch or Watch(GADGETS, own_key), Watch(PARTS, gadget_of)),
            workers=1,
            on_delete=lambda obj: self.calls.append(f"deleted {obj['metadata']['uid']}"),
            sweep=self._sweep,
        )
        self.reflectors = {resource: Reflector(resource) for resource in (PARTS, GADGETS)}
        self.intake = Intake(cast(Kube, self.server), self.reflectors, (self.controller,), resync_seconds=0)

    async def _reconcile(self, key: str) -> float | None:
        self.calls.append(key)
        if self.failures:
            raise self.failures.pop(0)
        return None

    async def _sweep(self) -> None:
        self.calls.append("swept")

    async def reconciled(self) -> list[str]:
        """Returns the calls until no more keys are ready."""
        running = asyncio.create_task(self.controller.run(self.metrics))
        self.queue.shut_down()
        await asyncio.wait_for(running, 30)
        return self.calls


@pytest.fixture
async def world() -> World:
    return World()


async def listed(world: World) -> World:
    """Completes the first list."""
    await world.intake.resync()
    world.calls.clear()
    return world


async def test_a_change_is_mapped_to_the_keys_that_it_is_about(world: World) -> None:
    await listed(world)
    for resource, obj in ((GADGETS, new("a")), (PARTS, new("p", gadget="b")), (PARTS, new("q"))):
        world.intake.event(resource.plural, "ADDED", obj)
    assert await world.reconciled() == ["default/a", "default/b"]


async def test_what_an_object_was_about_before_an_update_is_looked_at_too(world: World) -> None:
    world.server.objects[PARTS] = [new("p", gadget="a")]
    await listed(world)
    await taken(world)
    world.intake.event(PARTS.plural, "MODIFIED", new("p", gadget="b"))
    assert await world.reconciled() == ["default/a", "default/b"]


async def taken(world: World) -> None:
    while len(world.queue):
        world.queue.done(await world.queue.get())


async def test_a_watch_may_leave_out_updates_of_status() -> None:
    world = World(Watch(GADGETS, own_key, generation_changed))
    world.server.objects[GADGETS] = [new("a"), new("b")]
    await listed(world)
    await taken(world)
    world.intake.event(GADGETS.plural, "MODIFIED", new("a", generation=1))
    world.intake.event(GADGETS.plural, "MODIFIED", new("b", generation=2))
    assert await world.reconciled() == ["default/b"]


async def test_what_was_kept_of_a_deleted_object_is_removed_before_its_key_is_reconciled(world: World) -> None:
    world.server.objects[GADGETS] = [new("a"), new("b")]
    await listed(world)
    await taken(world)
    world.intake.event(GADGETS.plural, "DELETED", new("a"))
    world.server.objects[GADGETS] = [new("b", uid="another")]
    await world.intake.resync()
    assert world.calls == ["deleted uid-a", "deleted uid-b", "swept"]
    assert (await world.reconciled())[3:] == ["default/a", "default/b"]


async def test_changes_come_before_what_the_first_list_and_resyncs_found(world: World) -> None:
    world.server.objects[GADGETS] = [new(f"old-{number}") for number in range(3)]
    await world.intake.resync()
    world.intake.event(GADGETS.plural, "ADDED", new("new"))
    await listed(world)
    assert await world.reconciled() == ["default/new", "default/old-0", "default/old-1", "default/old-2"]


async def test_a_resync_gives_way_to_others_although_there_are_thousands_of_objects(world: World) -> None:
    world.server.objects[GADGETS] = [new(f"g-{number}") for number in range(1000)]
    turns = 0

    async def turn() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    turning = asyncio.create_task(turn())
    await world.intake.resync()
    turning.cancel()
    assert turns >= 10
    assert len(world.queue) == 1000


async def test_a_resync_that_fails_is_made_again(world: World) -> None:
    world.server.objects[GADGETS] = [new("a")]
    world.server.failure = ApiError("not now", status=500)
    resyncing = asyncio.create_task(world.intake.keep_resyncing())
    await world.server.failed.wait()
    world.server.failure = None
    async with asyncio.timeout(30):
        assert await world.queue.get() == "default/a"
    resyncing.cancel()


@pytest.mark.parametrize("error", [RemitError("not now"), KeyError("a mistake")])
async def test_reconciliations_and_their_failures_are_counted_by_kind(world: World, error: Exception) -> None:
    await listed(world)
    world.failures.append(error)
    world.intake.event(GADGETS.plural, "ADDED", new("a"))
    assert await world.reconciled() == ["default/a"]
    value = world.metrics.registry.get_sample_value
    assert value("remit_reconcile_duration_seconds_count", {"kind": "Gadget"}) == 1
    assert value("remit_reconcile_errors_total", {"kind": "Gadget"}) == 1
    assert value("workqueue_work_duration_seconds_count", {"name": "gadget"}) == 1
