"""Tests a leader's lease with an API server in memory that refuses, hangs, or answers too late."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import itertools
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from types import SimpleNamespace
from typing import Any

import pytest
import structlog

from remit.errors import ApiError, LeaseLost
from remit.kube.leadership import Leadership
from remit.kube.lease import CANDIDATE, EARLIER_WORK_ENDS, LeaderElector, boot_time
from remit.sandbox.fencing import Fence

PATIENCE = 30
Object = dict[str, Any]


class Server:
    """One Lease without a holder. `before` is awaited before each request is served."""

    access = SimpleNamespace(server="https://server.invalid")

    def __init__(self) -> None:
        self.lease: Object | None = None
        self.before: Callable[[str], Awaitable[None]] | None = None
        self.served = asyncio.Event()
        self.fence = Fence()
        self.deadlines: list[float] = []
        """The deadlines that the fork server received; -inf means the end of all work."""
        self._versions = itertools.count(1)
        self.take("")

    async def get(self, *_: object) -> Object:
        await self._arrive("get")
        if self.lease is None:
            raise ApiError("not found", status=404)
        return copy.deepcopy(self.lease)

    async def create(self, _resource: object, _namespace: str, body: Object) -> Object:
        await self._arrive("create")
        if self.lease is not None:
            raise ApiError("exists", status=409)
        return self.store(body)

    async def replace(self, _resource: object, _namespace: str, _name: str, body: Object) -> Object:
        await self._arrive("replace")
        if self.lease is None:
            raise ApiError("not found", status=404)
        if body["metadata"]["resourceVersion"] != self.lease["metadata"]["resourceVersion"]:
            raise ApiError("conflict", status=409)
        return self.store(body)

    def store(self, body: Object) -> Object:
        self.lease = copy.deepcopy(body)
        self.lease["metadata"]["resourceVersion"] = str(next(self._versions))
        self.served.set()
        return copy.deepcopy(self.lease)

    def take(self, holder: str, **spec: Any) -> None:
        """Writes the Lease as another client."""
        metadata = self.lease["metadata"] if self.lease else {"name": "remit-operator"}
        renewed = f"2030-01-01T00:00:00.{next(self._versions):06}Z"
        spec = {"holderIdentity": holder, "leaseDurationSeconds": 1, "renewTime": renewed} | spec
        self.store({"metadata": metadata, "spec": spec})

    @property
    def holder(self) -> str:
        return str(self.lease["spec"]["holderIdentity"]) if self.lease else ""

    async def renewals(self, count: int) -> None:
        for _ in range(count):
            self.served.clear()
            await soon(self.served.wait())

    async def _arrive(self, verb: str) -> None:
        if self.before is not None:
            await self.before(verb)


async def soon(waiting: Awaitable[Any]) -> Any:
    async with asyncio.timeout(PATIENCE):
        return await waiting


SHORT: Any = {"lease_duration": 1, "renew_deadline": 0.5}
"""For tests that wait for the end of the lease."""


@pytest.fixture
async def server() -> Server:
    return Server()


def elector(server: Server, identity: str = "me", **fields: Any) -> LeaderElector:
    kube: Any = server
    usual: Any = {"lease_duration": 60, "renew_deadline": 30, "retry_period": 0.05, "kill_grace": 7}
    extend = server.deadlines.append

    def end() -> bool:
        server.deadlines.append(-math.inf)
        return True

    return LeaderElector(kube, "remit-system", identity, server.fence, extend, **{"end_work": end} | usual | fields)


@contextlib.asynccontextmanager
async def leading(elector: LeaderElector) -> AsyncIterator[asyncio.Future[LeaseLost]]:
    """Leads, and yields the future with the error that ends the leadership."""
    lost: asyncio.Future[LeaseLost] = asyncio.get_running_loop().create_future()
    elector.on_stopped_leading = lost.set_result
    async with elector.leading():
        yield lost


async def hang(_verb: str) -> None:
    await asyncio.Event().wait()


def passing(server: Server) -> Callable[[], float]:
    """Returns a clock of CLOCK_BOOTTIME that advances a third of a lease's duration with each read of the Lease."""
    passed = 0.0

    async def before(verb: str) -> None:
        nonlocal passed
        passed += 20 * (verb == "get")

    server.before = before
    return lambda: boot_time() + passed


