"""Tests reports of releases on processes, through a whole operator."""

from __future__ import annotations

import asyncio
import json
import stat
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from remit.kube.client import DEPLOYMENTS
from remit.release.traffic.traffic import Traffic
from shops import GROUNDS, PATIENCE, Shop, open_shop

from .conftest import World

pytestmark = pytest.mark.no_cover


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(GROUNDS[0], world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


async def reported(shop: Shop, revision: int, outcome: str = "Promoted") -> dict[str, Any]:
    """Waits until this revision has a report and this outcome in the history."""

    def told(status: dict[str, Any]) -> bool:
        return any(
            (each["revision"], each["outcome"]) == (revision, outcome) and "report" in each
            for each in status.get("history", [])
        )

    status = await shop.until(told)
    return next(each["report"] for each in status["history"] if each["revision"] == revision)


async def reasons(world: World, wanted: str, count: int) -> list[str]:
    """Waits until there are `count` Events of this reason, and returns their messages."""
    async with asyncio.timeout(PATIENCE):
        while True:
            found = [e["message"] for e in await world.events("shop", 1) if e["reason"] == wanted]
            if len(found) >= count:
                return found
            await asyncio.sleep(0.05)


async def test_each_release_is_reported(world: World, shop: Shop, capfd: pytest.CaptureFixture[str]) -> None:
    async with world.operator():
        await shop.create("v1")
        first = await reported(shop, 1)
        await shop.change("v2")
        second = await reported(shop, 2)
        await shop.change("v3", "sick")
        await shop.stuck("answered 500")
        failed = await reported(shop, 3, "Failed")
        status = (await shop.get())["status"]
        assert status["report"] == failed
        assert "requestsDuringSwitch" not in first or first["requestsDuringSwitch"] == 0  # nothing was live before
        assert second["requestsDuringSwitch"] >= 20
        assert second.get("failedDuringSwitch", 0) == 0
        assert second["switchMilliseconds"] > 0
        assert {"Validate", "Prepare", "Provision", "Health", "Promote"} <= set(second["stageSeconds"])
        assert failed.get("switchMilliseconds") is None
        assert len(await reasons(world, "Reported", 3)) == 3

        folder = world.settings.state_dir / "reports" / "default" / "shop"
        assert second["ref"] == str(folder / "revision-2.html")
        assert stat.S_IMODE(folder.stat().st_mode) == 0o700
        names = {path.name: stat.S_IMODE(path.stat().st_mode) for path in folder.iterdir()}
        assert names == {f"revision-{n}.{form}": 0o600 for n in (1, 2, 3) for form in ("html", "json", "md")}
        whole = json.loads((folder / "revision-2.json").read_text())
        assert set(whole["evidence"]["probed"]["seconds"][-1]["answered"]) == {"green"}
        sides = {slot for sample in whole["evidence"]["samples"] for slot in sample["usage"]}
        assert sides == {"blue", "green"}
        assert all(usage["memory_bytes"] > 0 for usage in whole["evidence"]["samples"][-1]["usage"].values() if usage)
        assert whole["evidence"]["missing"] == []
        assert "ProgressDeadlineExceeded" in (folder / "revision-3.md").read_text()

        await shop.change("v4", revisionHistoryLimit=0)
        await reported(shop, 4)
        assert {path.stem for path in folder.iterdir()} == {"revision-4"}

        state = world.settings.state_dir
        token = Traffic(state / "traffic").probe_token("default/shop")
        files = [path for path in state.rglob("*") if path.is_file()]
        told = [json.dumps([await shop.get(), await world.events("shop", 1)]).encode()]
        assert not [each for each in [*told, *(path.read_bytes() for path in files)] if token.encode() in each.lower()]
        assert token not in "".join(capfd.readouterr())
        await world.kube.delete(DEPLOYMENTS, "default", "shop")
        await world.gone("shop", DEPLOYMENTS)
        assert not folder.parent.exists()


async def test_an_operator_that_was_killed_says_what_it_lost(world: World, shop: Shop) -> None:
    manual = {"strategy": {"blueGreen": {"autoPromote": False, "scaleDownDelaySeconds": 0}}}
    async with world.operator():
        await shop.create("v1", **manual)
        await reported(shop, 1)
        await shop.change("v2", **manual)
        await shop.until(lambda status: status.get("phase") == "AwaitingPromotion")
    async with world.operator():
        await shop.ask("promote")
        report = await reported(shop, 2)
        assert "started anew" in report["missing"][0]
        assert report["requestsDuringSwitch"] >= 20  # the probe started after the restart
        assert report["stageSeconds"].keys() >= {"Prepare", "Provision", "Health", "Promote"}
