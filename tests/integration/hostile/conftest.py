"""The environment of the attacks: what an operator has on its host that no program in a sandbox may access."""

from __future__ import annotations

import contextlib
import ctypes
import os
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from parts import require
from remit.backends.process import ProcessBackend
from remit.sandbox import Ability, Host, Layer, probe_host

from ..operator.conftest import World, installed, new_world, world

__all__ = ["World", "installed", "new_world", "world"]

PYTHON = "/usr/bin/python3"


@dataclass
class Scene:
    """A host with an operator. `canary` is in every place where a secret may be."""

    canary: str
    folder: Path
    facts: dict[str, Any] = field(default_factory=dict)
    visitors: list[bytes] = field(default_factory=list)
    """Data that any client sent to one of the host's sockets."""

    def unharmed(self) -> bool:
        """Returns whether the operator's file is unchanged, no client connected to a socket, and the bystander process
        is alive."""
        file = Path(self.facts["file"])
        return file.read_text() == self.canary and not self.visitors and Path(f"/proc/{self.facts['pid']}").exists()


@pytest.fixture(scope="session")
def host() -> Host:
    found = probe_host()
    require("system-python", Path(PYTHON).exists(), f"{PYTHON} runs the hostile programs")
    return found


ENGINES = {
    "cgroup": frozenset({Layer.NAMESPACES}),
    "rlimits": frozenset({Layer.NAMESPACES}),
    "bare": frozenset({Layer.LANDLOCK, Layer.SECCOMP, Layer.RLIMITS}),
}
"""The features of this host that are used, and the layers that the policy requires."""


@dataclass(frozen=True)
class Engine:
    """A backend, and the layers to request from it."""

    name: str
    backend: ProcessBackend
    require: frozenset[Layer]


@pytest.fixture(params=ENGINES)
def engine(request: pytest.FixtureRequest, host: Host) -> Engine:
    """Provides backends with this host's cgroups, without cgroups, and without namespaces, as in a pod that does not
    allow them."""
    if request.param == "cgroup":
        require("cgroup", host.cgroups, host.abilities[Layer.CGROUP].remedy)
    else:
        host = without(host, Layer.CGROUP)
    if request.param == "bare":
        require("landlock", host.bare, host.abilities[Layer.LANDLOCK].detail)
        host = without(host, Layer.NAMESPACES)
    return Engine(request.param, ProcessBackend(host), ENGINES[request.param])


def without(host: Host, layer: Layer) -> Host:
    lacking = Ability(layer, False, "left out by the test", "leave it in")
    gone = {Layer.CGROUP: {"cgroups": None}, Layer.NAMESPACES: {"bubblewrap": None}}[layer]
    return replace(host, abilities={**host.abilities, layer: lacking}, **gone)


@pytest.fixture(scope="session")
def stage() -> Iterator[Scene]:
    """Provides the scene once: a file, a process, sockets of every kind, shared memory, the operator's environment."""
    canary = f"canary-{uuid4().hex}"
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="remit-hostile-")))
        folder.chmod(0o755)  # so that the folder's mode is not what stops the attack
        scene = Scene(canary, folder)
        file = folder / "token"
        file.write_text(canary)
        file.chmod(0o644)
        os.environ["REMIT_HOSTILE_CANARY"] = canary
        stack.callback(os.environ.pop, "REMIT_HOSTILE_CANARY")
        bystander = subprocess.Popen(
            [PYTHON, "-I", "-c", "import os; os.write(1, b'!'); import time; time.sleep(3600)"],
            env={"CANARY": canary},
            stdout=subprocess.PIPE,
        )
        stack.callback(bystander.wait)
        stack.callback(bystander.kill)
        assert bystander.stdout is not None
        stack.enter_context(bystander.stdout).read(1)
        scene.facts = {
            "canary": canary,
            "file": str(file),
            "folder": str(folder),
            "pid": bystander.pid,
            "operator": os.getpid(),
            "unix": str(folder / "docker.sock"),
            "abstract": f"remit-{uuid4().hex}",
            "namespaces": {
                name: str(Path(f"/proc/self/ns/{name}").readlink()) for name in ("user", "mnt", "pid", "net", "ipc")
            },
            "shared": _shared_memory(stack, canary),
        }
        scene.facts["tcp"] = _listen(stack, scene, socket.AF_INET, ("127.0.0.1", 0))[1]
        _listen(stack, scene, socket.AF_UNIX, scene.facts["unix"])
        (folder / "docker.sock").chmod(0o777)
        _listen(stack, scene, socket.AF_UNIX, "\0" + scene.facts["abstract"])
        scene.facts["udp"] = _datagrams(stack, scene)
        yield scene


@pytest.fixture
def scene(stage: Scene) -> Iterator[Scene]:
    """Provides the scene with no recorded visitors."""
    stage.visitors.clear()
    yield stage
    stage.visitors.clear()


def _listen(stack: contextlib.ExitStack, scene: Scene, family: int, address: Any) -> Any:
    server = stack.enter_context(socket.socket(family))
    server.bind(address)
    server.listen()

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                visitor, _ = server.accept()
                with visitor:
                    scene.visitors.append(b"connected")
                    visitor.sendall(scene.canary.encode())

    _background(stack, serve, server)
    return server.getsockname()


def _datagrams(stack: contextlib.ExitStack, scene: Scene) -> int:
    server = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
    server.bind(("127.0.0.1", 0))

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                said, sender = server.recvfrom(100)
                if sender is None:  # the socket was shut down
                    return
                scene.visitors.append(said)
                server.sendto(scene.canary.encode(), sender)

    _background(stack, serve, server)
    return int(server.getsockname()[1])


def _background(stack: contextlib.ExitStack, serve: Any, server: socket.socket) -> None:
    thread = threading.Thread(target=serve, daemon=True)
    thread.start()

    def stop() -> None:
        with contextlib.suppress(OSError):
            server.shutdown(socket.SHUT_RDWR)
        thread.join(5)

    stack.callback(stop)


def _shared_memory(stack: contextlib.ExitStack, canary: str) -> int:
    """Creates a System V segment with the canary that every user may read."""
    libc = ctypes.CDLL(None, use_errno=True)
    libc.shmat.restype = ctypes.c_void_p
    segment = libc.shmget(0, 4096, 0o1666)
    assert segment >= 0
    stack.callback(libc.shmctl, segment, 0, None)
    address = libc.shmat(segment, None, 0)
    ctypes.memmove(address, canary.encode(), len(canary))
    libc.shmdt(ctypes.c_void_p(address))
    return int(segment)