def refuse(*statuses: int) -> Callable[[str], Awaitable[None]]:
    """Answers with each of these statuses in turn, and after that as usual."""
    coming = iter(statuses)

    async def before(_verb: str) -> None:
        if (status := next(coming, None)) is not None:
            raise ApiError("no", status=status)

    return before


async def test_a_request_that_hangs_does_not_prolong_the_lease(server: Server) -> None:
    async with leading(elector(server, **SHORT)) as lost:
        server.before = hang
        await soon(lost)
        assert server.fence.expired
        server.before = None
    assert server.holder == "me", "a lease that was lost is not released"


async def test_the_deadline_counts_from_before_the_request(server: Server) -> None:
    clock = itertools.count(100)  # each reading of the clock is a second later
    me = elector(server, clock=lambda: float(next(clock)))
    await me.acquire()
    assert server.deadlines == [130]


async def test_an_answer_that_comes_too_late_does_not_count(server: Server) -> None:
    """As for a process that was stopped while it waited, whose timers did not run either."""
    ahead = 0.0
    me = elector(server, clock=lambda: asyncio.get_running_loop().time() + ahead)
    async with leading(me) as lost:

        async def jump(_verb: str) -> None:
            nonlocal ahead
            ahead = 31

        told = len(server.deadlines)
        server.before = jump
        await soon(lost)
        assert server.deadlines[told:] == []


@pytest.mark.parametrize("status", [429, 500, 503])
async def test_one_that_waits_outlasts_what_the_server_answers(server: Server, status: int) -> None:
    server.take("another")
    server.before = refuse(*[status] * 3)
    with structlog.testing.capture_logs() as logs:
        await soon(elector(server).acquire())
    assert server.holder == "me"
    assert [line["log_level"] for line in logs if "cannot be had" in line["event"]] == ["warning"]


async def test_one_that_may_not_read_the_lease_says_so(server: Server) -> None:
    server.before = refuse(403)
    with pytest.raises(ApiError):
        await elector(server).acquire()


async def test_one_that_waits_outlasts_a_refusal_too(server: Server) -> None:
    """A role may be replaced at this moment."""
    server.take("another")
    me = elector(server)
    seen = asyncio.Event()
    me.on_new_leader = lambda _: seen.set()
    waiting = asyncio.create_task(me.acquire())
    await soon(seen.wait())
    server.before = refuse(403)
    await soon(waiting)
    assert server.holder == "me"


async def test_a_write_by_somebody_else_is_not_a_loss(server: Server) -> None:
    async with leading(elector(server)) as lost:
        await server.renewals(1)
        assert server.lease
        server.lease["metadata"]["annotations"] = {"kubectl": "edit"}
        server.store(server.lease)
        await server.renewals(2)
        assert not lost.done()
    assert server.lease["metadata"]["annotations"].keys() == {"kubectl", EARLIER_WORK_ENDS}


@pytest.mark.parametrize("sole_replica", [False, True])
@pytest.mark.parametrize("holder", ["another", ""])
async def test_another_holder_ends_it_at_once(server: Server, sole_replica: bool, holder: str) -> None:
    """This includes another holder that has already released it, because it may have worked."""
    async with leading(elector(server, sole_replica=sole_replica)) as lost:
        server.take(holder)
        assert "has taken the lease" in str(await soon(lost))
        assert server.fence.expired
    assert server.holder == holder


async def test_a_sole_replica_works_on_without_an_api_server(server: Server) -> None:
    tries = asyncio.Semaphore(0)

    async def away(_verb: str) -> None:
        tries.release()
        raise ApiError("away", status=503)

    me = elector(server, sole_replica=True, renew_deadline=0.2)
    async with leading(me) as lost:
        server.before = away
        for _ in range(8):  # far beyond the deadline
            await soon(tries.acquire())
        server.before = None
        await server.renewals(2)
        assert not lost.done()
        assert server.deadlines == []


async def test_a_sole_replica_that_is_not_alone_has_a_deadline(server: Server) -> None:
    async with leading(elector(server, sole_replica=True, **SHORT)) as lost:
        waiting = asyncio.create_task(elector(server, "another", sole_replica=True, **SHORT).acquire())
        async with asyncio.timeout(PATIENCE):
            while not server.deadlines:
                await asyncio.sleep(0.01)
        server.before = hang
        await soon(lost)
        server.before = None
        await soon(waiting)
    assert server.lease
    assert CANDIDATE not in server.lease["metadata"]["annotations"]


