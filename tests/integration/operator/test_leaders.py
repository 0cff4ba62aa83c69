"""An operator that is alone with its lease, and two that share a volume."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from leaders import SHORT, Leader, Witness, leader, uptime, witness

from .conftest import World


async def beating(world: World, seen: Witness) -> str:
    await world.policy("bash", networks=["host"])
    return await world.task("bash", "-c", seen.script(times=1), network="host", timeoutSeconds=600)


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
async def test_a_sole_replica_works_on_while_the_api_server_is_away(world: World, tmp_path: Path) -> None:
    async with witness() as seen, leader(world.control_plane.kubeconfig, tmp_path / "a", replicas=1) as only:
        await only.works()
        name = await beating(world, seen)
        await seen.sees(f"default/{name}", 1)
        only.gate.open.clear()
        await only.until(lambda: only.said("the lease cannot be renewed"), "without its API server")
        await seen.sees(f"default/{name}", 1, after=uptime() + 2 * SHORT["renew_deadline"])
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
