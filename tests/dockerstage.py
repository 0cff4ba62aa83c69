"""A Docker target for tests: the target, the revisions that it releases, and a client."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from dockers import docker
from ports import free_port
from remit.api.deployment import DeploymentSpec
from remit.api.deployment import DockerTarget as DockerSpec
from remit.errors import MissingReference
from remit.policy.limits import Limits
from remit.release.model import ObservedState, Revision, Snapshot
from remit.release.target import Material
from remit.release.targets.docker.planning import Owner
from remit.release.targets.docker.target import DockerTarget
from remit.release.traffic.traffic import Traffic

PATIENCE = 120
SERVE = """
mkdir -p /tmp/www/cgi-bin
printf %s "$VERSION$GREETING" > /tmp/www/index.html
look='#!/bin/sh\necho; echo; cat /run/shop/token; id -u; touch /run/shop/x /run/shop/token 2>&1'
printf "$look" > /tmp/www/cgi-bin/look
chmod +x /tmp/www/cgi-bin/look
exec httpd -f -p 8080 -h /tmp/www
"""


class Stage:
    """A Docker target and its revisions, with a way to create an equal target, as a restarted operator would."""

    def __init__(self, folder: Path, image: str) -> None:
        self.folder, self.image = folder, image
        self.port, self.preview_port = free_port(), free_port()
        self.owner = Owner(f"t{uuid.uuid4().hex[:8]}", "shop", str(uuid.uuid4()))
        self.kept: dict[int, tuple[Revision, Material]] = {}
        self.secrets: dict[str, Mapping[str, bytes]] = {}
        self.limits = Limits(memory=64 << 20, cpu=0.5, pids=32, open_files=256, termination_grace_period_seconds=1)
        self.spec: dict[str, Any] = {}
        self.ended = False
        self.changed = asyncio.Event()
        self.target = self.another()

    def another(self) -> DockerTarget:
        return DockerTarget(
            self.owner,
            self.folder / "release",
            lambda: DockerSpec.model_validate(self.spec),
            self.secret,
            Traffic(self.folder / "traffic"),
            lambda revision, material: self.limits,
            self.load,
            self.changed.set,
        )

    async def secret(self, name: str) -> Mapping[str, bytes]:
        if name not in self.secrets:
            raise MissingReference(f"Secret {name} is not there")
        return self.secrets[name]

    async def load(self, number: int) -> tuple[Revision, Material]:
        return self.kept[number]

    def revision(self, number: int, script: str = SERVE, *, material: Material | None = None, **spec: Any) -> Revision:
        written = {
            "artifact": {"image": self.image},
            "target": {"docker": {"command": ["sh", "-c", script], **self.spec}},
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

    async def until(self, condition: Any) -> ObservedState:
        observed = ObservedState()
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(observed := await self.target.observe()):
                    await asyncio.sleep(0.05)
        except TimeoutError:
            pytest.fail(f"it never came so far: {observed}")
        return observed

    async def live(self, number: int = 1, replicas: int = 1, **spec: Any) -> ObservedState:
        """Releases a revision to the blue side, waits until it is healthy, and switches requests to it."""
        await self.provision("blue", self.revision(number, **spec), replicas)
        await self.until(lambda observed: observed.ready(number, "blue", replicas))
        await self.target.switch("blue")
        return await self.target.observe()

    async def answer(self, port: int | None = None, path: str = "/") -> str:
        """Returns the response that a client gets."""
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

    def address(self, slot: str, index: int = 0) -> str:
        (endpoint,) = self.inspected(slot, index)["NetworkSettings"]["Networks"].values()
        return str(endpoint["IPAddress"])

    async def end(self) -> None:
        """Removes everything, and checks that nothing remains."""
        self.ended = True
        for slot in ("blue", "green"):
            await self.target.retire(slot)  # type: ignore[arg-type]
        await self.target.remove()
        networks = docker(
            "network", "ls", "-q", "--filter", f"label=remit.dev/network-of={self.owner.namespace}"
        ).stdout
        images = docker("images", "--format", "{{.Repository}}").stdout.decode().split()
        assert (self.containers(), networks, self.owner.images in images) == ([], b"", False)


@asynccontextmanager
async def staged(folder: Path, image: str) -> AsyncIterator[Stage]:
    stage = Stage(folder, image)
    yield stage
    if not stage.ended:
        await stage.end()
