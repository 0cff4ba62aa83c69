"""Tests the order of the queue: the operator's own limit, a policy's limit, and its rate."""

from __future__ import annotations

import asyncio
import datetime
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from remit.controllers import operator as operator_module
from remit.execution import waiting
from remit.kube.client import NAMESPACES, TASKS, Object
from remit.sandbox import MemoryBudget, probe_host
from support import repetitions

from .conftest import PATIENCE, World
from .test_schedules import wound

pytestmark = pytest.mark.no_cover


@pytest.fixture(autouse=True)
def _told_soon(monkeypatch: pytest.MonkeyPatch) -> None:
    """Writes to status immediately that a task waits, instead of after ten seconds."""
    monkeypatch.setattr(waiting, "QUEUED_IS_WORTH_A_WRITE", 0.2)


async def test_no_more_run_at_once_than_may_and_all_come_to_their_turn(world: World) -> None:
    async with world.operator(max_concurrent=2) as operator:
        await world.policy("sleep")
        names = [await world.task("sleep", "0.2") for _ in range(8)]
        most = 0
        pending = set(names)
        while pending:
            most = max(most, len(operator.runner))
            pending -= {
                name for name in pending if (await world.get(name)).get("status", {}).get("phase") == "Succeeded"
            }
        assert most == 2


async def test_a_policy_bounds_its_own_tasks_only(world: World) -> None:
    async with world.operator():
        await world.policy("sleep", selector={"matchLabels": {"team": "a"}}, rate={"maxConcurrent": 1})
        await world.policy("echo", selector={"matchLabels": {"team": "b"}})
        first = await world.task("sleep", "1000", labels={"team": "a"})
        await world.phase(first, "Running")
        second = await world.task("sleep", "0", labels={"team": "a"})
        other = await world.task("echo", labels={"team": "b"})
        assert (await world.finished(other))["phase"] == "Succeeded"
        assert (await world.get(second)).get("status", {}).get("attemptCount", 0) == 0
        queued = await world.phase(second, "Queued")
        assert "allows 1 at once, all are taken; 1st of 1 waiting in namespace default" in queued["message"]
        assert (queued["queue"]["position"], queued["queue"]["reason"]) == (1, "PolicyConcurrency")
        await world.edit(first, {"cancel": True})
        ended = await world.finished(second)
        assert (ended["phase"], ended.get("queue")) == ("Succeeded", None)


