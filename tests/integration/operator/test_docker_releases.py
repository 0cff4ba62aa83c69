"""Tests releases on Docker through a whole operator: configuration, failures, and what remains."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from dockers import docker
from remit.kube.client import DEPLOYMENTS, SECRETS
from shops import GROUNDS, Shop, open_shop

from .conftest import World

pytestmark = [pytest.mark.no_cover, pytest.mark.slow, pytest.mark.timeout(600)]


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    (ground,) = (each for each in GROUNDS if each.name == "docker")
    async with open_shop(ground, world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


def inspected(slot: str) -> dict[str, Any]:
    (found,) = json.loads(docker("inspect", f"remit_default_shop_{slot}_0").stdout)
    return dict(found)


async def test_from_the_first_release_to_the_end(world: World, shop: Shop) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "s"}, "stringData": {"token": "canary-one"}}
    await world.kube.create(SECRETS, "default", secret)
    shop.defaults = {
        "secrets": [{"name": "s", "mountPath": "/run/shop"}],
        "env": [{"name": "GREETING", "value": "hello"}],
    }
    async with world.operator():
        await shop.create("v1")
        await shop.live("v1")
        # A changed Secret makes a new revision, and a rollback restores its values.
        await world.kube.patch(SECRETS, "default", "s", {"stringData": {"token": "canary-two"}})
        await shop.until(lambda status: status.get("activeRevision") == 2)
        await shop.tidy()
        read = ("exec", "remit_default_shop_green_0", "/usr/bin/python3", "-c", "print(open('/run/shop/token').read())")
        assert docker(*read).stdout == b"canary-two\n"
        assert "GREETING=hello" in inspected("green")["Config"]["Env"]
        await shop.ask("rollback")
        await shop.until(lambda status: status.get("activeRevision") == 1 and status.get("pinnedRevision") == 1)
        read = ("exec", "remit_default_shop_blue_0", *read[2:])
        assert docker(*read).stdout == b"canary-one\n"
        # An image that does not exist fails immediately; one that no policy allows waits for a policy.
        none = {"image": "remit-test-none:v1", "pullPolicy": "Never"}
        await shop.change("v2", artifact=none)
        status = await shop.until(lambda status: status["history"][0]["outcome"] == "Failed")
        assert "ImageNotFound" in json.dumps(status)
        assert await shop.answer() == "v1"
        await shop.change("v2", artifact={"image": "elsewhere/shop:v2"})
        await shop.until(lambda status: "images.allow" in status.get("message", ""))
        seen = json.dumps([await shop.get(), inspected("blue")])
        assert "canary" not in seen
        uid = (await shop.get())["metadata"]["uid"]
        await world.kube.delete(DEPLOYMENTS, "default", "shop")
        await world.gone("shop", DEPLOYMENTS)
    assert docker("ps", "-aq", "--filter", f"label=remit.dev/deployment-uid={uid}").stdout == b""
    assert "canary" not in (world.settings.state_dir / "audit" / "audit.jsonl").read_text()
