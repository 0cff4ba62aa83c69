"""Tests releases whose artifact, or the copy of it, is missing or was changed."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path

import orjson
import pytest

from dockers import docker
from shops import GROUNDS, Ground, Shop, on_every_ground, open_shop, truth

from .conftest import World

pytestmark = [pytest.mark.no_cover, pytest.mark.timeout(300)]


@pytest.fixture
async def shop(ground: Ground, world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(ground, world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


def take_away(world: World, shop: Shop, version: str) -> str:
    """Removes everything from which revision 1 could be restored. Returns the message about that."""
    artifact = shop.spec(version)["artifact"]
    if "path" in artifact:
        shutil.rmtree(world.settings.state_dir / "artifacts" / "default" / "shop" / "1")
        (Path(artifact["path"]) / "version").write_text("edited")
        return "has changed since"
    tags = orjson.loads(docker("image", "inspect", "--format", "{{json .RepoTags}}", artifact["image"]).stdout)
    docker("rmi", artifact["image"], *[tag for tag in tags if tag.startswith("remit/") and tag.endswith(":1")])
    return "is not on the engine, and pullPolicy is Never"


@on_every_ground
async def test_a_rollback_to_what_is_gone_is_refused_before_anything_is_touched(world: World, shop: Shop) -> None:
    async with world.operator():
        await shop.create("v1")
        await shop.live("v1")
        await shop.change("v2")
        await shop.live("v2")
        await shop.tidy()
        before = await shop.until(lambda status: "report" in status["history"][0], "as to have the report of v2")
        why = take_away(world, shop, "v1")
        await shop.ask('{"rollback": {"revision": 1}, "id": "back"}')
        status = await shop.until(lambda status: (status.get("request") or {}).get("id") == "back")
        assert not status["request"]["accepted"]
        assert "revision 1 cannot be returned to" in status["request"]["message"]
        assert why in status["request"]["message"]
        assert {name: status[name] for name in ("phase", "slots", "history")} == {
            name: before[name] for name in ("phase", "slots", "history")
        }
        await shop.change("v2", rollbackTo={"revision": 1})
        status = await shop.until(lambda status: "cannot be returned to" in status["message"])
        assert (truth(status, "Stalled"), truth(status, "Available")) == ("True", "True")
        assert status["slots"] == before["slots"]
        assert await shop.answer() == "v2"
        await shop.change("v2", rollbackTo=None)
        await shop.live("v2")


@pytest.mark.parametrize("ground", [each for each in GROUNDS if each.name == "process"], ids=["process"])
async def test_a_live_instance_is_started_again_although_the_copy_of_its_artifact_was_removed(
    world: World, shop: Shop
) -> None:
    async with world.operator():
        await shop.create("v1")
        status = await shop.live("v1")
        assert status["history"][0]["digest"].startswith("sha256:")
        shutil.rmtree(world.settings.state_dir / "artifacts" / "default")
        await shop.crash(world.settings.state_dir, "blue")
        # The step that finds the instance down may also restart it, so that no status says that it was down.
        await shop.until(lambda status: status["slots"][0]["restarts"], "as to have its instance started again")
        await shop.until(lambda status: status["phase"] == "Healthy", "as to be whole again")
        assert await shop.answer() == "v1"
