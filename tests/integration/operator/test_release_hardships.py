"""Tests external events during a release: references vanish, names are taken, requests race, policies are revoked."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import structlog

from remit.kube.client import CONFIG_MAPS, EVENTS, POLICIES, SECRETS, TASKS
from remit.release.targets import copies
from remit.telemetry.chain import AuditEvent
from shops import truth

from .conftest import PATIENCE, World
from .edges import CHECK, MANUAL, Edges, eventually, hook, open_edges


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[Edges]:
    async with open_edges(world, tmp_path / "versions") as shop:
        yield shop


PASSWORD = [{"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}]


async def secret(shop: Edges, value: str) -> None:
    body = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": value}}
    await shop.kube.create(SECRETS, "default", body)


async def observed(shop: Edges) -> dict[str, Any]:
    """Returns the status once the operator has processed the current spec."""
    generation = (await shop.get())["metadata"]["generation"]
    return await shop.until(lambda status: status["observedGeneration"] == generation)


@pytest.mark.no_cover
async def test_a_spec_that_refers_to_what_is_not_there_is_not_said_to_be_live(shop: Edges) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", env=PASSWORD)
        status = await observed(shop)
        assert (truth(status, "Reconciling"), status["phase"]) == ("True", "Pending")
        assert "Secret db is not there" in status["message"]
        assert await shop.answer() == "v1"
        await shop.change("v1", env=None)
        status = await shop.live("v1")
        assert status["phase"] == "Healthy"
        assert len(status["history"]) == 1
        await shop.change("v2", env=PASSWORD)
        await shop.until(lambda status: "Secret db is not there" in status["message"])
        await secret(shop, "swordfish")
        await shop.live("v2")


async def test_what_goes_while_it_is_live_or_on_its_way_changes_neither_it_nor_a_rollback(shop: Edges) -> None:
    async with shop.world.operator():
        await secret(shop, "swordfish")
        config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop"}, "data": {"colour": "red"}}
        await shop.kube.create(CONFIG_MAPS, "default", config)
        all_of_it = {"env": PASSWORD, "config": [{"name": "shop", "mountPath": "/run/private/shop"}]}
        await shop.create("v1", **all_of_it)
        await shop.live("v1")
        await shop.change("v2", **all_of_it, **MANUAL)
        await shop.awaiting("v2")
        await shop.kube.delete(SECRETS, "default", "db")
        await shop.kube.delete(CONFIG_MAPS, "default", "shop")
        await shop.ask("promote")
        await shop.live("v2")
        await shop.tidy()
        await shop.ask("rollback")
        status = await shop.live("v1")
        assert (status["pinnedRevision"], status["phase"], await shop.answer()) == (1, "Pinned", "v1")
        await secret(shop, "marlin")  # neither releases a pin nor restores a revision that was rolled back
        await shop.kube.create(CONFIG_MAPS, "default", config)
        await shop.ask('{"promote": {}, "id": "looked"}')  # the answer shows that the operator has processed everything
        status = await shop.until(lambda status: status["request"]["id"] == "looked")
        assert (status["pinnedRevision"], status["phase"], len(status["history"])) == (1, "Pinned", 2)
        await shop.change("v3", **all_of_it, strategy={"blueGreen": {"autoPromote": True}})
        status = await shop.live("v3")
        assert [each["revision"] for each in status["history"]] == [3, 2, 1]


async def test_a_request_that_takes_the_place_of_another_one_is_answered_too(
    shop: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with shop.world.operator() as operator:
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", **MANUAL)
        await shop.awaiting("v2")
        audit = operator.deployments.audit
        append = audit.append_async

        async def meanwhile(event: AuditEvent) -> None:
            await append(event)
            if event.verdict == "Requested" and event.message.startswith("pause"):
                await shop.ask('{"abort": {}, "id": "second"}')

        monkeypatch.setattr(audit, "append_async", meanwhile)
        await shop.ask('{"pause": {}, "id": "first"}')
        status = await shop.ended("Aborted")
        assert status["request"]["id"] == "second"

        async def removed() -> bool:
            return "remit.dev/request" not in (await shop.get())["metadata"].get("annotations", {})

        await eventually(removed, "the request to be removed")


async def test_a_hook_whose_name_is_a_task_of_another_user_fails_at_once(shop: Edges) -> None:
    await shop.world.policy("true")
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        other = {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "ExecutionTask",
            "metadata": {"name": "shop-2-pre-gate"},
            "spec": {"command": {"argv": ["true"]}},
        }
        await shop.kube.create(TASKS, "default", other)
        await shop.change("v2", stages=hook("true"))
        status = await shop.ended("Failed")
        assert "there is a task shop-2-pre-gate already" in status["message"]
        assert {condition["reason"] for condition in status["conditions"]} == {"NameTaken"}
        assert await shop.answer() == "v1"


async def test_a_revision_that_is_released_again_runs_its_hooks_again(shop: Edges) -> None:
    await shop.world.policy("true", "false")
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", stages=hook("false"))
        await shop.ended("Failed")
        first = await shop.kube.get(TASKS, "default", "shop-2-pre-gate")
        await shop.change("v2", stages=hook("true"), rollbackTo={"revision": 2})
        await shop.live("v2")
        again = await shop.kube.get(TASKS, "default", "shop-2-pre-gate")
        assert again["metadata"]["uid"] != first["metadata"]["uid"]
        assert again["status"]["phase"] == "Succeeded"


HANGING = """
import os, socket
server = socket.create_server(("127.0.0.1", int(os.environ["PORT"])))
kept = []
while True:
    kept.append(server.accept())
