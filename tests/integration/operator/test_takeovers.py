"""Tests two operators with separate state directories that compete for a lease on a real API server: whatever happens
to the leader, no two attempts of a task ever run at the same time, and every task ends.

REMIT_SOAK_TAKEOVERS is the number of takeovers; with REMIT_SOAK=1 it is high by default.
"""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from conformance.harness.servers import Server, kube_apiserver, real_server_available
from leaders import Leader, Template, Witness, leader, template, witness
from parts import require
from remit.api.definitions import crds
from remit.controllers.settings import Settings
from remit.execution.lifecycle import MAX_INTERRUPTIONS
from remit.kube.access import Access
from remit.kube.client import CRDS, LEASES, NAMESPACES, Kube, Object
from remit.kube.lease import LEASE_NAME
from support import repetitions

from .conftest import PATIENCE, World, served, truth

pytestmark = pytest.mark.no_cover

STRATEGIES = int(os.environ.get("REMIT_SOAK_TAKEOVERS") or repetitions(8, soak=200))
TIMES: dict[str, Any] = {"lease_duration": 6, "renew_deadline": 4, "retry_period": 0.5, "kill_grace": 2}
PAIRS_AT_ONCE = 2
"""With more pairs, starting operators delay each other's renewals on a slow machine and restart without end."""
_numbers = itertools.count()
RETRY = {"onInterruption": "Retry", "backoff": {"initialSeconds": 0, "jitter": 0}}


@dataclass
class Competitor:
    """An operator that is restarted whenever it has ended, unless it is `away`."""

    process: Leader
    back: asyncio.Event = field(default_factory=asyncio.Event)
    codes: list[int] = field(default_factory=list)

    async def keep(self) -> None:
        self.back.set()
        while True:
            self.codes.append(await self.process.process.wait())
            await self.back.wait()
            await self.process.start()

    @property
    def leads(self) -> bool:
        return bool(self.process.process.returncode is None and self.process.said("the operator is at work"))

    @property
    def terms(self) -> list[int]:
        return [line["lease_transitions"] for line in self.process.said("started leading")]

    @property
    def waits(self) -> bool:
        return self.process.process.returncode is None and not self.leads and bool(self.process.said("waiting for its"))


@dataclass
class Pair:
    """Two competitors with a namespace of their own."""

    world: World
    seen: Witness
    namespace: str
    both: tuple[Competitor, Competitor]
    numbers: Iterator[int] = field(default_factory=itertools.count)
    status: dict[str, Any] = field(default_factory=dict)
    """Status of the task that was read last."""

    async def roles(self) -> tuple[Competitor, Competitor]:
        """Waits until it is settled which operator leads and which waits, and returns them in this order."""

        async def settled() -> Any:
            return next(((a, b) for a, b in (self.both, self.both[::-1]) if a.leads and b.waits), None)

        leads, waits = await self.until(settled, "one leads and the other waits")
        return leads, waits

    @property
    def lives(self) -> list[int]:
        return [len(each.codes) for each in self.both]

    async def until(self, reached: Callable[[], Awaitable[Any]], what: str) -> Any:
        """Waits until `reached` returns a true value, and returns it. On a busy machine the lease may change hands
        repeatedly; the timeout applies to the time without any progress."""
        clock = asyncio.get_running_loop().time
        seen: Any = None
        until = 0.0
        while not (found := await reached()):
            now = [self.lives, *([each.leads, each.waits, each.terms] for each in self.both), self.status]
            if now != seen:
                seen, until = now, clock() + PATIENCE
            assert clock() < until, f"never: {what}; {now}"
            await asyncio.sleep(0.1)
        return found

    async def take_over(self, way: Way) -> None:
        """Makes one operator take over from the other, which is working on two tasks."""
        while True:
            leads, waits = await self.roles()
            lives = self.lives
            once, again = await self.task({}), await self.task(RETRY)
            if await self.at_work(once) and await self.at_work(again) and self.lives == lives and waits.waits:
                break  # otherwise a busy machine has changed the roles meanwhile
        leads.back.clear()

        async def leading() -> bool:
            return bool(waits.process.said("started leading"))

        undo = await way(leads.process, waits.process, next(self.numbers))
        await self.until(leading, "the one that waited leads")
        undo()
        leads.back.set()
        await self.ended(once, "Failed", ["Interrupted"])
        await self.ended(again, "Succeeded", ["Interrupted", "Completed"])

    async def at_work(self, name: str) -> bool:
        """Returns whether the first attempt of a task reports. On a busy machine it may be interrupted before it
        does."""
        beats = self.seen.beats[f"{self.namespace}/{name}"]

        async def decided() -> bool:
            await self.look(name)
            return bool(beats[1]) or any("finishedAt" in attempt for attempt in self.status.get("attempts", []))

        await self.until(decided, f"{name} runs")
        return bool(beats[1])

    async def look(self, name: str) -> None:
        async with asyncio.timeout(PATIENCE):
            self.status = (await self.world.get(name, namespace=self.namespace)).get("status", {})

    async def task(self, retry: dict[str, Any]) -> str:
        script = self.seen.script(times=1)
        return await self.world.task(
            "bash", "-c", script, namespace=self.namespace, network="host", timeoutSeconds=600, retry=retry
        )

    async def ended(self, name: str, phase: str, reasons: list[str]) -> None:
        """Waits until the task has ended with this phase and these reasons. A busy machine may take the lease from an
        undisturbed leader, and more often than a task is restarted."""

        async def finished() -> bool:
            await self.look(name)
            return truth(self.status, "Finished") == "True"

        await self.until(finished, f"{name} ends")
        status = self.status
        attempts, key = status["attempts"], f"{self.namespace}/{name}"
        first, *rest = reasons
        if len(attempts) > MAX_INTERRUPTIONS and attempts[-1]["reason"] == first:
            phase, rest = "Failed", []
        assert status["phase"] == phase, status
        assert [each["reason"] for each in attempts] == [first] * (len(attempts) - len(rest)) + rest, status
        transitions = [each["leaseTransitions"] for each in attempts]
        assert transitions == sorted(transitions)
        assert len(attempts) == 1 or transitions[0] < transitions[-1], "another leader started it again"
        assert set(self.seen.beats[key]) <= {each["number"] for each in attempts}, "all that ran is on record"
        self.seen.one_at_a_time(key)


