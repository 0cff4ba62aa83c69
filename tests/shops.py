"""A Deployment under test: the program `shop`, its versions, and the kinds of targets that it is released to.

Behaviour that all targets share is tested once for each entry of `GROUNDS`. A new target needs an entry there.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

import pythonimage
import supervised
from dockers import MARK, docker, engine_to_itself, needs_docker
from ports import free_port
from remit.kube.client import DEPLOYMENTS, POLICIES, Kube, Object
from remit.release.targets import desiredstate
from remit.release.traffic.traffic import Traffic
from support import pauses

PATIENCE = 120
# The program ends immediately when asked to, as many programs do, so its supervisor must first move requests away. It
# is the first process of its namespace, where SIGTERM has no effect without a handler.
PROGRAM = """
import asyncio, os, signal, sys
VERSION = open("version").read().encode()
class Connection(asyncio.Protocol):
    def connection_made(self, transport):
        self.transport, self.head, self.upgraded = transport, b"", False
    def data_received(self, data):
        if self.upgraded:
            return self.transport.write(data)
        self.head += data
        while b"\\r\\n\\r\\n" in self.head:
            head, _, self.head = self.head.partition(b"\\r\\n\\r\\n")
            if head.startswith(b"GET /exit"):
                os._exit(3)
            if b"\\r\\nupgrade: echo" in head.lower():
                self.upgraded = True
                head = b"HTTP/1.1 101 Switching Protocols\\r\\nUpgrade: echo\\r\\nConnection: Upgrade\\r\\n\\r\\n"
                return self.transport.write(head)
            checked = head.startswith(b"GET /healthz")
            well = not os.path.exists("sick" if checked else "broken")
            status = b"200 OK" if well else b"500 Internal Server Error"
            self.transport.write(b"HTTP/1.1 %b\\r\\nContent-Length: %d\\r\\n\\r\\n%b" % (status, len(VERSION), VERSION))
            if b"\\nconnection: close" in head.lower() or head.endswith(b"HTTP/1.0"):
                self.transport.close()
async def main():
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, os._exit, 0)
    port = int(os.environ.get("PORT", "8080"))
    server = await asyncio.get_running_loop().create_server(Connection, "0.0.0.0", port, backlog=1024)
    await server.serve_forever()
if os.path.exists("crash"):
    sys.exit("no database")
asyncio.run(main())
"""

_SELF_MADE = """
import os, sys
os.chdir("/tmp")
for name, _, content in (each.partition("=") for each in sys.argv[1:]):
    open(name, "w").write(content)
"""
"""Prefix of the program that creates its files from arguments."""


@dataclass(frozen=True)
class Ground:
    """A kind of target. `at` starts and stops what it needs, and yields a function that returns the spec of a
    version."""

    name: str
    at: Callable[[Path, Path], AbstractAsyncContextManager[Spec]]
    """Arguments: a folder for artifacts, and the operator's state directory."""
    policy: Callable[[Path], dict[str, Any]]
    """Returns the spec of a CommandPolicy that allows the target, from the folder for artifacts."""


Spec = Callable[[str, Iterable[str]], dict[str, Any]]
"""Returns `artifact` and `target` for a version and its marks. `sick`: the health check fails. `broken`: other requests
are answered with 500. `crash`: the program ends immediately."""


@asynccontextmanager
async def _processes(folder: Path, state: Path) -> AsyncIterator[Spec]:
    def spec(version: str, marks: Iterable[str]) -> dict[str, Any]:
        source = folder / version
        if not source.exists():
            source.mkdir(parents=True)
            (source / "app.py").write_text(PROGRAM)
            (source / "version").write_text(version)
            for mark in marks:
                (source / mark).touch()
        return {"artifact": {"path": str(source)}, "target": {"process": {"command": ["python3", "app.py"]}}}

    try:
        yield spec
    finally:
        await supervised.end(state / "instances" / "default")
        traffic = Traffic(state / "traffic")
        for name in traffic.names():
            await traffic.remove(name)


def _processes_allowed(folder: Path) -> dict[str, Any]:
    return {
        "commands": {"allow": [{"executable": "python3", "args": ["app.py"]}]},
        "environment": {"allow": ["FAULT", "PASSWORD", "GREETING"]},
        "networks": ["none", "host"],
        "files": {"allow": [{"paths": [f"{folder}/**"], "operations": ["read"]}]},
    }


@asynccontextmanager
async def _containers(folder: Path, state: Path) -> AsyncIterator[Spec]:
    """Uses one image under many names; the container's arguments determine how a version behaves."""
    needs_docker()
    async with engine_to_itself():
        name, given = f"remit-test-{uuid.uuid4().hex}", set()
        tree = pythonimage.tree({"/app.py": _SELF_MADE + PROGRAM})
        made = docker("import", f"--change=LABEL {MARK}=shop", "-", f"{name}:made", input=tree)
        assert made.returncode == 0, made.stderr

        def spec(version: str, marks: Iterable[str]) -> dict[str, Any]:
            image = f"{name}:{version}"
            if image not in given:
                docker("tag", f"{name}:made", image)
                given.add(image)
            command = [pythonimage.PYTHON, "-I", "/app.py", f"version={version}", *marks]
            return {"artifact": {"image": image, "pullPolicy": "Never"}, "target": {"docker": {"command": command}}}

        try:
            yield spec
        finally:
            traffic = Traffic(state / "traffic")
            for each in traffic.names():
                await traffic.remove(each)
            found = docker("ps", "-aq", "--filter", f"ancestor={name}:made")
            for container in found.stdout.decode().split():
                docker("rm", "-fv", container)
            networks = docker("network", "ls", "-q", "--filter", "label=remit.dev/network-of=default")
            for network in networks.stdout.split():
                docker("network", "rm", network.decode())
            docker("rmi", "-f", docker("images", "-q", "--no-trunc", f"{name}:made").stdout.decode().strip())


