"""Tests scheduled tasks with a clock that the test controls."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import dataclass
from typing import Any

import pytest

from remit.api.executiontask import Schedule
from remit.controllers.operator import Operator
from remit.execution import cron, schedule
from remit.execution.schedule import PARENT_LABEL
from remit.kube.client import EVENTS, TASKS, Object

from .conftest import PATIENCE, World, truth


@dataclass
class Clock:
    """A clock that runs `ahead` of the real one."""

    operator: Operator
    ahead: datetime.timedelta = datetime.timedelta()

    def __call__(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + self.ahead

    def turn(self, key: str, **by: float) -> None:
        self.ahead += datetime.timedelta(**by)
        queues = {controller.kind: controller.queue for controller in self.operator.controllers}
        queues["ExecutionTask"].add(key)


def wound(operator: Operator) -> Clock:
    clock = Clock(operator)
    operator.tasks.now = clock
    return clock


async def children(world: World) -> list[Object]:
    return [
        obj for obj in await world.kube.list(TASKS, "default") if obj["metadata"].get("labels", {}).get(PARENT_LABEL)
    ]


async def scheduled(world: World, *argv: str, **changes: Any) -> str:
    name = await world.task(*argv, schedule={"cron": "0 0 1 1 *", **changes})
    await world.until(name, lambda status: status.get("phase") == "Scheduled")
    return name


async def a_run(world: World, parent: str, after: str | None = None) -> str:
    """Waits until `parent` reports a run other than `after`, and returns its name."""
    status = await world.until(
        parent, lambda status: bool(status.get("lastScheduleTime")) and status["lastScheduleTime"] != after
    )
    return str(status["lastScheduleTime"])


async def seen_finished(operator: Operator, name: str) -> None:
    """Waits until the operator has observed the end, which its watch may report later than a GET of the test."""
    known = operator.tasks.reflector.objects
    async with asyncio.timeout(PATIENCE):
        while truth((known.get(f"default/{name}") or {}).get("status", {}), "Finished") != "True":
            await asyncio.sleep(0.02)


@pytest.mark.no_cover
async def test_a_tick_makes_a_child_that_runs(world: World) -> None:
    async with world.operator() as operator:
        clock = wound(operator)
        await world.policy("echo")
        name = await scheduled(world, "echo", "tick")
        status = (await world.get(name))["status"]
        assert (truth(status, "Reconciling"), truth(status, "Finished")) == ("False", "False")
        assert "next run at" in status["message"]
        clock.turn(f"default/{name}", days=366)
        first = await a_run(world, name)
        (child,) = await children(world)
        assert child["metadata"]["name"].startswith(f"{name}-")
        assert (await world.finished(child["metadata"]["name"]))["output"]["stdoutTail"] == "tick\n"
        await world.until(name, lambda status: not status.get("active"))
        clock.turn(f"default/{name}", days=366 * 20)  # the operator was away for a long time
        await a_run(world, name, after=first)
        assert len(await children(world)) == 2


async def test_an_operator_that_was_killed_before_its_report_runs_the_tick_once(world: World) -> None:
    async with world.operator() as operator:
        await world.policy("echo")
        name = await scheduled(world, "echo", "tick")
        clock = wound(operator)
        clock.turn(f"default/{name}", days=366)
        last = await a_run(world, name)
        (child,) = await children(world)
        await world.finished(child["metadata"]["name"])
    await world.kube.patch(TASKS, "default", name, {"status": {"lastScheduleTime": None}}, subresource="status")
    async with world.operator() as operator:
        clock = wound(operator)
        clock.turn(f"default/{name}", days=366)
        assert await a_run(world, name) == last
        assert [obj["metadata"]["uid"] for obj in await children(world)] == [child["metadata"]["uid"]]


@pytest.mark.parametrize("policy", ["Forbid", "Replace", "Allow"])
async def test_a_run_that_has_not_ended(world: World, policy: str) -> None:
    async with world.operator() as operator:
        clock = wound(operator)
        await world.policy("sleep")
        name = await scheduled(world, "sleep", "60", concurrencyPolicy=policy)
        clock.turn(f"default/{name}", days=366)
        first = await a_run(world, name)
        (child,) = await children(world)
        await world.until(child["metadata"]["name"], lambda status: status.get("phase") == "Running")
        clock.turn(f"default/{name}", days=366)
        await a_run(world, name, after=first)
        expected = {"Forbid": ["Running"], "Replace": ["Cancelled", "Running"], "Allow": ["Running", "Running"]}[policy]
        for obj in await children(world):
            await world.until(obj["metadata"]["name"], lambda status: status.get("phase") in {"Running", "Cancelled"})
        phases = [obj["status"]["phase"] for obj in await children(world)]
        assert sorted(phases) == expected
        if policy == "Forbid":
            assert any(event["reason"] == "RunSkipped" for event in await world.events(name, 2))
        await world.edit(name, {"cancel": True})
        assert (await world.finished(name))["phase"] == "Cancelled"
        phases = [obj["status"]["phase"] for obj in await children(world)]
        assert set(phases) == {"Cancelled"}


async def test_a_schedule_that_was_cancelled_is_deleted_when_its_time_to_live_is_over(world: World) -> None:
    async with world.operator(resync_seconds=3600):
        await world.policy("echo")
        name = await world.task("echo", schedule={"cron": "0 0 1 1 *"}, ttlSecondsAfterFinished=1)
        await world.phase(name, "Scheduled")
        await world.edit(name, {"cancel": True})
        await world.gone(name)


@pytest.mark.parametrize("policy", ["Forbid", "Replace"])
async def test_a_run_that_waits_for_its_next_attempt_has_not_ended(world: World, policy: str) -> None:
    async with world.operator() as operator:
        clock = wound(operator)
        clock.ahead = datetime.timedelta(minutes=10 - clock().minute)  # no tick occurs by itself
        await world.policy("sh")
        a_day = {"maxRetries": 1, "backoff": {"initialSeconds": 86400, "maxSeconds": 86400}}
        hourly = {"cron": "0 * * * *", "concurrencyPolicy": policy}
        name = await world.task("sh", "-c", "exit 1", retry=a_day, schedule=hourly)
        await world.phase(name, "Scheduled")
        last = None
        for _ in range(2):
            clock.turn(f"default/{name}", hours=1)
            last = await a_run(world, name, after=last)
            newest = (await world.get(name))["status"]["active"][-1]
            await world.phase(newest, "Backoff")
        phases = sorted(obj["status"]["phase"] for obj in await children(world))
        assert phases == {"Forbid": ["Backoff"], "Replace": ["Backoff", "Cancelled"]}[policy]
        if policy == "Forbid":
            assert "RunSkipped" in {event["reason"] for event in await world.events(name, 2)}


async def skipped(world: World, name: str) -> str:
    """Waits for the Event that a run was skipped, and returns its message."""
    async with asyncio.timeout(PATIENCE):
        while True:
            events = await world.kube.list(EVENTS, "default", field_selector=f"involvedObject.name={name}")
            found = [event["message"] for event in events if event["reason"] == "RunSkipped"]
            if found:
                return str(found[0])
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"spec": {"command": {"argv": ["true"]}}}, "spec"),
        ({"metadata": {"labels": {"team": "other"}}}, "labels"),
        ({"metadata": {"annotations": {}}}, "annotations"),
        ({"metadata": {"ownerReferences": []}}, "controlled"),
        ({}, "before its time"),
    ],
)
async def test_a_task_in_the_way_of_a_run_is_not_taken_for_it(
    world: World, changes: dict[str, dict[str, Any]], why: str
) -> None:
    async with world.operator() as operator:
        clock = wound(operator)
        await world.policy("echo", "true")
        name = await scheduled(world, "echo", "tick")
        due = cron.following(Schedule(cron="0 0 1 1 *"), clock())
        forged = schedule.child(await world.get(name), due)
        forged = {**forged, **{part: {**forged[part], **change} for part, change in changes.items()}}
        await world.kube.create(TASKS, "default", forged)
        assert (await world.finished(forged["metadata"]["name"]))["phase"] == "Succeeded"
        await seen_finished(operator, forged["metadata"]["name"])
        clock.turn(f"default/{name}", days=366)
        message = await skipped(world, name)
        assert forged["metadata"]["name"] in message
        assert why in message
        status = await world.until(name, lambda status: status.get("lastScheduleTime"))
        assert not status.get("active")


async def test_suspended_and_resumed(world: World) -> None:
    async with world.operator() as operator:
        clock = wound(operator)
        await world.policy("echo")
        name = await world.task("echo", schedule={"cron": "0 0 1 1 *", "suspend": True})
        await world.until(name, lambda status: status.get("message") == "suspended: no run is started")
        clock.turn(f"default/{name}", days=366)
        await world.edit(name, {"schedule": {"suspend": False}})
        await a_run(world, name)
        assert len(await children(world)) == 1  # the latest of the missed runs


async def test_old_runs_go(world: World) -> None:
    async with world.operator() as operator:
        clock = wound(operator)
        await world.policy("echo")
        name = await scheduled(world, "echo", successfulRunsHistoryLimit=1)
        last = None
        for _ in range(3):
            clock.turn(f"default/{name}", days=366)
            last = await a_run(world, name, after=last)
            await world.until(name, lambda status: not status.get("active"))
        newest = max(obj["metadata"]["name"] for obj in await children(world))
        for obj in await children(world):
            if obj["metadata"]["name"] != newest:
                await world.gone(obj["metadata"]["name"])
        assert [obj["metadata"]["name"] for obj in await children(world)] == [newest]


async def test_a_schedule_that_cannot_be_read(world: World) -> None:
    async with world.operator():
        name = await world.task("echo", schedule={"cron": "0 2 * * *", "timeZone": "Europe/Pariss"})
        status = await world.finished(name)
    assert (status["phase"], truth(status, "Stalled")) == ("Failed", "True")
    assert "did you mean Europe/Paris?" in status["message"]
