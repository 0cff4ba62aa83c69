"""Tests that what has run is not run again if a user who may write status resets it."""

from __future__ import annotations

import pytest

from remit.kube.client import TASKS

from .conftest import World


@pytest.mark.parametrize(("command", "phase"), [("true", "Succeeded"), ("false", "Failed")])
async def test_an_attempt_on_record_is_collected_and_not_started_again(world: World, command: str, phase: str) -> None:
    async with world.operator():
        await world.policy(command)
        name = await world.task(command)
        first = await world.finished(name)
        task = await world.get(name)
        task["status"] = {"observedGeneration": -1}
        await world.kube.request("PUT", TASKS.path("default", name, "status"), body=task)
        again = await world.finished(name)
        assert (first["phase"], again["phase"]) == (phase, phase)
        assert [attempt["id"] for attempt in again["attempts"]] == [first["attempts"][0]["id"]]
        assert again["attempts"][0]["exitCode"] == first["attempts"][0]["exitCode"]
        reasons = [event["reason"] for event in await world.events(name, 3)]
        assert "StatusRestored" in reasons
    trail = (world.settings.state_dir / "audit" / "audit.jsonl").read_text()
    assert trail.count('"kind":"execution"') == 1
    assert trail.count('"kind":"decision"') == 1