def _containers_allowed(folder: Path) -> dict[str, Any]:
    return {
        "commands": {"allow": [{"executable": pythonimage.PYTHON}]},
        "environment": {"allow": ["FAULT", "PASSWORD", "GREETING"]},
        "containers": {"operations": ["run"]},
        "images": {"allow": ["remit-test-*"]},
    }


GROUNDS = [
    Ground("process", _processes, _processes_allowed),
    Ground("docker", _containers, _containers_allowed),
]
on_every_ground = pytest.mark.parametrize("ground", GROUNDS, ids=lambda ground: ground.name)


@dataclass
class Shop:
    """The Deployment `shop` and a client of it."""

    kube: Kube
    spec_of: Spec
    port: int = field(default_factory=free_port)
    defaults: dict[str, Any] = field(default_factory=dict)

    def spec(self, version: str, *marks: str, **changes: Any) -> dict[str, Any]:
        return {
            **self.spec_of(version, marks),
            "replicas": 1,
            "ports": [{"name": "http", "containerPort": 8080, "published": self.port}],
            "healthCheck": {"http": {"path": "/healthz", "port": "http"}, "failureThreshold": 2},
            "strategy": {"blueGreen": {"scaleDownDelaySeconds": 0}},
            "stages": {"bakeSeconds": 0},
            "resources": {"memory": "128Mi", "pids": 16},
            "progressDeadlineSeconds": 600,
            **self.defaults,
            **changes,
        }

    async def create(self, version: str, *marks: str, **changes: Any) -> None:
        body = {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "Deployment",
            "metadata": {"name": "shop"},
            "spec": self.spec(version, *marks, **changes),
        }
        await self.kube.create(DEPLOYMENTS, "default", body)

    async def change(self, version: str, *marks: str, **changes: Any) -> None:
        await self._patch({"spec": self.spec(version, *marks, **changes)})

    async def ask(self, request: str) -> None:
        await self._patch({"metadata": {"annotations": {"remit.dev/request": request}}})

    async def stuck(self, words: str) -> dict[str, Any]:
        """Waits until the status says that these words hold the release up, then lets its deadline pass and waits for
        its end."""
        await self.until(lambda status: words in status.get("message", ""), f"as to say {words}")
        revision = (await self.get())["status"]["history"][0]["revision"]
        await self._patch({"spec": {"progressDeadlineSeconds": 1}})  # this change starts no new release

        def failed(status: dict[str, Any]) -> bool:
            return (status["history"][0]["revision"], status["history"][0]["outcome"]) == (revision, "Failed")

        return await self.until(failed, "as to fail")

    async def get(self) -> Object:
        return await self.kube.get(DEPLOYMENTS, "default", "shop")

    async def until(self, condition: Callable[[dict[str, Any]], object], what: str = "") -> dict[str, Any]:
        """Waits until `condition` holds for the status, and returns the status."""
        status: dict[str, Any] = {}
        pause = pauses()
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(status := (await self.get()).get("status", {})):
                    await asyncio.sleep(next(pause))
        except TimeoutError:
            pytest.fail(f"the shop never came so far {what}; its status: {status}")
        return status

    async def live(self, version: str) -> dict[str, Any]:
        """Waits until this version is live and its release has ended, except for retiring the old side."""

        def done(status: dict[str, Any]) -> bool:
            wanted = f"{version} " in status.get("active", "").rpartition("/")[2].rpartition(":")[2]
            return wanted and truth(status, "Reconciling") == "False"

        return await self.until(done, f"as to have {version} live")

    async def tidy(self) -> dict[str, Any]:
        """Waits until nothing is left to retire."""
        return await self.until(lambda status: status["stages"][-1]["state"] in {"Done", "Skipped"})

    async def answer(self, headers: str = "") -> str:
        """Returns the response to a client that sends these headers, each with its line end."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(f"GET / HTTP/1.0\r\n{headers}\r\n".encode())
        said = (await reader.read()).decode()
        writer.close()
        return said.rpartition("\r\n\r\n")[2]

    async def upgraded(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """Opens a connection that stays open like a WebSocket and echoes what is written to it."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: shop\r\nUpgrade: echo\r\nConnection: Upgrade\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        return reader, writer

    async def crash(self, state: Path, slot: str) -> None:
        """Ends the program of every instance of a side. `state` is the operator's state directory."""
        side = desiredstate.read(state / "releases" / "default" / "shop" / "told.json").sides[slot]  # type: ignore[index]
        for index, ports in enumerate(side.ports):
            reader, writer = await asyncio.open_connection(side.host(index), ports["http"])
            writer.write(b"GET /exit HTTP/1.0\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                await reader.read()
            writer.close()

    async def _patch(self, patch: dict[str, Any]) -> None:
        await self.kube.patch(DEPLOYMENTS, "default", "shop", patch)


@asynccontextmanager
async def open_shop(ground: Ground, kube: Kube, state: Path, folder: Path) -> AsyncIterator[Shop]:
    """Yields the shop on `ground`, with a policy that allows it, before the Deployment is created. `state` is the
    operator's state directory."""
    async with ground.at(folder, state) as spec_of:
        body = {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "CommandPolicy",
            "metadata": {"name": "shop"},
            "spec": ground.policy(folder),
        }
        await kube.create(POLICIES, "default", body)
        yield Shop(kube, spec_of)


def truth(status: dict[str, Any], type_: str) -> str | None:
    """Returns the status of a condition."""
    return next((found["status"] for found in status.get("conditions", []) if found["type"] == type_), None)