Undo = Callable[[], Any]
Way = Callable[[Leader, Leader, int], Awaitable[Undo]]


async def cut_off(leads: Leader, waits: Leader, number: int) -> Undo:
    """Makes the leader's requests hang; they arrive later."""
    leads.gate.open.clear()
    return leads.gate.open.set


async def stopped(leads: Leader, waits: Leader, number: int) -> Undo:
    """Stops the leader with SIGSTOP. If it is the first process of a container without an init, nothing can kill it, so
    it is continued afterwards."""
    leads.signal(signal.SIGSTOP)
    return lambda: leads.contained and leads.signal(signal.SIGCONT)


async def killed(leads: Leader, waits: Leader, number: int) -> Undo:
    leads.signal(signal.SIGKILL)
    return lambda: None


async def clock_jumped(leads: Leader, waits: Leader, number: int) -> Undo:
    """Makes one operator's clock jump ahead or back. This alone does not change the leader; only then the leader is
    killed."""
    jumps = (leads, waits)[number % 2]
    jumps.signal((signal.SIGUSR1, signal.SIGUSR2)[number // 2 % 2])
    await asyncio.sleep(TIMES["lease_duration"])
    return await killed(leads, waits, number)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    require("kube-apiserver", real_server_available(), "put kube-apiserver and etcd where KUBEBUILDER_ASSETS says")
    with kube_apiserver(tmp_path / "server") as server:
        yield server


@contextlib.asynccontextmanager
async def pair(
    world: World, seen: Witness, operators: Template, kubeconfig: Path, home: Path, way: Way
) -> AsyncIterator[Pair]:
    namespace = f"{way.__name__.replace('_', '-')}-{next(_numbers)}"
    await world.kube.create(NAMESPACES, None, named("Namespace", namespace))
    await world.policy("bash", namespace=namespace, networks=["host"])
    chosen = {
        **TIMES,
        "template": operators,
        "operator_namespace": namespace,
        "namespaces": [namespace],
        "docker_host": "off",
    }
    contained = way is stopped and os.geteuid() == 0
    async with (
        leader(kubeconfig, home / namespace / "a", contained=contained, **chosen) as a,
        leader(kubeconfig, home / namespace / "b", **chosen) as b,
    ):
        found = Pair(world, seen, namespace, (Competitor(a), Competitor(b)))
        keeping = [asyncio.create_task(each.keep()) for each in found.both]
        try:
            yield found
        finally:
            for task in keeping:
                task.cancel()
            await asyncio.gather(*keeping, return_exceptions=True)


def named(kind: str, name: str) -> Object:
    return {"apiVersion": "v1", "kind": kind, "metadata": {"name": name}}


@pytest.mark.slow
@pytest.mark.timeout(120 + 60 * STRATEGIES)
async def test_attempts_of_two_competing_operators_never_overlap(server: Server, tmp_path: Path) -> None:
    kubeconfig = server.kubeconfig(tmp_path / "kubeconfig")
    ways = (cut_off, stopped, killed, clock_jumped)
    turns = asyncio.Semaphore(PAIRS_AT_ONCE)
    done: dict[str, int] = {}

    async def compete(world: World, seen: Witness, operators: Template, way: Way, times: int) -> None:
        async with turns, pair(world, seen, operators, kubeconfig, tmp_path, way) as found:
            for _ in range(times):
                await found.take_over(way)
                done[way.__name__] = done.get(way.__name__, 0) + 1
            lease = await world.get(LEASE_NAME, LEASES, found.namespace)
            assert lease["spec"]["leaseTransitions"] >= next(found.numbers)
            codes = {code for each in found.both for code in each.codes}
            assert codes <= {1, -signal.SIGKILL}, "nobody lost the lease and went on"

    async with Kube(await Access.load(kubeconfig)) as kube, witness() as seen, template() as operators:
        for crd in crds():
            await kube.create(CRDS, None, crd)
        await served(kube)
        world = World(kube, Settings(state_dir=tmp_path), control_plane=None)
        async with asyncio.TaskGroup() as lanes:
            for number, way in enumerate(ways):
                times = (STRATEGIES - number + len(ways) - 1) // len(ways)
                lanes.create_task(compete(world, seen, operators, way, times))
    assert len(done) == len(ways), done
    assert sum(done.values()) == STRATEGIES
