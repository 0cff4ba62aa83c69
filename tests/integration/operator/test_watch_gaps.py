"""Tests watches that lose events, as after an expired version, and lists that arrive while objects change."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import pytest
import structlog

from remit.controllers import intake
from remit.controllers import tasks as tasks_module
from remit.controllers.operator import Operator
from remit.errors import ApiError
from remit.kube.client import POLICIES, TASKS, Kube, Object
from remit.kube.reflector import Reflector
from support import repetitions

from .conftest import PATIENCE, World


@contextlib.contextmanager
def gap(operator: Operator) -> Iterator[list[tuple[str, str | None, Object]]]:
    """Suppresses all watch events inside the block, and yields the list of the suppressed events."""
    lost: list[tuple[str, str | None, Object]] = []
    operator.watcher.on_event = lambda *event: lost.append(event)
    try:
        yield lost
    finally:
        operator.watcher.on_event = operator.intake.event


async def until(condition: Any, what: str) -> None:
    try:
        async with asyncio.timeout(PATIENCE):
            while not condition():
                await asyncio.sleep(0.02)
    except TimeoutError:
        pytest.fail(f"waited in vain for {what}")


@contextlib.asynccontextmanager
async def recreated(world: World, operator: Operator) -> AsyncIterator[tuple[str, str, list[Any]]]:
    """A running task is deleted and another one with its name created, without watch events. Yields its name, the uid
    of the old one and the lost events. At the end the old run must have ended, and the new one must succeed."""
    await world.policy("sleep", "echo")
    name = await world.task("sleep", "1000")
    await world.phase(name, "Running")
    old = await world.get(name)
    with gap(operator) as lost:
        await world.kube.delete(TASKS, "default", name)
        await world.gone(name)
        await world.kube.create(
            TASKS, "default", {**old, "metadata": {"name": name}, "spec": {"command": {"argv": ["echo"]}}}
        )
        await until(lambda: "ADDED" in [type_ for _, type_, _ in lost], "the lost events")
    yield name, old["metadata"]["uid"], lost
    await until(lambda: not operator.runner.running(old["metadata"]["uid"]), "the end of the old run")
    assert (await world.finished(name))["phase"] == "Succeeded"


@pytest.mark.parametrize("reporter", ["list", "event", "late deletion", "own write"])
async def test_a_task_that_was_recreated_unseen_is_abandoned(world: World, reporter: str) -> None:
    async with world.operator() as operator, recreated(world, operator) as (name, uid, lost):
        assert operator.runner.running(uid)
        match reporter:
            case "list":
                await operator.intake.resync()
            case "event":
                operator.intake.event(*next(event for event in lost if event[1] == "ADDED"))
            case "late deletion":
                operator.intake.event(*next(event for event in lost if event[1] == "ADDED"))
                operator.intake.event(*next(event for event in lost if event[1] == "DELETED"))
            case "own write":
                await world.kube.patch(TASKS, "default", name, {"metadata": {"labels": {"a": "b"}}})
                operator.tasks.reflector.observe(await world.get(name))


async def test_a_policy_deleted_while_a_list_is_on_its_way_allows_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.operator() as operator:
        policy = await world.policy("echo")
        assert (await world.finished(await world.task("echo")))["phase"] == "Succeeded"
        answered, go_on, request = asyncio.Event(), asyncio.Event(), Kube.request

        async def slow(self: Kube, method: str, path: str, **more: Any) -> Any:
            answer = await request(self, method, path, **more)
            if method == "GET" and path == POLICIES.path():
                answered.set()
                await go_on.wait()
            return answer

        monkeypatch.setattr(Kube, "request", slow)
        resync = asyncio.create_task(operator.intake.resync())
        await answered.wait()
        await world.kube.delete(POLICIES, "default", policy)
        await until(lambda: not operator.tasks.policies.current().by_namespace, "the deletion")
        go_on.set()
        await resync
        assert not operator.tasks.policies.current().by_namespace
        monkeypatch.undo()
        assert (await world.finished(await world.task("echo")))["phase"] == "Denied"


async def test_an_object_recreated_while_a_list_is_on_its_way_is_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.operator() as operator:
        await world.policy("echo")
        name = await world.task("echo")
        await world.finished(name)
        old = await world.get(name)
        answered, go_on, request = asyncio.Event(), asyncio.Event(), Kube.request

        async def slow(self: Kube, method: str, path: str, **more: Any) -> Any:
            if method != "GET" or path != TASKS.path():
                return await request(self, method, path, **more)
            await world.kube.delete(TASKS, "default", name)  # after the list was requested, and before it is read
            answer = await request(self, method, path, **more)
            answered.set()
            await go_on.wait()
            return answer

        monkeypatch.setattr(Kube, "request", slow)
        resync = asyncio.create_task(operator.intake.resync())
        await answered.wait()
        heard: set[str] = set()
        operator.watcher.on_event = lambda plural, type_, obj: (
            operator.intake.event(plural, type_, obj),
            heard.add(obj["metadata"]["resourceVersion"]),
        )
        await world.kube.create(TASKS, "default", {**old, "metadata": {"name": name}})
        await world.finished(name)
        new = await world.get(name)
        await until(lambda: new["metadata"]["resourceVersion"] in heard, "the last event")
        go_on.set()
        await resync
        found = operator.tasks.reflector.objects.get(f"default/{name}")
        assert found is not None and found["metadata"]["uid"] == new["metadata"]["uid"]


async def test_what_was_deleted_while_no_watch_was_open_is_noticed_as_it_starts_again(world: World) -> None:
    """No object is left of which the new watch could report an event."""
    async with world.operator(resync_seconds=3600) as operator:
        await world.policy("sleep")
        name = await world.task("sleep", "1000")
        await world.phase(name, "Running")
        uid = (await world.get(name))["metadata"]["uid"]
        with gap(operator) as lost:
            await world.kube.delete(TASKS, "default", name)
            await until(lambda: "DELETED" in [type_ for _, type_, _ in lost], "the lost event")
        assert operator.runner.running(uid)
        assert operator.watcher._cancel is not None
        operator.watcher._cancel()
        await until(lambda: not operator.runner.running(uid), "the end of what nobody wants any more")


async def test_a_list_after_a_gap_that_fails_is_tried_again(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(intake, "_RETRY_SECONDS", 0.0)
    listing, lists = Reflector.list, 0

    async def failing(self: Reflector, kube: Kube) -> None:
        nonlocal lists
        if self.resource is TASKS:
            lists += 1
            if lists == 1:
                raise ApiError("not now", status=503)
        await listing(self, kube)

    async with world.operator(resync_seconds=3600) as operator:
        await until(operator.watcher.ready.is_set, "the watches")
        monkeypatch.setattr(Reflector, "list", failing)
        operator.intake.listed(TASKS.plural)
        await until(lambda: lists >= 2, "another try")


async def test_a_task_that_is_deleted_before_the_answer_to_its_start_comes_is_not_started(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    patch = Kube.patch

    async def slow(self: Kube, resource: Any, namespace: str, name: str, body: Object, **more: Any) -> Object:
        written = await patch(self, resource, namespace, name, body, **more)
        if resource is TASKS and body["status"].get("phase") == "Running":
            await world.kube.delete(TASKS, namespace, name)
            known = operator.tasks.reflector.objects
            await until(lambda: written["metadata"]["uid"] not in known, "the deletion")
            answered.set_result(written["metadata"]["uid"])
        return written

    async with world.operator() as operator:
        answered: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        await world.policy("sleep")
        monkeypatch.setattr(Kube, "patch", slow)
        await world.task("sleep", "1000")
        uid = await answered
        queue = next(each.queue for each in operator.controllers if each.kind == "ExecutionTask")
        await queue.drain()
        assert not operator.runner.running(uid)


async def test_an_api_server_that_lost_its_tasks_costs_no_output_for_a_day(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The list contains no tasks, as that of a control plane that comes back empty; and a deletion is observed late."""
    await world.policy("echo", "sleep")
    async with world.operator() as operator:
        ended, deleted, running = [await world.task("echo", "kept") for _ in range(2)] + [
            await world.task("sleep", "900")
        ]
        uids = {name: (await world.get(name))["metadata"]["uid"] for name in (ended, deleted, running)}
        for name in (ended, deleted):
            await world.finished(name)
        await world.phase(running, "Running")
        store, tasks = operator.runner.store, operator.tasks
        (run,) = store.runs("default", uids[ended])

        def kept() -> set[str]:
            return {uid for _, uid in store.tasks()}

        last = await world.get(deleted)
        begun = tasks.reflector.begin_list()
        await tasks.reflector.replace([], str(begun.newest), begun)
        await until(lambda: not operator.runner.running(uids[running]), "the end of what ran")
        with structlog.testing.capture_logs() as logs:
            await tasks.sweep()
            assert logs == [], "their deletion may be on its way"
            operator.intake.event("executiontasks", "DELETED", last)
            await until(lambda: uids[deleted] not in kept(), "the removal of what was deleted")
            await tasks.sweep()
        assert [each["log_level"] for each in logs if each["event"] == "tasks are missing"] == ["warning"]
        assert "2 task(s) of namespace default" in next(each["message"] for each in logs if "message" in each)
        assert run.outcome is not None
        assert list(run.path.glob("stdout*"))
        (event,) = await world.events("default", 1)
        assert (event["type"], event["reason"], event["involvedObject"]["kind"]) == (
            "Warning",
            "TasksMissing",
            "Namespace",
        )

        await tasks.sweep()
        assert kept() == {uids[ended], uids[running]}
        monkeypatch.setattr(tasks_module, "ORPHAN_SECONDS", 0)
        await operator.intake.resync()  # the tasks are back, and nothing was lost
        assert store.missing_for("default", uids[ended]) is None
        assert kept() == {uids[ended], uids[running]}


async def test_what_is_kept_of_thousands_of_tasks_that_are_gone_is_removed_with_turns_for_others(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    count = repetitions(200, soak=5000)
    async with world.operator() as operator:
        runner, turns, looked = operator.runner, 0, dict[str, int]()
        for number in range(count):
            runner.store.open("default", f"gone-{number}", "gone").mark_audited()

        async def turn() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        running = runner.running

        def noted(uid: str) -> bool:
            looked.setdefault(uid, turns)
            return running(uid)

        monkeypatch.setattr(runner, "running", noted)
        turning = asyncio.create_task(turn())
        # The outputs are marked as missing, reported, kept for their time, and then removed.
        for seconds, left in ((3600, count), (3600, count), (3600, count), (0, 0)):
            monkeypatch.setattr(tasks_module, "ORPHAN_SECONDS", seconds)
            looked.clear()
            await operator.tasks.sweep()
            assert len(list(runner.store.tasks())) == left
            assert len(set(looked.values())) == len(looked) == count, "others had no turn between two of them"
        turning.cancel()
