"""Tests that hooks of a release and other tasks that mount the artifact find the content with its digest, and nothing
else."""

from __future__ import annotations

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from shops import GROUNDS, Shop, open_shop

from .conftest import World

pytestmark = [pytest.mark.no_cover, pytest.mark.timeout(300)]

PROCESSES = next(ground for ground in GROUNDS if ground.name == "process")
MOUNTED = {
    "volumes": [{"name": "release", "release": {}}],
    "volumeMounts": [{"name": "release", "mountPath": "/release"}],
}


@pytest.fixture
async def shop(world: World, tmp_path: Path) -> AsyncIterator[Shop]:
    async with open_shop(PROCESSES, world.kube, world.settings.state_dir, tmp_path / "versions") as shop:
        yield shop


def ended(status: dict[str, Any]) -> bool:
    return bool(status.get("history")) and status["history"][0].get("outcome") in {"Promoted", "Failed"}


def hook(name: str, script: str, **task: Any) -> dict[str, Any]:
    return {"name": name, "task": {"command": {"argv": ["sh", "-c", script]}, **task}}


@pytest.mark.parametrize("backend", ["process", "docker"])
async def test_a_hook_reads_what_was_hashed_whatever_became_of_the_folder(
    world: World, shop: Shop, tmp_path: Path, backend: str, request: pytest.FixtureRequest
) -> None:
    """The folder is edited, and then replaced by a link to another one, while an earlier hook of the release runs."""
    image = {"image": request.getfixturevalue("image")} if backend == "docker" else {}
    gate, source = tmp_path / "gate", tmp_path / "versions" / "v1"
    gate.mkdir()
    waits = hook(
        "waits",
        "until test -e /gate/open; do sleep 0.1; done",
        volumes=[{"name": "gate", "hostPath": {"path": str(gate)}}],
        volumeMounts=[{"name": "gate", "mountPath": "/gate"}],
    )
    reads = hook(
        "reads", "cat /release/version; touch /release/x || echo ', unchanged'", backend=backend, **image, **MOUNTED
    )
    async with world.operator():
        await world.policy(
            "sh",
            backends=["process", "docker"],
            images={"allow": ["remit-test:*"]},
            volumes={"releases": ["shop"], "hostPaths": [{"paths": [str(gate)]}]},
        )
        await shop.create("v1", stages={"bakeSeconds": 0, "prePromotion": [waits, reads]})
        await shop.until(lambda status: "hook waits runs" in status.get("message", ""))
        (source / "version").write_text("edited")
        source.rename(source.with_name("aside"))
        source.symlink_to(source.with_name("aside"))
        (gate / "open").touch()
        released = await shop.until(ended)
        status = (await world.get("shop-1-pre-reads"))["status"]
    if backend == "docker" and os.geteuid():
        assert "that takes an operator that is root, with CAP_SYS_ADMIN" in status["message"]
        return
    assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "v1, unchanged\n")
    assert status["attempts"][0]["backend"] == backend
    assert status["volumes"] == [{"name": "release", "digest": released["history"][0]["digest"]}]


async def test_a_release_is_mounted_where_a_policy_names_its_deployment(world: World, shop: Shop) -> None:
    reads = hook("reads", "cat /release/version", **MOUNTED)
    named = {**MOUNTED, "volumes": [{"name": "release", "release": {"deployment": "shop", "revision": 1}}]}
    async with world.operator():
        await world.policy("sh", volumes={"releases": ["other"]})
        await shop.create("v1", stages={"bakeSeconds": 0, "prePromotion": [reads]})
        status = await shop.until(ended)
        assert 'its spec needs `volumes: {releases: ["shop"]}`' in status["message"]
        await world.policy("sh", volumes={"releases": ["sh*"]})
        status = await world.finished(await world.sh("cat /release/version", **named))
        assert (status["phase"], status["output"]["stdoutTail"]) == ("Succeeded", "v1")
        status = await world.finished(await world.sh("true", **MOUNTED))
        assert "only a hook of a Deployment may leave deployment and revision out" in status["message"]
        (world.settings.state_dir / "artifacts" / "default" / "shop" / "1" / "version").write_text("forged")
        name = await world.sh("cat /release/version", **named)
        await world.until(name, lambda status: "is not there, intact" in status.get("message", ""))
        assert not (await world.get(name))["status"].get("attempts")
