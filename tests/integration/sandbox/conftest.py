"""Fixtures: a real bubblewrap with and without cgroups, and a sink for the output of an attempt."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import psutil
import pytest

from parts import require
from remit.backends.base import AttemptRequest, Command, Handle
from remit.backends.outcome import Outcome
from remit.backends.process import ProcessBackend
from remit.sandbox import Ability, Confinement, Host, Layer, Limits, probe_host

PYTHON = "/usr/bin/python3"
DEFAULTS = Limits(memory_bytes=256 << 20, pids=32, disk_bytes=16 << 20)
_ids = itertools.count()


@dataclass
class Collected:
    """Keeps all output. For small outputs only."""

    stdout: bytes = b""
    stderr: bytes = b""
    seen: asyncio.Event = field(default_factory=asyncio.Event)

    def write(self, stream: str, chunk: bytes) -> None:
        setattr(self, stream, getattr(self, stream) + chunk)
        self.seen.set()


@dataclass
class Runner:
    """Runs commands with defaults that a test may override."""

    backend: ProcessBackend
    limits: Limits = DEFAULTS

    async def __call__(
        self,
        *argv: str,
        env: dict[str, str] | None = None,
        stdin: bytes = b"",
        files: dict[str, bytes] | None = None,
        limits: Limits | None = None,
        timeout: float = 30,
        grace: float = 0.2,
        sink: object = None,
        cancel: asyncio.Event | None = None,
        on_started: Callable[[Handle], None] | None = None,
        collector: Callable[..., Outcome] | None = None,
        **confinement: object,
    ) -> tuple[Outcome, Collected]:
        collected = Collected() if sink is None else sink
        request = AttemptRequest(
            id=f"test-{next(_ids)}",
            command=Command(argv, argv[0], env or {}, stdin),
            confinement=Confinement(limits=limits or self.limits, **confinement),
            timeout_seconds=timeout,
            grace_seconds=grace,
            files=files or {},
            collector=collector,
        )
        outcome = await self.backend.run(request, collected, cancel=cancel or asyncio.Event(), on_started=on_started)
        return outcome, collected

    def sink(self) -> Collected:
        return Collected()

    async def of_init(self, *names: str) -> dict[str, str]:
        """Reads the host's /proc entry of the namespace's init while a program runs. Inside the sandbox the entry is
        hidden."""
        started: list[Handle] = []
        cancel = asyncio.Event()
        running = asyncio.create_task(self("/usr/bin/sleep", "60", cancel=cancel, on_started=started.append))
        async with asyncio.timeout(30):
            while not (started and [child.name() for child in _grandchildren(started[0].pid)] == ["sleep"]):
                await asyncio.sleep(0.01)
        (init,) = psutil.Process(started[0].pid).children()
        said = {name: Path(f"/proc/{init.pid}/{name}").read_text() for name in names}
        cancel.set()
        await running
        return said

    async def python(self, source: str, **options: object) -> tuple[Outcome, Collected]:
        return await self(PYTHON, "-I", "-c", source, **options)


def _grandchildren(pid: int) -> list[psutil.Process]:
    with contextlib.suppress(psutil.NoSuchProcess):
        return [each for child in psutil.Process(pid).children() for each in child.children()]
    return []


def without_cgroups(host: Host) -> Host:
    ability = Ability(Layer.CGROUP, False, "left out by the test", "leave it in")
    return replace(host, cgroups=None, abilities={**host.abilities, Layer.CGROUP: ability})


@pytest.fixture(scope="session")
def host() -> Host:
    found = probe_host()
    require("bwrap", found.bubblewrap, found.abilities[Layer.NAMESPACES].detail)
    require("system-python", Path(PYTHON).exists(), f"{PYTHON} runs the hostile programs")
    return found


@pytest.fixture(params=["cgroup", "rlimits"])
def run(request: pytest.FixtureRequest, host: Host) -> Runner:
    """Provides a runner with this host's cgroups, and one without cgroups."""
    if request.param == "rlimits":
        return Runner(ProcessBackend(without_cgroups(host)))
    require("cgroup", host.cgroups, host.abilities[Layer.CGROUP].remedy)
    return Runner(ProcessBackend(host))