"""


@pytest.mark.no_cover
async def test_a_health_check_that_hangs_does_not_delay_an_abort(shop: Edges) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        source = shop.folder / "v2"
        source.mkdir(parents=True)
        (source / "app.py").write_text(HANGING)
        await shop.change("v2", healthCheck={**CHECK, "timeoutSeconds": 3600, "periodSeconds": 3600})
        await shop.until(lambda status: status.get("stage") == "Health")
        await shop.ask("abort")
        await shop.ended("Aborted")
        await shop.tidy()
        assert (await shop.answer(), len(shop.supervisors())) == ("v1", 1)


async def test_an_artifact_that_never_comes_does_not_delay_an_abort(
    shop: Edges, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copies, "_FETCH_SECONDS", 0.1)
    asked, left = asyncio.Event(), asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked.set()
        while await reader.read(1 << 16):
            pass
        left.set()
        writer.close()

    async with await asyncio.start_server(hang, "127.0.0.1", 0) as server, shop.world.operator():
        port = server.sockets[0].getsockname()[1]
        await shop.world.policy(http={"allow": [{"hosts": ["127.0.0.1"], "ports": [port]}]})
        await shop.create("v1")
        await shop.live("v1")
        archive = {"archive": f"http://127.0.0.1:{port}/v2.tgz", "sha256": "0" * 64, "path": None}
        await shop.change("v2", artifact=archive)
        await shop.until(lambda status: "still being fetched" in status["message"])
        await asked.wait()
        await shop.ask("abort")
        await shop.ended("Aborted")
        async with asyncio.timeout(PATIENCE):
            await left.wait()
        assert await shop.answer() == "v1"


async def test_a_revoked_policy_stops_nothing_that_runs_and_explains_why_nothing_starts(shop: Edges) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", stages={"bakeSeconds": 0}, strategy={"blueGreen": {"scaleDownDelaySeconds": 600}})
        await shop.live("v2")
        policies = await shop.kube.list(POLICIES, "default")
        for policy in policies:
            await shop.kube.delete(POLICIES, "default", policy["metadata"]["name"])
        await shop.ask("rollback")  # within the delay it starts no instances
        await shop.live("v1")
        assert await shop.answer() == "v1"
        for each in shop.supervisors():
            each.kill()
        status = await shop.until(lambda status: "it is not started again" in status["message"])
        assert (status["phase"], "there is no CommandPolicy" in status["message"]) == ("Degraded", True), status[
            "message"
        ]
        policy = {key: policies[0][key] for key in ("apiVersion", "kind", "spec")} | {"metadata": {"name": "again"}}
        await shop.kube.create(POLICIES, "default", policy)
        await shop.hears("v1")


async def test_a_file_that_no_process_can_have_there_is_reported_and_ends_the_wait(shop: Edges) -> None:
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "shop"}, "data": {"colour": "red"}}
    await shop.kube.create(CONFIG_MAPS, "default", config)
    async with shop.world.operator():
        await shop.create("v1", config=[{"name": "shop", "mountPath": "/etc/shop"}])
        status = await shop.until(lambda status: truth(status, "Stalled") == "True")
        assert "/etc/shop/colour cannot be there" in status["message"]
        await shop.change("v1", config=[{"name": "shop", "mountPath": "/run/private/shop"}])
        await shop.live("v1")


async def test_a_repeatedly_failing_step_is_reported_once(shop: Edges) -> None:
    with structlog.testing.capture_logs() as logged:
        async with shop.world.operator():
            await shop.create("v1")
            await shop.live("v1")
            await shop.change("v2", artifact={"path": str(shop.folder / "nowhere")})
            status = await shop.stuck("nowhere is not there")
            assert "nowhere is not there" in status["message"]
            events = await shop.kube.list(EVENTS, "default", field_selector="involvedObject.name=shop")
            told = [event for event in events if event["reason"] == "ArtifactNotFound"]
            assert [event.get("count", 1) for event in told] == [1]
    assert [entry["event"] for entry in logged].count("a step of a release failed") == 1
