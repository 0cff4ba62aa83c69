"""Tests deceptive objects and requests: tasks that claim to be a release's hooks, and misspelt requests."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from remit.errors import ApiError
from remit.kube.client import EVENTS, TASKS
from webserver import answering

from .conftest import World
from .edges import MANUAL, Edges, eventually, open_edges

pytestmark = pytest.mark.no_cover


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[Edges]:
    async with open_edges(world, tmp_path / "versions") as shop:
        yield shop


@asynccontextmanager
async def slow_hook(world: World) -> AsyncIterator[tuple[dict[str, Any], asyncio.Event]]:
    """Provides a hook that ends when the event is set."""
    go_on = asyncio.Event()

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        await go_on.wait()
        return web.Response(text="ready")

    async with answering(answer) as port:
        await world.policy(http={"allow": [{"hosts": ["127.0.0.1"], "ports": [port]}]})
        yield {"name": "slow", "task": {"http": {"url": f"http://127.0.0.1:{port}/"}}}, go_on


async def claimed(
    shop: Edges, name: str, *argv: str, labels: dict[str, str] | None = None, **reference: Any
) -> dict[str, Any]:
    """Creates a task, as any user who may create tasks can, that names the shop as its controller."""
    metadata = (await shop.get())["metadata"]
    owner = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "Deployment",
        "name": "shop",
        "uid": metadata["uid"],
        "controller": True,
        **reference,
    }
    body = {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": name, "labels": labels or {}, "ownerReferences": [owner]},
        "spec": {"command": {"argv": list(argv)}},
    }
    return await shop.kube.create(TASKS, "default", body)


async def told(shop: Edges, reason: str) -> str:
    """Waits for an Event of the shop with this reason, and returns its message."""
    messages: list[str] = []

    async def found() -> bool:
        events = await shop.kube.list(EVENTS, "default", field_selector="involvedObject.name=shop")
        messages[:] = [each["message"] for each in events if each["reason"] == reason]
        return bool(messages)

    await eventually(found, f"the Event {reason}")
    return messages[0]


async def forged_labels(shop: Edges) -> dict[str, str]:
    """Returns the labels of the current release's hook `gate`, computed from the status alone."""
    began = (await shop.get())["status"]["pipeline"]["release"]["startedAt"]
    return {
        "remit.dev/deployment": "shop",
        "remit.dev/revision": "2",
        "remit.dev/stage": "PrePromotion",
        "remit.dev/hook": "gate",
        "remit.dev/release-began": began.replace("-", "").replace(":", ""),
    }


@pytest.mark.parametrize("name", ["forged", "shop-2-pre-gate"])
async def test_a_task_that_claims_to_be_a_hook_says_nothing_of_a_release(shop: Edges, name: str) -> None:
    await shop.world.policy("true", "false")
    async with slow_hook(shop.world) as (slow, go_on), shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        gate = {"name": "gate", "task": {"command": {"argv": ["false"]}}}
        await shop.change("v2", stages={"bakeSeconds": 0, "prePromotion": [slow, gate]})
        await shop.until(lambda status: "hook slow runs" in status["message"], "as to run its first hook")
        forged = await claimed(shop, name, "true", labels=await forged_labels(shop))
        assert (await shop.world.finished(name))["phase"] == "Succeeded"
        go_on.set()
        status = await shop.ended("Failed")
        assert "hook gate failed: task shop-2-pre-gate" in status["message"]
        assert await shop.answer() == "v1"
        real = await shop.kube.get(TASKS, "default", "shop-2-pre-gate")
        assert real["metadata"]["uid"] != forged["metadata"]["uid"]
        assert real["status"]["phase"] == "Failed"
        if name == "shop-2-pre-gate":
            assert "shop-2-pre-gate" in await told(shop, "HookReplaced")


async def test_a_hook_that_is_replaced_while_it_runs_runs_again(shop: Edges) -> None:
    await shop.world.policy("true")
    async with slow_hook(shop.world) as (slow, go_on), shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", stages={"bakeSeconds": 0, "prePromotion": [slow]})
        await shop.until(lambda status: "hook slow runs" in status["message"], "as to run its hook")
        real = await shop.kube.get(TASKS, "default", "shop-2-pre-slow")
        await shop.kube.delete(TASKS, "default", "shop-2-pre-slow", uid=real["metadata"]["uid"])
        try:
            forged = await claimed(shop, "shop-2-pre-slow", "true", labels=real["metadata"]["labels"])
        except ApiError as error:
            assert error.status == 409  # the operator was faster and has created it again
            forged = real

        async def runs_again() -> bool:
            there = [each for each in await shop.kube.list(TASKS, "default") if "slow" in each["metadata"]["name"]]
            uids = {each["metadata"]["uid"] for each in there}
            return bool(uids) and not uids & {real["metadata"]["uid"], forged["metadata"]["uid"]}

        await eventually(runs_again, "the hook to run again")
        assert await shop.answer() == "v1"
        go_on.set()
        await shop.live("v2")


async def test_tasks_with_broken_labels_do_not_delay_releases(shop: Edges) -> None:
    await shop.world.policy("true")
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await claimed(shop, "no-revision", "true", labels={"remit.dev/hook": "gate"})
        await claimed(shop, "no-number", "true", labels={"remit.dev/hook": "gate", "remit.dev/revision": "two"})
        await shop.change("v2", **MANUAL)
        await shop.awaiting("v2")
        await shop.ask("abort")
        await shop.ended("Aborted")


async def test_a_task_of_another_kind_of_deployment_is_left_alone(shop: Edges) -> None:
    await shop.world.policy("sleep", "true")
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        labels = {"remit.dev/hook": "gate"}
        await claimed(shop, "foreign", "sleep", "600", labels=labels, apiVersion="apps/v1", uid="of-another")
        await claimed(shop, "own", "sleep", "600", labels=labels | {"remit.dev/revision": "9"})
        await shop.world.phase("foreign", "Running")
        await shop.world.phase("own", "Cancelled")  # it claims to belong to the shop, which has no release in progress
        await shop.change("v2")
        await shop.live("v2")
        assert (await shop.world.get("foreign"))["status"]["phase"] == "Running"


async def test_hooks_that_come_when_their_release_is_over_are_cancelled(shop: Edges) -> None:
    """This happens if the operator was killed after it created the hooks, or before it cancelled all of them."""
    await shop.world.policy("sleep")
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        for round_ in "ab":
            names = [f"late-{round_}{number}" for number in range(3)]
            for name in names:
                await claimed(shop, name, "sleep", "600", labels={"remit.dev/hook": "gate"})
            for name in names:
                await shop.world.phase(name, "Cancelled")


@pytest.mark.parametrize(
    ("asked", "answer"),
    [
        ('{"promote": {"revison": 2}, "id": "typo"}', "promote.revison is not a known field; did you mean revision?"),
        ("promot", "did you mean promote?"),
        ('{"promote": {"revision": 99}, "promote": {}}', "promote is given twice"),
        ('{"promote": {}, "abort": {}}', "promote and abort given"),
    ],
)
async def test_a_request_with_a_mistake_is_refused_with_what_is_wrong(shop: Edges, asked: str, answer: str) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", **MANUAL)
        await shop.awaiting("v2")
        await shop.ask(asked)
        status = await shop.until(lambda status: status.get("request"), "as to answer")
        assert not status["request"]["accepted"]
        assert answer in status["request"]["message"]
        assert answer in await told(shop, "InvalidRequest")
        assert (status["phase"], await shop.answer()) == ("AwaitingPromotion", "v1")