async def test_a_lease_that_is_deleted_lets_nobody_in_before_its_time(server: Server) -> None:
    """Its holder works until it notices the deletion."""
    server.take("another", leaseDurationSeconds=3600)
    me = elector(server)
    asked = asyncio.Semaphore(0)

    async def count(_verb: str) -> None:
        asked.release()

    waiting = asyncio.create_task(me.acquire())
    seen = asyncio.Event()
    me.on_new_leader = lambda _: seen.set()
    await soon(seen.wait())
    server.lease, server.before = None, count
    for _ in range(3):
        await soon(asked.acquire())
    assert server.lease is None
    waiting.cancel()


async def test_it_is_released_once_nothing_is_left(server: Server) -> None:
    async with leading(elector(server)):
        pass
    assert server.deadlines[-1] == -math.inf
    assert server.holder == ""
    assert not server.fence.expired


async def test_one_that_failed_keeps_it_for_its_restart(server: Server) -> None:
    with pytest.raises(ZeroDivisionError):
        async with leading(elector(server)):
            raise ZeroDivisionError
    assert server.holder == "me"
    await soon(elector(server, lease_duration=3600).acquire())
    assert server.lease
    assert server.lease["spec"]["leaseTransitions"] == 1


async def test_it_is_not_released_while_something_may_be_left(server: Server) -> None:
    async with leading(elector(server, end_work=lambda: False)):
        pass
    assert server.holder == "me"


async def test_without_release_on_cancel_the_next_one_waits(server: Server) -> None:
    async with leading(elector(server, release_on_cancel=False)):
        pass
    assert server.holder == "me"


async def test_each_new_holder_raises_the_transitions(server: Server) -> None:
    """A holder that was restarted does not. `acquireTime` is when the holder acquired the lease."""
    server.lease, clock = None, passing(server)
    first = await soon(elector(server, clock=clock).acquire())
    assert first == Leadership(0, earlier_work_ends=pytest.approx(clock() + 67, abs=20))
    assert server.lease
    acquire_time = server.lease["spec"]["acquireTime"]
    again = await elector(server, clock=clock).acquire()
    assert again == Leadership(0, resumed=True, earlier_work_ends=first.earlier_work_ends)
    assert server.lease["spec"]["acquireTime"] == acquire_time
    server.take("another", leaseTransitions=6, acquireTime="2030-01-01T00:00:00.000000Z")
    taken = await soon(elector(server).acquire())
    assert (taken.transitions, taken.resumed, taken.released) == (7, False, False)
    assert server.lease["spec"]["leaseTransitions"] == 7
    assert server.lease["spec"]["acquireTime"] == server.lease["spec"]["renewTime"]


async def test_a_lease_that_was_released_says_that_its_work_has_ended(server: Server) -> None:
    async with leading(elector(server)):
        pass
    assert server.lease
    record = server.lease["spec"]
    assert (record["holderIdentity"], record["leaseDurationSeconds"], record["leaseTransitions"]) == ("", 1, 1)
    assert record["renewTime"] == record["acquireTime"]
    next_one = await elector(server, "another").acquire()
    assert (next_one.transitions, next_one.released) == (2, True)


async def test_who_made_the_lease_does_not_release_it_while_others_may_be_at_work(server: Server) -> None:
    """The number of the next holder would say that nothing with this holder's number is alive."""
    server.lease = None
    async with leading(elector(server, clock=passing(server))):
        pass
    assert server.holder == "me"


async def test_a_holder_whose_note_is_gone_waits_for_everything(server: Server) -> None:
    server.take("me", leaseTransitions=3)
    assert server.lease
    server.lease["metadata"]["annotations"] = {EARLIER_WORK_ENDS: "nan"}
    leadership = await soon(elector(server).acquire())
    assert leadership.earlier_work_ends == pytest.approx(boot_time() + 67, abs=20)


async def test_a_lease_is_not_made_while_a_holder_may_make_it_again(server: Server) -> None:
    """The waiting candidate has never seen the deleted Lease."""
    holder = elector(server, "another")
    async with leading(holder):
        asked, through = asyncio.Semaphore(0), asyncio.Event()

        async def cut_off(verb: str) -> None:
            if asyncio.current_task() is waiting:
                asked.release()
            else:
                await through.wait()

        server.lease, server.before = None, cut_off
        waiting = asyncio.create_task(elector(server).acquire())
        for _ in range(3):
            await soon(asked.acquire())
        assert server.holder == ""
        server.served.clear()
        through.set()
        await soon(server.served.wait())
        assert server.holder == "another"
        waiting.cancel()


