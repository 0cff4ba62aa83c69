"""The docker target: real containers on a real engine behind a real proxy."""

from __future__ import annotations

import asyncio
import json
import socket
import uuid
from collections.abc import AsyncIterator, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from dockers import LEAKING, docker, make_image, needs_docker, remove_image, sdk_leaves_sockets  # noqa: F401
from remit.api.deployment import DeploymentSpec
from remit.policy import Limits
from remit.release import Material, Revision, Snapshot, World
from remit.release.targets.docker import DockerTarget, Owner
from remit.release.traffic import Probe, Traffic

PATIENCE = 60
SERVE = """
mkdir -p /tmp/www/cgi-bin
printf %s "$VERSION$GREETING" > /tmp/www/index.html
printf '#!/bin/sh\\necho; echo; cat /run/shop/*; id -u; touch /run/shop/x /run/shop/token 2>&1' > /tmp/www/cgi-bin/look
chmod +x /tmp/www/cgi-bin/look
exec httpd -f -p 8080 -h /tmp/www
"""


@pytest.fixture(scope="module")
def image() -> Iterator[str]:
    needs_docker()
    tag = make_image()
    yield tag
    remove_image(tag)


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


class Stage:
    """A target, what it releases, and the means to make another one like it, as a restarted operator would."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder, self.image = folder, image
        self.port, self.preview_port = free_port(), free_port()
        self.owner = Owner(f"t{uuid.uuid4().hex[:8]}", "shop", str(uuid.uuid4()))
        self.kept: dict[int, tuple[Revision, Material]] = {}
        self.secrets: dict[str, Mapping[str, bytes]] = {}
        self.limits = Limits(memory=64 << 20, cpu=0.5, pids=32, open_files=256, termination_grace_period_seconds=2)
        self.spec: dict[str, Any] = {}
        self.target = self.another()

    def another(self) -> DockerTarget:
        return DockerTarget(
            self.owner,
            self.folder / "release",
            lambda: next(iter(self.kept.values()))[0].snapshot.spec.target.docker,  # type: ignore[arg-type, return-value]
            self.secret,
            Traffic(self.folder / "traffic"),
            lambda revision, material: self.limits,
            self.load,
            lambda: None,
        )

    async def secret(self, name: str) -> Mapping[str, bytes]:
        return self.secrets[name]

    async def load(self, number: int) -> tuple[Revision, Material]:
        return self.kept[number]

    def revision(self, number: int, script: str = SERVE, *, material: Material | None = None, **spec: Any) -> Revision:
        written = {
            "artifact": {"image": self.image},
            "target": {"docker": {"command": ["busybox", "sh", "-c", script], **self.spec}},
            "ports": [{"name": "http", "containerPort": 8080, "published": self.port}],
            "healthCheck": {"http": {"path": "/", "port": "http"}, "failureThreshold": 2},
            "strategy": {"blueGreen": {"previewPort": self.preview_port}},
            **spec,
        }
        made = Revision(number, Snapshot(f"v{number}", DeploymentSpec.model_validate(written), f"hash-{number}"))
        self.kept[number] = (made, material or Material({"VERSION": f"v{number}"}))
        return made

    async def provision(self, slot: Any, revision: Revision, replicas: int = 1) -> None:
        await self.target.prepare(revision)
        await self.target.provision(slot, revision, replicas, self.kept[revision.number][1])

    async def until(self, condition: Any) -> World:
        world = World()
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(world := await self.target.observe()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"it never came so far: {world}")
        return world

    async def live(self, number: int = 1, replicas: int = 1, **spec: Any) -> World:
        """This revision on blue, healthy, with the requests."""
        await self.provision("blue", self.revision(number, **spec), replicas)
        await self.until(lambda world: world.ready(number, "blue", replicas))
        await self.target.switch("blue")
        return await self.target.observe()

    async def answer(self, port: int | None = None, path: str = "/") -> str:
        """What a client hears."""
        reader, writer = await asyncio.open_connection("127.0.0.1", port or self.port)
        writer.write(f"GET {path} HTTP/1.0\r\n\r\n".encode())
        said = (await reader.read()).decode()
        writer.close()
        return said.rpartition("\r\n\r\n")[2] if " 200 " in said.splitlines()[0] else said.splitlines()[0]

    def containers(self) -> list[str]:
        found = docker("ps", "-a", "--filter", f"label={self.owner.mark}", "--format", "{{.Names}}")
        return sorted(found.stdout.decode().split())

    def name(self, slot: str, index: int = 0) -> str:
        return f"remit_{self.owner.namespace}_shop_{slot}_{index}"

    def inspected(self, slot: str, index: int = 0) -> dict[str, Any]:
        (found,) = json.loads(docker("inspect", self.name(slot, index)).stdout)
        return dict(found)


@pytest.fixture
async def stage(tmp_path: Path, image: str) -> AsyncIterator[Stage]:
    stage = Stage(tmp_path, image)
    yield stage
    for slot in ("blue", "green"):
        await stage.target.retire(slot)
    await stage.target.remove()
    networks = docker("network", "ls", "--format", "{{.Name}}").stdout.decode().split()
    images = docker("images", "--format", "{{.Repository}}").stdout.decode().split()
    assert (stage.containers(), stage.owner.network in networks, stage.owner.images in images) == ([], False, False)


async def test_a_switch_under_load_loses_nothing(stage: Stage) -> None:
    one, two = stage.revision(1), stage.revision(2)
    assert await stage.target.observe() == World()
    await stage.provision("blue", one, 2)
    await stage.until(lambda world: world.ready(1, "blue", 2))
    await stage.target.switch("blue")
    assert await stage.answer() == "v1"
    async with Probe(f"http://127.0.0.1:{stage.port}/", rate=100) as probe:
        await stage.provision("green", two, 2)
        await stage.until(lambda world: world.ready(2, "green", 2))
        await stage.target.preview("green")
        assert await stage.answer(stage.preview_port) == "v2"
        probe.switching(to="green")
        await stage.target.switch("green")
        await probe.settled()
        await stage.target.drain("blue")
        await stage.until(lambda world: world.blue.connections == 0)
        await stage.target.retire("blue")
        # And the way back, from nothing.
        await stage.provision("blue", one, 2)
        await stage.until(lambda world: world.ready(1, "blue", 2))
        await stage.target.switch("blue")
        await stage.until(lambda world: world.live == "blue")
    report = probe.report()
    assert (report.failed, set(report.by_side)) == (0, {"blue", "green"}), report
    assert await stage.answer() == "v1"
    assert (await stage.target.observe()).prepared == {1, 2}
