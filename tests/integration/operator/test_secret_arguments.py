"""Tests that a task's own secret in its arguments is neither recorded nor reported."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from remit.kube.client import EVENTS, POLICIES, SECRETS, TASKS
from remit.telemetry.encodings import MOST_VALUES

from .conftest import World

SECRET = "kestrel-Plumage-77"
OTHER = "an-argument-of-its-own"
ENV = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]


@pytest.fixture(autouse=True)
async def _secret(world: World) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": SECRET}}
    await world.kube.create(SECRETS, "default", body)


async def everything_told(world: World) -> dict[str, str]:
    """Returns everything that was written of tasks and policies, except what their authors wrote, and all files on
    disk."""
    told: dict[str, str] = {}
    for resource in (TASKS, POLICIES, EVENTS):
        for obj in await world.kube.list(resource):
            part = obj if resource is EVENTS else obj.get("status")
            told[f"{resource.plural}/{obj['metadata']['name']}"] = str(part)
    for path in world.settings.state_dir.rglob("*"):
        if path.is_file() and path.suffix != ".db":
            told[str(path)] = await asyncio.to_thread(path.read_text, errors="replace")
    return told


def audited(told: dict[str, str]) -> str:
    return "".join(text for name, text in told.items() if name.endswith("audit.jsonl"))


@pytest.mark.parametrize(
    ("policy", "argv", "reason"),
    [
        ({}, ["echo", OTHER, f"--password={SECRET}"], "Completed"),
        ({}, ["rm", OTHER, SECRET], "NotAllowed"),
        ({}, ["rm", OTHER, "x" * 162 + SECRET], "NotAllowed"),
        ({"environment": {"allow": []}}, ["echo", OTHER, SECRET], "EnvironmentNotAllowed"),
        ({"enforcement": "Audit"}, ["printf", OTHER, SECRET], "Completed"),
        (
            {"commands": {"allow": [{"executable": "echo", "args": [OTHER, "x"]}]}},
            ["echo", OTHER, SECRET],
            "NotAllowed",
        ),
    ],
)
async def test_a_decision_is_reported_without_the_secret(
    world: World, policy: dict[str, Any], argv: list[str], reason: str
) -> None:
    async with world.operator():
        await world.policy("echo", **{"environment": {"allow": ["PASSWORD"]}, **policy})
        name = await world.task(*argv, env=ENV)
        status = await world.finished(name)
        assert status["conditions"][0]["reason"] == reason, status
        await world.events(name, 1)
    told = await everything_told(world)
    assert OTHER in audited(told)
    assert [where for where, text in told.items() if SECRET[:8] in text] == []


async def test_one_that_only_env_from_brings(world: World) -> None:
    async with world.operator():
        await world.policy("echo")
        name = await world.task("echo", OTHER, SECRET, envFrom=[{"prefix": "A_", "secretRef": {"name": "db"}}])
        status = await world.finished(name)
        assert status["conditions"][0]["reason"] == "EnvironmentNotAllowed"
    told = await everything_told(world)
    assert OTHER in audited(told)
    assert [where for where, text in told.items() if SECRET in text] == []


async def test_a_secret_that_is_missing_does_not_delay_a_denial(world: World) -> None:
    missing = [{"name": "X", "valueFrom": {"secretKeyRef": {"name": "none", "key": "x"}}}, *ENV]
    async with world.operator():
        await world.policy("echo", environment={"allow": ["PASSWORD", "X"]})
        status = await world.finished(await world.task("rm", OTHER, SECRET, env=missing))
        assert status["phase"] == "Denied"
    told = await everything_told(world)
    assert [where for where, text in told.items() if SECRET in text] == []


async def test_secrets_that_are_too_many_to_be_redacted_do_not_delay_a_denial(world: World) -> None:
    """The request is not reported at all, because it may contain one of the secrets."""
    many = {f"k{number}": f"{SECRET}-{number}" for number in range(MOST_VALUES + 1)}
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "many"}, "stringData": many}
    await world.kube.create(SECRETS, "default", body)
    async with world.operator():
        await world.policy("echo")
        name = await world.task("rm", SECRET, envFrom=[{"secretRef": {"name": "many"}}])
        status = await world.finished(name)
        assert (status["phase"], status["conditions"][0]["reason"]) == ("Denied", "NotAllowed")
        assert "what was asked is not told, because the task has 1025 values of Secrets" in status["message"]
    told = await everything_told(world)
    assert "NotAllowed" in audited(told)
    assert [where for where, text in told.items() if SECRET in text] == []
