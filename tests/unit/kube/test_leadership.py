"""Tests when a new leader may adopt what an earlier one left: with tables, and in simulated time for leaders whose
requests hang, which are killed, and whose clocks differ."""

from __future__ import annotations

import asyncio
import copy
import itertools
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import pytest
import structlog
from hypothesis import example, given, settings
from hypothesis import strategies as st

from remit.errors import ApiError
from remit.kube.leadership import Leadership, acquired, resumed
from remit.kube.lease import LeaderElector, released
from remit.sandbox.fencing import Fence
from simulatedtime import simulate
from support import repetitions

pytestmark = pytest.mark.no_cover

LEASE, RENEW, RETRY, GRACE = 15, 14.0, 2.0, 6.0
Object = dict[str, Any]


def taken(transitions: int, **fields: Any) -> Leadership:
    return acquired(transitions, at=100, lease_duration=LEASE, kill_grace=GRACE, **fields)


def again(transitions: int, earlier_work_ends: float | None) -> Leadership:
    return resumed(transitions, at=100, lease_duration=LEASE, kill_grace=GRACE, earlier_work_ends=earlier_work_ends)


@pytest.mark.parametrize(
    ("leadership", "started_under", "seconds"),
    [
        (taken(5), 4, 6.0),
        (taken(5), None, 6.0),
        (taken(5), 5, 6.0),  # the fifth transition of another Lease
        (taken(5), 9, 6.0),
        (taken(5, released=True), 4, 0.0),
        (taken(5, released=True), 3, 6.0),  # the leader that released it need not have waited for the one before
        (again(5, 100), 5, 0.0),
        (again(5, 103), 5, 3.0),  # possibly the fifth transition of another Lease
        (again(5, 103), 4, 3.0),
        (again(5, None), 5, 21.0),
        (again(5, 1e9), 5, 21.0),
        (taken(0, unseen=True), None, 21.0),  # a Lease may have existed that was deleted
    ],
)
def test_how_long_work_may_go_on_that_is_not_known_to_have_ended(
    leadership: Leadership, started_under: int | None, seconds: float
) -> None:
    assert leadership.seconds_until_over(started_under, now=100) == seconds
    assert leadership.seconds_until_over(started_under, now=100 + seconds) == 0


@dataclass
class Ran:
    """An attempt, from its start until its last process was dead, in simulated time."""

    by: str
    start: float
    end: float = math.inf


@dataclass
class World:
    """An API server with one Lease and one task, and the attempts that actually ran."""

    lease: Object | None = None
    started_under: int | None = None
    """The transitions of the Lease at the start of the open attempt in the task's status."""
    ran: list[Ran] = field(default_factory=list)
    led: list[Ran] = field(default_factory=list)
    """The holders of the Lease, from when until they noticed its loss or had ended."""
    _versions: Iterator[int] = field(default_factory=itertools.count)

    @classmethod
    def with_lease(cls) -> World:
        """Returns a world with a Lease that nobody holds."""
        return cls({"metadata": {"resourceVersion": "new"}, "spec": released({"leaseTransitions": 0})})

    def get(self) -> Object:
        if self.lease is None:
            raise ApiError("not found", status=404)
        return copy.deepcopy(self.lease)

    def store(self, body: Object) -> Object:
        version = self.lease and self.lease["metadata"]["resourceVersion"]
        if version != body["metadata"].get("resourceVersion"):
            raise ApiError("conflict", status=409)
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(next(self._versions))
        return copy.deepcopy(self.lease)

    async def delete(self, at: float) -> None:
        await asyncio.sleep(at)
        self.lease = None


