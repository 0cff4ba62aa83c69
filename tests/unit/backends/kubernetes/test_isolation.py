"""Tests the conclusions from a pod that tries to connect, and from one that could not try."""

from __future__ import annotations

import asyncio

import pytest

from remit.backends.base import AttemptRequest
from remit.backends.kubernetes.isolation import Isolation
from remit.backends.outcome import ExitReason, Outcome


def exited(code: int) -> Outcome:
    return Outcome(ExitReason.EXIT_CODE if code else ExitReason.COMPLETED, f"exited with code {code}", code)


async def holds(with_network: int, without: int) -> bool:
    async def run(request: AttemptRequest, namespace: str) -> Outcome:
        return exited(without if request.confinement.network == "none" else with_network)

    return (await Isolation(run).verdict("team", "image:1")).holds


async def test_it_holds_where_only_the_pod_without_a_network_cannot_connect() -> None:
    assert await holds(with_network=0, without=1)
    assert not await holds(with_network=0, without=0)
    assert not await holds(with_network=1, without=1)


@pytest.mark.parametrize("code", [2, 126, 137])
async def test_who_could_not_try_has_not_shown_that_it_holds(code: int) -> None:
    assert not await holds(with_network=0, without=code)
    assert not await holds(with_network=code, without=1)


class Cluster:
    """Runs probes with the exit code of each network's pod in a namespace, or the reason why it cannot run."""

    def __init__(self, **namespaces: tuple[int, int] | str) -> None:
        self.namespaces, self.asked = namespaces, list[str]()
        self.hangs: set[str] = set()

    async def run(self, request: AttemptRequest, namespace: str) -> Outcome:
        self.asked.append(namespace)
        if namespace in self.hangs:
            await asyncio.Event().wait()
        given = self.namespaces[namespace]
        if isinstance(given, str):
            return Outcome(ExitReason.IMAGE_PULL_FAILED, given)
        return exited(given[request.confinement.network == "none"])


async def test_one_namespace_says_nothing_of_another() -> None:
    """Another namespace may have a NetworkPolicy that allows everything."""
    cluster = Cluster(open=(0, 0), held=(0, 1))
    isolation = Isolation(cluster.run)
    for _ in range(2):
        assert not (await isolation.verdict("open", "image:1")).holds
        assert (await isolation.verdict("held", "image:1")).holds
    assert len(cluster.asked) == 4


async def test_an_image_that_cannot_be_pulled_says_nothing_of_the_next() -> None:
    cluster = Cluster(team="no such image")
    isolation = Isolation(cluster.run)
    verdict = await isolation.verdict("team", "none:1")
    assert (verdict.holds, "no such image" in verdict.why) == (False, True)
    cluster.namespaces["team"] = (0, 1)
    assert (await isolation.verdict("team", "image:1")).holds


async def test_a_probe_that_hangs_holds_up_no_other_namespace() -> None:
    cluster = Cluster(stuck=(0, 1), team=(0, 1))
    cluster.hangs.add("stuck")
    isolation = Isolation(cluster.run)
    stuck = asyncio.create_task(isolation.verdict("stuck", "image:1"))
    async with asyncio.timeout(60):
        while not cluster.asked:
            await asyncio.sleep(0)
        assert (await isolation.verdict("team", "image:1")).holds
    stuck.cancel()
    await asyncio.gather(stuck, return_exceptions=True)
