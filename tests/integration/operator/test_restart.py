"""Tests operators that stop and start again: nothing is lost, and nothing runs twice without a report."""

from __future__ import annotations

import asyncio

import pytest

from remit.controllers import tasks as tasks_module
from remit.errors import RemitError
from remit.kube.client import TASKS

from .conftest import World


async def test_a_run_that_is_lost_with_its_operator_ends_as_interrupted(world: World) -> None:
    async with world.operator():
        await world.policy("sh")
        name = await world.sh("echo so far; sleep 1000")
        await world.until(name, lambda status: status.get("phase") == "Running")
    status = await world.finished(name)
    assert (status["phase"], status["error"]["category"]) == ("Failed", "Interrupted")
    assert status["attemptCount"] == 1


async def test_it_is_started_again_where_that_is_asked_for(world: World) -> None:
    async with world.operator():
        await world.policy("sh")
        retry = {"onInterruption": "Retry", "backoff": {"initialSeconds": 0.1}}
        name = await world.sh("test $REMIT_ATTEMPT = 1 && sleep 1000; echo again", retry=retry)
        await world.phase(name, "Running")
    async with world.operator():
        status = await world.finished(name)
    assert (status["phase"], status["attemptCount"], status["interruptions"]) == ("Succeeded", 2, 1)
    assert [attempt["reason"] for attempt in status["attempts"]] == ["Interrupted", "Completed"]


async def test_backoff_outlives_a_restart(world: World) -> None:
    async with world.operator():
        await world.policy("sh")
        retry = {"maxRetries": 1, "backoff": {"initialSeconds": 2, "jitter": 0}}
        name = await world.sh("test $REMIT_ATTEMPT = 2", retry=retry)
        due = (await world.phase(name, "Backoff"))["nextRetryTime"]
    assert (await world.get(name))["status"]["nextRetryTime"] == due
    async with world.operator():
        status = await world.finished(name)
    assert status["phase"] == "Succeeded"
    assert status["attempts"][1]["startedAt"] >= due


async def test_what_happened_while_no_operator_was_there_is_made_up_for(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with world.operator() as operator:
        await world.policy("echo")
        done = await world.task("echo")
        await world.finished(done)
        uid = (await world.get(done))["metadata"]["uid"]
        assert ("default", uid) in list(operator.runner.store.tasks())
    await world.kube.delete(TASKS, "default", done)
    waiting = await world.task("echo")
    async with world.operator() as operator:
        assert (await world.finished(waiting))["phase"] == "Succeeded"
        monkeypatch.setattr(tasks_module, "ORPHAN_SECONDS", 0)
        for _ in range(2):  # the first sweep marks it as missing, the second one removes what was kept of it
            await operator.tasks.sweep()
        assert ("default", uid) not in list(operator.runner.store.tasks())


async def test_a_part_that_ends_ends_the_operator(world: World) -> None:
    """This includes a part that ends without an error, or because something else was cancelled."""

    async def ends(how: str) -> None:
        if how == "cancelled":
            raise asyncio.CancelledError

    for how in ("returned", "cancelled"):
        async with world.operator() as operator:
            operator.spawn(ends(how), "a part")
            with pytest.raises(RemitError, match="a part ended"):
                await operator.failed


async def test_a_second_operator_does_not_share_a_state_directory(world: World) -> None:
    async with world.operator():
        with pytest.raises(RemitError, match="another operator works in"):
            async with world.operator():
                pass


async def test_a_task_that_waits_for_its_turn_is_not_started_by_a_shutdown(world: World) -> None:
    """Runs that a shutdown ends free capacity; a task that used it would be interrupted a moment later."""
    async with world.operator(max_concurrent=1):
        await world.policy("sleep")
        running = await world.task("sleep", "1000")
        await world.phase(running, "Running")
        waiting = [await world.task("sleep", "0.2") for _ in range(3)]
    assert (await world.finished(running))["error"]["category"] == "Interrupted"
    assert {(await world.get(name))["status"].get("attemptCount", 0) for name in waiting} == {0}
    async with world.operator(max_concurrent=1):
        assert {(await world.finished(name))["phase"] for name in waiting} == {"Succeeded"}
