"""Tests tasks that wait for the container that they run, through whole operators and a real Docker engine."""

from __future__ import annotations

import asyncio
import base64
import json
from pathlib import Path
from typing import Any

import pytest

from dockers import docker
from remit.controllers.operator import Operator
from remit.kube.client import SECRETS, TASKS

from .conftest import PATIENCE, World


@pytest.fixture
async def docked(world: World, image: str) -> World:
    await world.policy(
        "sh",
        containers={"operations": ["run"]},
        images={"allow": ["remit-test:*"]},
        environment={"allow": ["TOKEN"]},
    )
    return world


async def waited(world: World, image: str, script: str, env: list[Any] | None = None, **spec: Any) -> str:
    container = {"action": "run", "wait": True, "remove": True, "image": image, "argv": ["sh", "-c", script]}
    return await world.task(container=container | ({"env": env} if env else {}), **spec)


async def name_of(world: World, task: str) -> str:
    return f"remit-{(await world.get(task))['metadata']['uid']}"


def is_there(name: str) -> bool:
    return docker("inspect", name).returncode == 0


async def until_it_says(world: World, operator: Operator, task: str, text: bytes) -> None:
    uid = (await world.get(task))["metadata"]["uid"]
    path = Path(operator.runner.store.root) / "default" / uid / f"{uid}-1" / "stdout.head"
    async with asyncio.timeout(PATIENCE):
        while not (path.exists() and text in path.read_bytes()):
            await asyncio.sleep(0.02)


async def test_output_and_exit_code_are_in_status(docked: World, image: str) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "canary-secret"}}
    await docked.kube.create(SECRETS, "default", secret)
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    async with docked.operator():
        task = await waited(docked, image, 'echo "the $TOKEN"; seq 100000 >&2; exit 3', env, output={"maxBytes": "1Ki"})
        status = await docked.finished(task)
    assert (status["exitCode"], status["attempts"][0]["reason"]) == (3, "ExitCode")
    assert status["output"]["stdoutTail"] == "the [redacted]\n"
    assert status["output"]["stderrTail"].endswith("\n99999\n100000\n")
    assert status["output"]["truncated"]
    assert "canary" not in json.dumps(status)
    assert not is_there(await name_of(docked, task))


async def test_a_cancel_ends_it(docked: World, image: str) -> None:
    async with docked.operator() as operator:
        task = await waited(docked, image, "echo begun; sleep 600", terminationGracePeriodSeconds=1)
        await until_it_says(docked, operator, task, b"begun")
        await docked.edit(task, {"cancel": True})
        assert (await docked.finished(task))["phase"] == "Cancelled"
    assert not is_there(await name_of(docked, task))


async def test_a_new_operator_goes_on_waiting(docked: World, image: str) -> None:
    """There is one run with all of its output and its exit code, as without a change of the operator."""
    script = "echo begun; while ! test -e /tmp/go; do sleep 0.05; done; exit 5"
    async with docked.operator() as operator:
        task = await waited(docked, image, script)
        await until_it_says(docked, operator, task, b"begun")
    name = await name_of(docked, task)
    assert is_there(name)
    async with docked.operator():
        assert docker("exec", name, "touch", "/tmp/go").returncode == 0
        status = await docked.finished(task)
    (attempt,) = status["attempts"]
    assert (attempt["exitCode"], status["output"]["stdoutTail"]) == (5, "begun\n")
    assert not is_there(name)


async def test_one_with_an_earlier_value_of_a_secret_is_ended(docked: World, image: str) -> None:
    """The operator that would adopt it could not redact that value."""
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"k": "canary-before"}}
    await docked.kube.create(SECRETS, "default", secret)
    env = [{"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "s", "key": "k"}}}]
    async with docked.operator() as operator:
        task = await waited(docked, image, "echo begun $TOKEN; sleep 600", env)
        await until_it_says(docked, operator, task, b"begun")
    await docked.kube.patch(SECRETS, "default", "s", {"data": {"k": base64.b64encode(b"canary-after").decode()}})
    async with docked.operator():
        status = await docked.finished(task)
    assert (status["attempts"][0]["reason"], "canary" in json.dumps(status)) == ("Interrupted", False)
    assert not is_there(await name_of(docked, task))


async def test_one_whose_task_was_deleted_while_no_operator_was_there_is_ended(docked: World, image: str) -> None:
    async with docked.operator() as operator:
        task = await waited(docked, image, "echo begun; sleep 600")
        await until_it_says(docked, operator, task, b"begun")
    name = await name_of(docked, task)
    await docked.kube.delete(TASKS, "default", task)
    assert is_there(name)
    async with docked.operator():
        async with asyncio.timeout(PATIENCE):
            while await asyncio.to_thread(is_there, name):
                await asyncio.sleep(0.05)
