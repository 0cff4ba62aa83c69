"""Tests unusual runs as users and programs see them."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from remit.controllers.operator import Operator
from remit.execution import schedule
from remit.execution.anomalies import LEAST_RUNS, WINDOW
from remit.kube.client import TASKS

from .conftest import World, truth
from .test_schedules import scheduled, seen_finished

pytestmark = pytest.mark.no_cover
STARTED = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
USUAL = 600
"""Duration of past runs in seconds. A real run takes less than one."""


def attempt(seconds: float) -> dict[str, Any]:
    ended = STARTED + datetime.timedelta(seconds=seconds)
    times = {"startedAt": f"{STARTED:%FT%T.%fZ}", "finishedAt": f"{ended:%FT%T.%fZ}"}
    return {"number": 1, "id": "a", "backend": "process", "reason": "Completed", **times}


async def past_runs(world: World, *argv: str, count: int = LEAST_RUNS) -> None:
    """Creates tasks of the same spec that have succeeded, each after ten minutes."""
    for number in range(count):
        name = await world.task(*argv)
        obj = await world.get(name)
        status = {
            "phase": "Succeeded",
            "backend": "process",
            "observedGeneration": obj["metadata"]["generation"],
            "conditions": [{"type": "Finished", "status": "True"}, {"type": "Succeeded", "status": "True"}],
            "completionTime": "2026-01-01T00:10:00Z",
            "attempts": [attempt(USUAL + number)],
        }
        await world.kube.patch(TASKS, "default", name, {"status": status}, subresource="status")


def condition(status: dict[str, Any]) -> dict[str, Any]:
    return next((each for each in status["conditions"] if each["type"] == "Unusual"), {})


def counted(operator: Operator, quantity: str = "Duration") -> float:
    return operator.metrics.registry.get_sample_value("remit_task_unusual_total", {"quantity": quantity}) or 0


def writes(operator: Operator) -> float:
    labels = {"verb": "patch", "kind": "ExecutionTask"}
    return operator.metrics.registry.get_sample_value("remit_api_writes_total", labels) or 0


async def test_an_unusual_task_is_marked_counted_and_reported_once(world: World) -> None:
    await world.policy("echo")
    await past_runs(world, "echo", "backup")
    async with world.operator() as operator:
        usual = await world.finished(other := await world.task("echo", "other"))
        assert {"Completed"} == {each["reason"] for each in await world.events(other, 1)}
        of_usual = before = writes(operator)
        status = await world.finished(name := await world.task("echo", "backup"))
        assert {"Completed", "UnusualDuration"} == {each["reason"] for each in await world.events(name, 2)}
        assert writes(operator) - before == of_usual, "what is unusual is in the write that ends it"
        found = condition(status)
        assert (found["status"], found["reason"]) == ("True", "UnusualDuration")
        assert "; the 8 runs before took 10m4s (median), at least 10m" in found["message"]
        assert truth(status, "Succeeded") == "True"
        assert condition(usual) == {}
        assert (counted(operator), counted(operator, "Memory")) == (1, 0)
        await world.edit(name, {"ttlSecondsAfterFinished": 3600})
        await world.until(name, lambda status: status["observedGeneration"] == 2)
        edited = (await world.get(name))["status"]
        assert condition(edited)["reason"] == "UnusualDuration", "an edit changes nothing of it"
    version = (await world.get(name))["metadata"]["resourceVersion"]
    async with world.operator() as operator:  # a new leader
        status = await world.finished(again := await world.task("echo", "backup"))
        assert condition(status)["reason"] == "UnusualDuration"
        await world.events(again, 2)
        assert counted(operator) == 1, "of its own"
    assert (await world.get(name))["metadata"]["resourceVersion"] == version
    events = await world.events(name, 2)
    assert [each.get("count", 1) for each in events if each["reason"] == "UnusualDuration"] == [1]


async def test_what_is_not_like_it_or_does_not_succeed_is_not_unusual(world: World) -> None:
    await world.policy("sh")
    await past_runs(world, "sh", "-c", "exit 1")
    await past_runs(world, "sh", "-c", "true", count=LEAST_RUNS - 1)
    async with world.operator() as operator:
        for script in ("exit 1", "true"):
            status = await world.finished(await world.sh(script))
            assert condition(status) == {}, script
        assert counted(operator) == 0


async def test_one_switch_turns_it_off(world: World) -> None:
    await world.policy("echo")
    await past_runs(world, "echo", "backup")
    async with world.operator(anomalies=False) as operator:
        status = await world.finished(again := await world.task("echo", "backup"))
        assert condition(status) == {}
        assert {"Completed"} == {each["reason"] for each in await world.events(again, 1)}
        assert counted(operator) == 0
        name = await scheduled(world, "echo", "tick")
        child = await world.kube.create(TASKS, "default", schedule.child(await world.get(name), None))
        await world.finished(child["metadata"]["name"])
        await seen_finished(operator, child["metadata"]["name"])
        run = {"name": "earlier", "finishedAt": "2026-01-01T00:00:00Z", "durationSeconds": 1}
        await world.kube.patch(TASKS, "default", name, {"status": {"recentRuns": [run]}}, subresource="status")
        await world.until(name, lambda status: "recentRuns" not in status)


async def test_a_schedule_keeps_what_its_runs_took(world: World) -> None:
    await world.policy("echo")
    async with world.operator() as operator:
        name = await scheduled(world, "echo", "tick")
        ended = STARTED + datetime.timedelta(seconds=USUAL)
        runs = [
            {
                "name": f"{name}-{number}",
                "finishedAt": f"{ended + datetime.timedelta(days=number):%FT%T.%fZ}",
                "durationSeconds": USUAL + number,
            }
            for number in range(WINDOW)
        ]
        await world.kube.patch(TASKS, "default", name, {"status": {"recentRuns": runs}}, subresource="status")
        known = operator.tasks.reflector.objects
        await world.operator_has(lambda: "recentRuns" in (known.get(f"default/{name}") or {}).get("status", {}))
        child = await world.kube.create(TASKS, "default", schedule.child(await world.get(name), None))
        status = await world.finished(child["metadata"]["name"])
        assert condition(status)["reason"] == "UnusualDuration"
        assert f"the {WINDOW} runs before took 10m" in condition(status)["message"]
        parent = await world.until(name, lambda status: child["metadata"]["name"] in names(status))
        assert names(parent) == [*(each["name"] for each in runs[1:]), child["metadata"]["name"]]
        last = parent["recentRuns"][-1]
        assert 0 < last["durationSeconds"] < USUAL
        assert last["finishedAt"] == status["attempts"][-1]["finishedAt"]


def names(status: dict[str, Any]) -> list[str]:
    return [each["name"] for each in status.get("recentRuns", [])]
