"""Tests edge cases of releases on processes and their outcomes: supervisors, proxies, programs and specs that change
meanwhile."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import signal
import socket
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import psutil
import pytest

import supervised
from remit.kube.client import DEPLOYMENTS, SECRETS, TASKS
from remit.release.traffic.probe import Probe
from shops import truth

from .conftest import World
from .edges import CHECK, MANUAL, Edges, eventually, hook, open_edges

pytestmark = pytest.mark.no_cover


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[Edges]:
    async with open_edges(world, tmp_path / "versions") as shop:
        yield shop


async def test_superseded_wherever_it_waits_and_the_old_one_serves_until_the_last_is_live(shop: Edges) -> None:
    await shop.world.policy("sleep")
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        async with Probe(f"http://127.0.0.1:{shop.port}/", rate=50, timeout_seconds=60) as probe:
            await shop.change("v2", "sick")
            await shop.until(lambda status: status.get("stage") == "Health")
            await shop.change("v3", stages=hook("sleep", "600"))
            await shop.hook_runs("shop-3-pre-gate")
            assert await shop.answer() == "v1"
            await shop.change("v4", stages={"prePromotion": None}, **MANUAL)
            await shop.awaiting("v4")
            assert await shop.answer() == "v1"
            await shop.change("v5", strategy={"blueGreen": {"autoPromote": True}})
            await shop.live("v5")
            assert await shop.answer() == "v5"
        assert probe.report().failed == 0
        status = await shop.tidy()
        outcomes = [each["outcome"] for each in status["history"]]
        assert outcomes == ["Promoted", "Superseded", "Superseded", "Superseded", "Promoted"]
        assert len(shop.supervisors()) == 1
        await shop.world.phase("shop-3-pre-gate", "Cancelled")


async def test_health_that_flaps_has_no_deadline_while_paused_and_fails_at_it_once_resumed(shop: Edges) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.faulty("v2", "flaps", healthCheck={**CHECK, "successThreshold": 2, "failureThreshold": 1})
        await shop.until(lambda status: status.get("stage") == "Health")
        await shop.ask("pause")
        status = await shop.until(lambda status: status.get("phase") == "Paused")
        entered = next(stage["startedAt"] for stage in status["stages"] if stage["name"] == "Health")
        past = datetime.datetime.fromisoformat(entered) + datetime.timedelta(seconds=2)
        await eventually(lambda: _is_past(past), "the deadline to pass")
        sooner = {"spec": {"progressDeadlineSeconds": 1}}  # this change starts no new release
        generation = (await shop.kube.patch(DEPLOYMENTS, "default", "shop", sooner))["metadata"]["generation"]
        status = await shop.until(lambda status: status["observedGeneration"] == generation)
        assert (status["phase"], status["history"][0]["outcome"]) == ("Paused", "InProgress")
        await shop.ask("resume")
        status = await shop.ended("Failed")
        assert "no progress for 1 s: 0 of 1 instances are healthy" in status["message"]
        assert "ProgressDeadlineExceeded" in {condition["reason"] for condition in status["conditions"]}
        assert await shop.answer() == "v1"


async def _is_past(moment: datetime.datetime) -> bool:
    return datetime.datetime.now(datetime.UTC) > moment


async def test_deleted_in_mid_release_nothing_is_left_not_even_of_its_hook(shop: Edges) -> None:
    await shop.world.policy("sleep")
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2", stages=hook("sleep", "600"))
        await shop.hook_runs("shop-2-pre-gate")
        programs = [child for each in shop.supervisors() for child in each.children(recursive=True)]
        proxy = psutil.Process(await shop.proxy())
        assert len(shop.supervisors()) == 2
        await shop.world.kube.delete(DEPLOYMENTS, "default", "shop")
        await shop.world.gone("shop", DEPLOYMENTS)
        await supervised.ended(shop.state / "instances" / "default")
        await eventually(_ended([*programs, proxy]), "programs and the proxy to end")
        with pytest.raises(ConnectionRefusedError):
            await shop.answer()
        await shop.world.gone("shop-2-pre-gate", TASKS)
        kept = [shop.state / name for name in ("instances", "releases", "traffic", "reports")]
        left = [path for root in [*kept, shop.state / "artifacts"] for path in root.rglob("*")]
        assert [path for path in left if "shop" in path.parts] == []


async def test_the_live_side_and_the_proxy_killed_in_mid_release_come_back_and_it_goes_on(shop: Edges) -> None:
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        [killed] = shop.supervisors()
        await shop.change("v2", **MANUAL)
        await shop.awaiting("v2")
        programs = killed.children(recursive=True)
        killed.kill()
        await eventually(_ended(programs), "programs to end with their supervisor")
        await shop.hears("v1")
        await eventually(shop.both_run, "both sides to run")
        proxy = await shop.proxy()
        os.kill(proxy, signal.SIGKILL)
        await shop.hears("v1")
        assert await shop.proxy() != proxy
        await shop.ask("promote")
        await shop.live("v2")
        assert await shop.answer() == "v2"
        assert [each["outcome"] for each in (await shop.tidy())["history"]] == ["Promoted", "Promoted"]
        [live] = shop.supervisors()
        await shop.change("v3", **MANUAL)
        await shop.awaiting("v3")
        next(each for each in shop.supervisors() if each != live).kill()
        status = await shop.ended("Failed", 3)
        assert "an instance crashed after being healthy" in status["message"]
        assert await shop.answer() == "v2"


def _ended(programs: list[psutil.Process]) -> Callable[[], Any]:
    async def ended() -> bool:
        return not any(map(_lives, programs))

    return ended


def _lives(process: psutil.Process) -> bool:
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


async def test_health_that_flaps_a_program_and_a_supervisor_that_die_in_the_bake_are_rolled_back(shop: Edges) -> None:
    baking = {"stages": {"bakeSeconds": 600, "failureThresholdPercent": 100}}  # failed requests decide nothing
    async with shop.world.operator():
        await shop.create("v1")
        await shop.live("v1")
        [first] = shop.supervisors()

        await shop.faulty("v2", "flaps when live", healthCheck={**CHECK, "failureThreshold": 1}, **baking)
        await shop.bakes("v2")
        assert await shop.answer() == "v2"
        status = await shop.ended("RolledBack")
        assert "InstanceFailed" in {condition["reason"] for condition in status["conditions"]}
        assert "answered 500" in status["message"]
        assert await shop.answer() == "v1"

        await shop.faulty("v3", "dies", **baking)
        await shop.bakes("v3")
        assert await shop.answer() != "v3"  # the request killed the instance
        status = await shop.ended("RolledBack", 3)
        assert "out of luck" in status["message"]
        assert truth(status, "Stalled") == "True"
        assert await shop.answer() == "v1"

        # The health check notices nothing.
        await shop.change("v4", healthCheck={**CHECK, "failureThreshold": 100}, **baking)
        await shop.bakes("v4")
        next(each for each in shop.supervisors() if each != first).kill()
        status = await shop.ended("RolledBack", 4)
        assert "an instance crashed after being healthy" in status["message"]
        assert await shop.answer() == "v1"
        assert first.is_running()


async def test_a_port_in_use_is_reported_and_the_old_side_serves(shop: Edges) -> None:
    with socket.socket() as other:
        other.bind(("", 0))
        other.listen()
        taken = other.getsockname()[1]
        async with shop.world.operator():
            await shop.create("v1")
            await shop.live("v1")
            [before], proxy = shop.supervisors(), await shop.proxy()
            ports = [{"name": "http", "containerPort": 8080, "published": taken}]
            await shop.change("v2", ports=ports)
            status = await shop.ended("Failed")
            assert f"port {taken} of default/shop is taken by " in status["message"]
            assert "publish another one, or free this one" in status["message"]
            assert {c["reason"] for c in status["conditions"]} == {"PortTaken"}
            assert (shop.supervisors(), await shop.proxy(), await shop.answer()) == ([before], proxy, "v1")
            other.close()
            shop.port = taken
            await shop.ask("retry")
            await shop.live("v2")
            assert await shop.answer() == "v2"


async def test_what_a_failed_one_said_is_shown_without_its_secrets(
    shop: Edges, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    value = "correct-horse-battery"
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "db"}, "stringData": {"password": value}}
    await shop.kube.create(SECRETS, "default", secret)
    password = {"name": "PASSWORD", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}}
    async with shop.world.operator():
        await shop.faulty("v1", "talks", password, first=True)
        await eventually(lambda: _said(shop.state / "instances", "[redacted]"), "its output to be kept")
        assert not await _said(shop.state / "instances", value)
        await shop.kube.patch(DEPLOYMENTS, "default", "shop", {"spec": {"progressDeadlineSeconds": 1}})
        status = await shop.ended("Failed", 1)
        assert "cannot log in with [redacted]" in status["message"]
        await shop.until(lambda status: "report" in status["history"][0])
        events = await shop.world.events("shop", 2)
    shown = json.dumps([await shop.get(), events])
    output = capfd.readouterr()
    assert value not in shown + caplog.text + output.out + output.err
    for folder in ("audit", "reports"):
        assert await _said(shop.state / folder, "[redacted]")
    private = shop.state / "releases" / "default" / "shop" / "revisions"  # from where a rollback copies it
    holding = {path for path in shop.state.rglob("*") if path.is_file() and value.encode() in path.read_bytes()}
    assert all(path.is_relative_to(private) for path in holding), holding


async def _said(root: Path, words: str) -> bool:
    """Returns whether a file below `root` contains these words. Files may vanish during the search."""
    for path in root.rglob("*"):
        with contextlib.suppress(FileNotFoundError):
            if path.is_file() and words.encode() in path.read_bytes():
                return True
    return False
