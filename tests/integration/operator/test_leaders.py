"""Tests a single operator with its lease, two operators that share a volume, and work that an earlier leader left."""

from __future__ import annotations

from pathlib import Path

import aiohttp
import pytest

from leaders import SHORT, Leader, Witness, leader, uptime, witness
from remit.kube.client import LEASES, TASKS
from remit.kube.lease import LEASE_NAME

from .conftest import World

pytestmark = pytest.mark.no_cover


async def beating(world: World, seen: Witness) -> str:
    await world.policy("bash", networks=["host"])
    return await world.task("bash", "-c", seen.script(times=1), network="host", timeoutSeconds=600)


async def readiness(operator: Leader) -> tuple[int, int, str]:
    """Returns the status codes of /healthz and /readyz, and the leader metric."""
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
    await world.lease()
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
    """The second operator waits and is ready. The first one, after a kill, acquires its own lease again immediately.
    Once it has stopped, the second one works with the files of both."""
    long = {"lease_duration": 3600, "renew_deadline": 1800, "kill_grace": 0.1, "state_dir": tmp_path / "shared"}
    kubeconfig = world.control_plane.kubeconfig
    await world.lease()
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


async def lost(world: World, holder: str, transitions: int) -> str:
    """Creates a task that was started when the Lease had 4 transitions. Now it has more, and no operator renews it."""
    name = await world.task("sh", "-c", "test $REMIT_ATTEMPT = 2", retry={"onInterruption": "Retry"})
    started = {"id": "another-1", "startedAt": "2026-01-01T00:00:00.000000Z", "leaseTransitions": 4}
    status = {"phase": "Running", "attemptCount": 1, "attempts": [{"number": 1, **started}]}
    await world.kube.patch(TASKS, "default", name, {"status": status}, subresource="status")
    await world.lease(holder, transitions)
    return name


@pytest.mark.parametrize(("holder", "transitions"), [("another", 4), ("", 5)])
async def test_what_an_earlier_leader_may_have_running_is_waited_for(
    world: World, holder: str, transitions: int
) -> None:
    """This also applies if a leader in between has released the lease. Other tasks run meanwhile."""
    await world.policy("sh", "true")
    name = await lost(world, holder, transitions)
    async with world.operator(leader_election=True, retry_period=0.1, kill_grace=3600) as operator:
        other = await world.finished(await world.task("true"))
        assert [each["leaseTransitions"] for each in other["attempts"]] == [transitions + 1]
        key = f"default/{name}"
        assert 3500 < (await operator.tasks.reconcile(key) or 0) <= 3600
        status = (await world.get(name))["status"]
        assert (status["phase"], status["attemptCount"]) == ("Running", 1)
        assert "finishedAt" not in status["attempts"][0]
    async with world.operator() as operator:  # without leader election, other operators are not considered
        status = await world.finished(name)
    assert [each["reason"] for each in status["attempts"]] == ["Interrupted", "Completed"]
    assert "leaseTransitions" not in status["attempts"][1]


async def test_installations_with_leases_of_their_own_do_not_wait_for_each_other(world: World) -> None:
    """The lease with the other name is held for an hour. The audit trail's head is recorded on the installation's own
    lease only."""
    await world.lease("operator-of-another-installation")
    await world.lease(name="remit-b-operator")
    await world.policy("true")
    async with world.operator(leader_election=True, lease_name="remit-b-operator", lease_duration=3600):
        await world.finished(await world.task("true"))
    namespace = world.settings.operator_namespace
    own, other = [await world.get(name, LEASES, namespace) for name in ("remit-b-operator", LEASE_NAME)]
    assert "remit.dev/audit-head" in own["metadata"]["annotations"]
    assert other["spec"]["holderIdentity"] == "operator-of-another-installation"
    assert not other["metadata"].get("annotations")


async def test_what_a_leader_that_released_the_lease_had_running_is_over(world: World) -> None:
    await world.policy("sh")
    name = await lost(world, "", 4)
    async with world.operator(leader_election=True, kill_grace=3600):
        status = await world.finished(name)
    assert [each["reason"] for each in status["attempts"]] == ["Interrupted", "Completed"]
    assert [each["leaseTransitions"] for each in status["attempts"]] == [4, 5]