async def test_a_leader_makes_the_lease_that_was_deleted_again(server: Server) -> None:
    server.take("another", leaseTransitions=6)
    me = elector(server)
    async with leading(me) as lost:
        assert server.lease
        record = server.lease["spec"]
        server.lease = None
        await server.renewals(2)
        assert not lost.done()
        assert server.lease["spec"] | {"renewTime": 0} == record | {"renewTime": 0}
        assert server.fence.transitions == 7
    assert server.fence.transitions is None


async def test_who_saw_a_lease_that_was_deleted_counts_on(server: Server) -> None:
    server.take("another", leaseTransitions=6)
    me, seen = elector(server, clock=passing(server)), asyncio.Event()
    me.on_new_leader = lambda _: seen.set()
    waiting = asyncio.create_task(me.acquire())
    await soon(seen.wait())
    server.lease = None
    assert (await soon(waiting)).transitions == 7


async def test_who_makes_a_lease_again_has_seen_none_of_its_last_holders(server: Server) -> None:
    """Another operator may have held it after it was last read, renewed it, and work until its deadline."""
    server.take("", leaseTransitions=6)
    clock = passing(server)
    me, pass_time = elector(server, lease_duration=60, kill_grace=7, clock=clock), server.before
    assert pass_time

    async def refuse(verb: str) -> None:
        await pass_time(verb)
        if verb == "replace":
            server.lease = None  # acquired by another operator, and then deleted

    server.before = refuse
    leadership = await soon(me.acquire())
    assert (leadership.transitions, leadership.resumed, leadership.released) == (7, False, False)
    assert leadership.earlier_work_ends == pytest.approx(clock() + 67, abs=20)


@pytest.mark.parametrize("existing", [None, {"leaseTransitions": 6}])
async def test_an_answer_that_was_lost_does_not_make_it_a_restart(server: Server, existing: Object | None) -> None:
    """Attempts with the number of a deleted Lease are not its own."""
    if existing:
        server.take("", **existing)
        clock = boot_time
    else:
        server.lease, clock = None, passing(server)
    me, lost = elector(server, clock=clock), asyncio.Event()
    store = server.store

    def store_silently(body: Object) -> Object:
        stored = store(body)
        if not lost.is_set():
            lost.set()
            raise ApiError("the connection was lost", status=503)
        return stored

    server.store = store_silently  # type: ignore[method-assign]
    leadership = await soon(me.acquire())
    assert lost.is_set()
    assert not leadership.resumed
    assert leadership.released == bool(existing)
    assert leadership.seconds_until_over(leadership.transitions, clock()) > 0


async def test_a_holder_whose_name_was_taken_out_has_released_nothing(server: Server) -> None:
    server.take("", leaseTransitions=6, leaseDurationSeconds=60)
    begun, clock = boot_time(), passing(server)
    leadership = await soon(elector(server, clock=clock).acquire())
    assert (leadership.transitions, leadership.released) == (7, False)
    assert leadership.earlier_work_ends > begun + 60 + 7, "it had its time to notice"


async def test_callbacks_and_metrics_are_those_of_client_go(server: Server) -> None:
    server.take("another")
    me, leaders, started = elector(server), [], []
    me.on_new_leader, me.on_started_leading = leaders.append, started.append

    def measured(metric: str) -> float | None:
        return me.metrics.registry.get_sample_value(metric, {"name": "remit-operator"})

    assert measured("leader_election_master_status") == 0
    async with leading(me):
        assert [leaders, [each.transitions for each in started]] == [["another", "me"], [1]]
        assert measured("leader_election_master_status") == 1
        await server.renewals(1)
        assert not measured("leader_election_slowpath_total")
        assert server.lease
        server.store(server.lease)  # by another client
        await server.renewals(1)
        assert measured("leader_election_slowpath_total") == 1
    assert measured("leader_election_master_status") == 0


def test_the_deadline_comes_before_the_duration() -> None:
    with pytest.raises(ValueError, match="must exceed"):
        elector(Server(), lease_duration=10, renew_deadline=10)
