"""Two operators that compete for a lease: of one task, no two attempts are ever alive at once.

Every attempt reports its number and the time since boot, by itself, again and again, and so does a process that it left
to itself: a witness that needs neither the operators' word nor this test's clock.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections import defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from conftest import require
from leaders import SHORT, Leader, leader

from .conftest import PATIENCE, World

BEATS = (
    'beat() { while read up _ < /proc/uptime; do echo "$REMIT_ATTEMPT $up" >&3 || exit; sleep 0.05; done; }; '
    "export -f beat; exec 3<>/dev/tcp/127.0.0.1/PORT; setsid bash -c beat & beat"
)


@dataclass
class Witness:
    """`beats` has the times that each attempt reported."""

    port: int = 0
    beats: dict[int, list[float]] = field(default_factory=lambda: defaultdict(list))

    async def listen(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while line := await reader.readline():
                number, uptime = line.split()
                self.beats[int(number)].append(float(uptime))
        writer.close()

    async def sees(self, attempt: int, after: float = 0) -> None:
        async with asyncio.timeout(PATIENCE):
            while not any(beat > after for beat in self.beats[attempt]):
                await asyncio.sleep(0.05)

    def one_at_a_time(self) -> None:
        for number in sorted(self.beats)[1:]:
            assert max(self.beats[number - 1]) < min(self.beats[number]), f"attempts {number - 1} and {number} overlap"


@pytest.fixture
async def witness() -> AsyncIterator[Witness]:
    seen = Witness()
    server = await asyncio.start_server(seen.listen, "127.0.0.1", 0)
    seen.port = server.sockets[0].getsockname()[1]
    yield seen
    server.close()


async def beating(world: World, witness: Witness) -> str:
    await world.policy("bash", networks=["host"])
    retry = {"onInterruption": "Retry", "backoff": {"initialSeconds": 0, "jitter": 0}}
    script = BEATS.replace("PORT", str(witness.port))
    return await world.task("bash", "-c", script, network="host", retry=retry, timeoutSeconds=600)


def uptime() -> float:
    return float(Path("/proc/uptime").read_text().split()[0])


async def readiness(operator: Leader) -> tuple[int, int, str]:
    """The codes of /healthz and /readyz, and what the metrics say of who leads."""
    address = f"http://127.0.0.1:{operator.metrics_port}"
    async with aiohttp.ClientSession() as session:
        codes = []
        for path in ("healthz", "readyz"):
            async with session.get(f"{address}/{path}") as answer:
                codes.append(answer.status)
        async with session.get(f"{address}/metrics") as answer:
            leads = next(line for line in (await answer.text()).splitlines() if line.startswith("remit_leader "))
    return codes[0], codes[1], leads


@pytest.mark.slow
@pytest.mark.parametrize("way", ["cut off", "stopped", "stopped in a container without an init"])
async def test_work_ends_before_another_leader_begins(world: World, witness: Witness, tmp_path: Path, way: str) -> None:
    kubeconfig = world.control_plane.kubeconfig
    contained = "container" in way
    require("root", not contained or os.geteuid() == 0, "only root can make a pid namespace without a user namespace")
    async with leader(kubeconfig, tmp_path / "a", contained=contained) as first:
        await first.works()
        async with leader(kubeconfig, tmp_path / "b") as second:
            await second.waits()
            name = await beating(world, witness)
            await witness.sees(1)
            if way == "cut off":
                first.gate.open.clear()
            else:
                first.signal(signal.SIGSTOP)
            await second.works()
            await witness.sees(2)
            await witness.sees(2, after=uptime())
            if contained:  # it could not be killed; now it hears of its end
                first.signal(signal.SIGCONT)
            assert await first.ended() == (-signal.SIGKILL if way == "stopped" else 1)
            witness.one_at_a_time()
            status = (await world.get(name))["status"]
            assert [each.get("reason") for each in status["attempts"]] == ["Interrupted", None]


@pytest.mark.slow
async def test_a_sole_replica_works_on_while_the_api_server_is_away(
    world: World, witness: Witness, tmp_path: Path
) -> None:
    async with leader(world.control_plane.kubeconfig, tmp_path / "a", replicas=1) as only:
        await only.works()
        name = await beating(world, witness)
        await witness.sees(1)
        only.gate.open.clear()
        await only.until(lambda: only.said("the lease cannot be renewed"), "without its API server")
        await witness.sees(1, after=uptime() + 2 * SHORT["renew_deadline"])
        only.gate.open.set()
        await only.until(lambda: only.said("the lease is renewed again"), "back")
        await world.edit(name, {"cancel": True})
        status = await world.finished(name)
        assert [each["reason"] for each in status["attempts"]] == ["Cancelled"]


@pytest.mark.slow
async def test_two_on_one_volume(world: World, tmp_path: Path) -> None:
    """The second one waits, and is ready. The first one, killed, takes up its own lease at once. Once it has stopped,
    the second one works with the files of both."""
    long = {"lease_duration": 3600, "renew_deadline": 1800, "state_dir": tmp_path / "shared"}
    kubeconfig = world.control_plane.kubeconfig
    await world.policy("true")
    async with leader(kubeconfig, tmp_path / "a", **long) as first:
        await first.works()
        assert await readiness(first) == (200, 200, "remit_leader 1.0")
        async with leader(kubeconfig, tmp_path / "b", **long) as second:
            await second.waits()
            assert await readiness(second) == (200, 200, "remit_leader 0.0")
            first.process.kill()
            await first.ended()
            await first.start()
            await first.works()
            await first.stop()
            await second.works()
            assert (await world.finished(await world.task("true")))["phase"] == "Succeeded"
