"""Tests that a whole operator enforces the size of a workspace: an attempt that exceeds it is ended."""

from __future__ import annotations

import asyncio
import os
from typing import Any

import pytest

from dockers import docker

from .conftest import PATIENCE, World

MIB = 1 << 20
GROW = "dd if=/dev/urandom of=/cache/big bs=1M count=3 2>/dev/null; echo written; exec sleep 600"


def cache(access: str = "ReadWrite", **spec: Any) -> dict[str, Any]:
    return {
        "volumes": [{"name": "cache", "workspace": {"name": "pip-cache", **spec}}],
        "volumeMounts": [{"name": "cache", "mountPath": "/cache", "access": access}],
    }


async def opened(world: World, **spec: Any) -> None:
    await world.policy("sh", volumes={"workspaces": [{"names": ["pip-cache"], "maxSize": "8Mi"}]}, **spec)


def assert_ended(status: dict[str, Any]) -> None:
    assert (status["phase"], status["error"]["category"]) == ("Failed", "Resources"), status
    (attempt,) = status["attempts"]
    assert (attempt["reason"], attempt["exceeded"]) == ("DiskExceeded", ["Disk"])
    assert status["conditions"][0]["reason"] == "DiskExceeded"
    assert status["message"].startswith("workspace pip-cache has 3")
    assert f"and {MIB} are allowed" in status["message"]
    assert "'remit workspace rm pip-cache'" in status["message"]
    assert status["output"]["stdoutTail"] == "written\n"


async def test_an_attempt_that_fills_its_workspace_is_ended_and_the_next_refused(world: World) -> None:
    async with world.operator():
        await opened(world)
        retry = {"timeoutSeconds": 45, "retry": {"maxRetries": 3}}
        assert_ended(await world.finished(await world.sh(GROW, **retry, **cache(size="1Mi"))))
        refused = await world.finished(await world.sh("true", **cache(size="1Mi")))
        more = await world.finished(await world.sh("rm /cache/big", **cache(size="8Mi")))
        again = await world.finished(await world.sh("true", **cache(size="1Mi")))
    assert (refused["phase"], refused["error"]["category"]) == ("Failed", "Invalid")
    assert "workspace pip-cache has 3" in refused["message"]
    assert not refused.get("attempts")
    assert (more["phase"], again["phase"]) == ("Succeeded", "Succeeded")


async def test_an_attempt_cannot_hide_files_deeper_than_is_looked(world: World) -> None:
    deep = "cd /cache; for i in $(seq 140); do mkdir d && cd d; done; echo written; exec sleep 600"
    async with world.operator():
        await opened(world)
        status = await world.finished(await world.sh(deep, timeoutSeconds=45, **cache()))
    assert status["conditions"][0]["reason"] == "DiskExceeded", status
    assert "workspace pip-cache: folders lie more than 128 deep" in status["message"]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may mount")
async def test_a_container_is_ended_also_by_the_operator_that_adopts_it(world: World, image: str) -> None:
    await opened(world, backends=["docker"], images={"allow": ["remit-test:*"]})
    wait = "while ! test -e /workspace/go; do sleep 0.1; done;"
    in_container = {"backend": "docker", "image": image, "timeoutSeconds": 60, **cache(size="1Mi")}
    async with world.operator():
        assert_ended(await world.finished(await world.sh(GROW, **in_container)))
        shrink = {**in_container, **cache(size="8Mi")}
        assert (await world.finished(await world.sh("rm /cache/big", **shrink)))["phase"] == "Succeeded"
        name = await world.sh(f"{wait} {GROW}", **in_container)
        await world.phase(name, "Running")
        uid = (await world.get(name))["metadata"]["uid"]
        async with asyncio.timeout(PATIENCE):
            while (await asyncio.to_thread(docker, "exec", f"remit-{uid}-1", "touch", "/workspace/seen")).returncode:
                await asyncio.sleep(0.1)
    async with world.operator():
        assert docker("exec", f"remit-{uid}-1", "touch", "/workspace/go").returncode == 0
        assert_ended(await world.finished(name))