@dataclass
class Link:
    """A connection to the server: each request and each response takes the next of these `seconds`. A request that its
    client no longer awaits still arrives."""

    world: World
    seconds: Iterator[float]
    access: Any = field(default_factory=lambda: SimpleNamespace(server="https://server.invalid"))

    async def get(self, *_: object) -> Object:
        return await self._asked(self.world.get)

    async def create(self, _resource: object, _namespace: str, body: Object) -> Object:
        return await self._asked(self.world.store, body)

    async def replace(self, _resource: object, _namespace: str, _name: str, body: Object) -> Object:
        return await self._asked(self.world.store, body)

    async def _asked(self, serve: Callable[..., Object], *arguments: Object) -> Object:
        async def arrive() -> Object | ApiError:
            await asyncio.sleep(next(self.seconds))
            try:
                return serve(*arguments)
            except ApiError as error:
                return error

        answer = await asyncio.shield(asyncio.create_task(arrive()))
        await asyncio.sleep(next(self.seconds))
        if isinstance(answer, ApiError):
            raise answer
        return answer


@dataclass
class Operator:
    """Works on the task while it leads, and starts it again as soon as it may. Its machine has its own boot time, and
    its fork server takes `kill_seconds` to end its work."""

    world: World
    name: str
    link: Any
    clock_offset: float
    kill_seconds: float
    fence: Fence = field(default_factory=Fence)
    exited: asyncio.Event = field(default_factory=asyncio.Event)
    stopping: asyncio.Event = field(default_factory=asyncio.Event)
    work: Ran | None = None
    led: Ran | None = None
    timer: asyncio.TimerHandle | None = None

    def clock(self) -> float:
        return asyncio.get_running_loop().time() + self.clock_offset

    async def live(self, seconds: float, *, stop: bool) -> None:
        """Runs for so long unless the lease is lost; then it is asked to stop, or killed."""
        leading = asyncio.create_task(self.lead())
        exited = asyncio.create_task(self.exited.wait())
        await asyncio.wait({leading, exited}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if stop and self.led and not self.exited.is_set():
            self.stopping.set()
            await asyncio.wait({leading, exited}, return_when=asyncio.FIRST_COMPLETED)
        self.die()
        leading.cancel()
        exited.cancel()
        await asyncio.gather(leading, exited, return_exceptions=True)

    async def lead(self) -> None:
        elector = LeaderElector(
            self.link,
            "remit-system",
            self.name,
            self.fence,
            self.extend_deadline,
            self.end_work,
            GRACE,
            lease_duration=LEASE,
            renew_deadline=RENEW,
            retry_period=RETRY,
            on_stopped_leading=lambda _: self.die(),
            clock=self.clock,
        )
        async with elector.leading() as leadership:
            self.led = Ran(self.name, asyncio.get_running_loop().time())
            self.world.led.append(self.led)
            seconds = 0.0
            if self.world.ran:
                seconds = leadership.seconds_until_over(self.world.started_under, self.clock())
            await asyncio.wait({stop := asyncio.create_task(self.stopping.wait())}, timeout=seconds)
            for ran in self.world.ran:
                if ran.by == self.name:  # recovery kills what is recorded
                    ran.end = min(ran.end, asyncio.get_running_loop().time())
            if self.clock() < self.fence.deadline and not self.stopping.is_set():
                self.world.started_under = leadership.transitions
                self.world.ran.append(ran := Ran(self.name, asyncio.get_running_loop().time()))
                self.work = ran
            await stop

    def extend_deadline(self, deadline: float) -> None:
        self.fence.deadline = deadline
        if self.timer:
            self.timer.cancel()
        self.timer = asyncio.get_running_loop().call_later(deadline - self.clock(), self.die)

    def end_work(self) -> bool:
        self.end(0.0)
        self.stop_leading()
        return True

    def stop_leading(self) -> None:
        if self.led:
            self.led.end = min(self.led.end, asyncio.get_running_loop().time())

    def die(self) -> None:
        """Ends the process; its work ends after a delay."""
        self.end(self.kill_seconds)
        self.stop_leading()
        self.exited.set()

    def end(self, seconds: float) -> None:
        if self.work:
            self.work.end = min(self.work.end, asyncio.get_running_loop().time() + seconds)
            self.work = None


HANGS = st.lists(st.tuples(st.integers(1, 12), st.integers(0, 8), st.floats(0, 60)), min_size=1, max_size=6)
"""Repeatedly, a number of responses that arrive immediately, a number that hang, and for how long."""
LIVES = st.lists(st.tuples(st.floats(0, 30), st.floats(1, 90), st.booleans()), min_size=1, max_size=4)
"""For each life of an operator: a pause before it, its length, and whether it ends in order."""
OPERATORS = st.lists(st.tuples(LIVES, HANGS, st.floats(0, 1e6), st.floats(0, GRACE)), min_size=2, max_size=3)


DELETIONS = st.lists(st.floats(0, 90), max_size=3)
"""When the Lease is deleted."""
QUICK = [(1, 0, 0.0)]


@settings(deadline=None, max_examples=repetitions(50, soak=2000))
@given(operators=OPERATORS, deletions=DELETIONS, installed=st.booleans())
@example(
    operators=[([(0.0, 3.0, False)], QUICK, 0.0, GRACE), ([(1.0, 60.0, True)], QUICK, 9.0, 0.0)],
    deletions=[],
    installed=False,
)
@example(
    operators=[([(0.0, 90.0, True)], [(6, 9, 30.0)], 0.0, GRACE), ([(1.0, 90.0, True)], QUICK, 1e6, 0.0)],
    deletions=[],
    installed=True,
)
@example(  # the new leader's read of the Lease takes so long that the old one's deadline passes meanwhile
    operators=[
        ([(0.0, 70.0, False)], [(7, 0, 0.0), (9, 7, 27.0)], 0.0, GRACE),
        ([(10.0, 60.0, False)], QUICK, 0.0, 0.0),
        ([(0.0, 70.0, False)], [(7, 0, 0.0), (8, 5, 1.5)], 0.0, 0.0),
    ],
    deletions=[],
    installed=False,
)
@example(  # deleted between two renewals; a new candidate has never seen it
    operators=[([(0.0, 90.0, False)], QUICK, 0.0, GRACE), ([(40.5, 90.0, True)], QUICK, 9.0, 0.0)],
    deletions=[40.0],
    installed=True,
)
@example(  # deleted while its leader is cut off; the operator that recreates it is restarted immediately
    operators=[
        ([(0.0, 90.0, False)], [(20, 9, 30.0)], 0.0, GRACE),
        ([(28.0, 1.0, False), (0.0, 60.0, False)], QUICK, 9.0, 0.0),
    ],
    deletions=[27.0],
    installed=True,
)
@example(  # the same, but the operator releases it immediately
    operators=[
        ([(0.0, 90.0, False)], [(20, 9, 30.0)], 0.0, GRACE),
        ([(28.0, 1.0, True), (0.0, 60.0, False)], QUICK, 9.0, 0.0),
    ],
    deletions=[27.0],
    installed=True,
)
def test_no_two_attempts_are_ever_alive(operators: list[Any], deletions: list[float], installed: bool) -> None:
    world = World.with_lease() if installed else World()

    async def lives(name: str, its: Any) -> None:
        lives, hangs, clock_offset, kill_seconds = its
        seconds = [each for quick, slow, hang in hangs for each in (*[0.01] * quick, *[hang] * slow)]
        for pause, length, stop in lives:
            await asyncio.sleep(pause)
            link = Link(world, itertools.cycle(seconds))
            await Operator(world, name, link, clock_offset, kill_seconds).live(length, stop=stop)

    async def all_of_them() -> None:
        async with asyncio.timeout(1000), asyncio.TaskGroup() as group:
            for number, its in enumerate(operators):
                group.create_task(lives(f"operator-{number}", its))
            for at in deletions:
                group.create_task(world.delete(at))

    with structlog.testing.capture_logs():
        simulate(all_of_them())
    for before, after in itertools.pairwise(world.ran):
        assert before.end <= after.start, f"{before} overlaps {after}"
    if len(deletions) < 1 + installed:  # a Lease that is created and deleted between two reads is not noticed
        for before, after in itertools.pairwise(world.led):
            assert before.end <= after.start, f"{before} leads with {after}"