async def test_tasks_wait_until_the_operators_memory_holds_them(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The operator has a memory limit of its own: a task that never fits is refused, and the others wait."""
    host = replace(probe_host(), memory=MemoryBudget(100 << 20, 0))
    monkeypatch.setattr(operator_module, "probe_host", lambda: host)
    async with world.operator():
        await world.policy("sleep", "echo", limits={"memory": {"max": "1Gi"}})
        first = await world.task("sleep", "1000", resources={"memory": "60Mi"})
        await world.phase(first, "Running")
        second = await world.task("echo", resources={"memory": "60Mi"})
        queued = await world.phase(second, "Queued")
        assert f"the operator has {100 << 20} bytes of memory for its tasks" in queued["message"]
        assert queued["queue"]["reason"] == "OperatorMemory"
        await world.edit(first, {"cancel": True})
        assert (await world.finished(second))["phase"] == "Succeeded"
        refused = await world.finished(await world.task("echo", resources={"memory": "101Mi"}))
        assert (refused["phase"], refused["error"]["category"]) == ("Failed", "Resources")
        assert refused.get("attemptCount", 0) == 0
        assert f"needs {101 << 20} bytes" in refused["message"]


async def test_a_queued_task_is_cancelled(world: World) -> None:
    async with world.operator(max_concurrent=1):
        await world.policy("sleep")
        first = await world.task("sleep", "1000")
        await world.phase(first, "Running")
        second = await world.task("sleep", "0")
        await world.edit(second, {"cancel": True})
        status = await world.finished(second)
        assert (status["phase"], status.get("attemptCount", 0)) == ("Cancelled", 0)
        await world.edit(first, {"cancel": True})
        await world.finished(first)


async def test_a_rate_spreads_starts_out(world: World) -> None:
    async with world.operator():
        await world.policy("echo", rate={"perMinute": 120, "burst": 2})
        before = datetime.datetime.now(datetime.UTC)
        names = [await world.task("echo") for _ in range(6)]
        results = await asyncio.gather(*(world.finished(name) for name in names))
    last = max(datetime.datetime.fromisoformat(status["startTime"]) for status in results)
    assert last - before >= datetime.timedelta(seconds=2), "two at once from the burst, then one every half second"


async def test_a_flood_in_one_namespace_does_not_delay_another(world: World) -> None:
    await world.kube.create(NAMESPACES, None, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "calm"}})
    async with world.operator(max_concurrent=1) as operator:
        await world.policy("true", "sleep")
        await world.policy("true", namespace="calm")
        first = await world.task("sleep", "1000")
        await world.phase(first, "Running")
        flood = [await world.task("true") for _ in range(repetitions(60, soak=200))]
        calm = await world.task("true", namespace="calm")
        async with asyncio.timeout(PATIENCE):
            while len(operator.tasks.turns) < len(flood) + 1:
                await asyncio.sleep(0.02)
        await world.edit(first, {"cancel": True})
        started = (await world.finished(calm, "calm"))["startTime"]
        earlier = [task for task in await world.kube.list(TASKS, "default") if began(task) and began(task) < started]
        assert len(earlier) <= 2  # the one that was running, and one more turn


def began(task: Object) -> str:
    """Returns the start time of the first attempt as written; empty if there is none."""
    return str(task.get("status", {}).get("startTime", ""))


async def test_a_rate_holds_on_after_a_restart(world: World) -> None:
    async with world.operator():
        await world.policy("echo", rate={"perMinute": 2})
        for _ in range(2):
            await world.finished(await world.task("echo"))
    async with world.operator() as operator:
        clock = wound(operator)
        third = await world.task("echo", deadlineSeconds=10)
        queued = await world.phase(third, "Queued")
        assert (queued["queue"]["reason"], queued.get("attemptCount", 0)) == ("PolicyRate", 0)
        clock.turn(f"default/{third}", seconds=11)
        ended = await world.finished(third)
        assert (ended["phase"], ended["error"]["category"]) == ("TimedOut", "Deadline")


async def test_a_workspace_stays_a_deleted_tasks_until_nothing_of_that_is_alive(world: World) -> None:
    """This also applies while another task has the same name."""
    cache: dict[str, Any] = {
        "volumes": [{"name": "w", "workspace": {"name": "cache"}}],
        "volumeMounts": [{"name": "w", "mountPath": "/w", "access": "ReadWrite"}],
    }
    last_words = "trap 'sleep 2; echo first >>/w/log; exit' TERM; echo >/w/begun; while :; do sleep 0.1; done"
    async with world.operator() as operator:
        await world.policy("sh", volumes={"workspaces": [{"names": ["cache"]}]})
        first = await world.sh(last_words, terminationGracePeriodSeconds=30, **cache)
        await world.phase(first, "Running")
        begun = Path(operator.settings.state_dir, "workspaces/default/cache/data/begun")
        async with asyncio.timeout(PATIENCE):
            while not begun.exists():
                await asyncio.sleep(0.02)
        second = await world.sh("echo second >>/w/log; cat /w/log", **cache)
        waits = await world.phase(second, "Queued")
        await world.kube.delete(TASKS, "default", first)
        task = {"metadata": {"name": first}, "spec": {"command": {"argv": ["sh", "-c", "cat /w/log"]}, **cache}}
        await world.kube.create(TASKS, "default", {"apiVersion": "remit.dev/v1alpha1", "kind": "ExecutionTask"} | task)
        ends = [(await world.finished(name))["output"]["stdoutTail"] for name in (second, first)]
        assert len(operator.tasks.turns) == 0
    assert f"task {first} is writing to workspace cache" in waits["message"]
    assert ends == ["first\nsecond\n", "first\nsecond\n"]
