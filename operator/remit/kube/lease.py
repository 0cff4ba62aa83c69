"""Leader election by a Lease, after client-go's `leaderelection`: of several operators one works, the others wait.

Parameters, callbacks and the fields of the Lease have the meaning that they have there. Two things are added: client-go
"does not guarantee that only one client is acting as a leader", and `Leadership` says what earlier leaders left.

Two rules keep two of them from working at once, whatever state one is in:

- An operator works for `renew_deadline` seconds from the moment before it sent its last successful renewal. A clock
  holds it to that, here and in the fork server, and not an error: a request may hang.
- Another operator takes the lease only after it has seen no renewal for `lease_duration` seconds by its own clock. That
  is longer, and begins later. It makes one only after it has seen none for so long: a holder whose lease was deleted
  makes it again, or has ended by then. client-go does not wait for that.
"""

from __future__ import annotations

import asyncio
import contextlib
import datetime
import math
import random
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Protocol, TypedDict

import structlog

from remit.errors import ApiError, LeaseLost, RemitError
from remit.kube.client import LEASES, Kube, Object
from remit.kube.leadership import FIRST, Leadership, acquired, resumed
from remit.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)

LEASE_NAME = "remit-operator"
CANDIDATE = "remit.dev/candidate"
"""Annotation of the Lease: an operator that waits for it. A holder with `sole_replica` is not alone then."""
EARLIER_WORK_ENDS = "remit.dev/earlier-work-ends"
"""Annotation of the Lease: that of its holder's `Leadership`, which the holder needs if it is restarted."""
JITTER_FACTOR = 1.2
"""A pause between two tries to acquire is longer by up to this multiple of itself."""
_NOT_FOUND, _CONFLICT = 404, 409
_RELEASED_SECONDS = 1
"""`leaseDurationSeconds` of a Lease that was released, as in client-go."""


def boot_time() -> float:
    """CLOCK_BOOTTIME, in seconds: it goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


def micro_time() -> str:
    """The time of day, as Kubernetes' MicroTime. For people: no decision depends on it."""
    return datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def released(spec: Object) -> Object:
    """The `spec` of a Lease, let go of: the next operator takes it at once."""
    now = micro_time()
    return spec | {
        "holderIdentity": "",
        "leaseDurationSeconds": _RELEASED_SECONDS,
        "renewTime": now,
        "acquireTime": now,
    }


def _was_released(spec: Object) -> bool:
    """Whether the holder released the Lease. Somebody else who clears the holder's name leaves the rest as it was."""
    return not spec.get("holderIdentity") and spec.get("leaseDurationSeconds") == _RELEASED_SECONDS


class _Times(TypedDict):
    at: float
    lease_duration: float
    kill_grace: float


class Fence(Protocol):
    """Keeps this process from working longer than it may."""

    deadline: float
    """Until when this process may work, in seconds of CLOCK_BOOTTIME."""
    transitions: int | None
    """The Lease's `leaseTransitions` under which it works."""


@dataclass
class LeaderElector:
    """The Lease `name` in `namespace`, held as `identity`. Times in seconds.

    With `sole_replica`, work does not end because the lease cannot be renewed. It ends when another holder is seen, and
    the deadline holds from the moment when another operator is seen to wait.
    """

    kube: Kube
    """A connection of its own: a renewal must not wait for other requests."""
    namespace: str
    identity: str
    fence: Fence
    extend_deadline: Callable[[float], None]
    """Lets work go on until a time of CLOCK_BOOTTIME, and has it ended then even if this process hangs. Raises OSError
    where nothing could end it."""
    end_work: Callable[[], bool]
    """Ends all work. Whether it is certain that nothing is left of it. It may block."""
    kill_grace: float
    """How long after its deadline a leader's work may take to die, whichever leader it is."""
    name: str = LEASE_NAME
    lease_duration: int = 15
    renew_deadline: float = 10
    retry_period: float = 2
    release_on_cancel: bool = True
    """Release the lease once the work has ended, so that the next one begins without a wait."""
    sole_replica: bool = False
    annotations: Callable[[], dict[str, str]] = dict
    """What each write of the Lease notes on it."""
    on_started_leading: Callable[[Leadership], None] = lambda leadership: None
    """Called when the lease is acquired, before any work."""
    on_stopped_leading: Callable[[LeaseLost], None] = lambda error: None
    """Called at once when the lease is lost. It should end the process."""
    on_new_leader: Callable[[str], None] = lambda identity: None
    """Called with the identity of each holder that is not the one seen before, ourselves included."""
    metrics: Metrics = field(default_factory=Metrics)
    clock: Callable[[], float] = boot_time
    leadership: Leadership | None = field(default=None, init=False)
    """Set once the lease was acquired."""
    _deadline: float = field(default=math.inf, init=False)
    _lease: Object | None = field(default=None, init=False)
    """The Lease as it was last read or written; None while it may have been written since."""
    _observed_record: Object | None = field(default=None, init=False)
    """The Lease's `spec`."""
    _observed_time: float = field(default=0.0, init=False)
    """When this record was first seen."""
    _missing_since: float | None = field(default=None, init=False)
    """When the Lease was first seen not to be there."""
    _reported_leader: str = field(default="", init=False)
    _asked: Leadership | None = field(default=None, init=False)
    """What the last try to acquire would have given, though its answer may have been lost."""

    def __post_init__(self) -> None:
        if not self.lease_duration > self.renew_deadline > self.retry_period * JITTER_FACTOR:
            raise ValueError("a lease's duration must exceed its renew deadline, and that its retry period")
        self._master_status(0)

    @contextlib.asynccontextmanager
    async def leading(self) -> AsyncIterator[Leadership]:
        """Wait for the lease, renew it during the block, and release it afterwards, unless the block failed."""
        leadership = await self.acquire()
        self.fence.transitions = leadership.transitions
        self.on_started_leading(leadership)
        renewing = asyncio.create_task(self._renew(), name="lease")
        try:
            yield leadership
            lost = renewing.done()
        except BaseException:
            lost = True
            raise
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            ended = await asyncio.to_thread(self.end_work)  # all work must have ended before another operator begins
            self._master_status(0)
            if self.release_on_cancel and ended and not lost and leadership.may_be_released(self.clock()):
                await self._release()
            self.fence.deadline, self.fence.transitions = math.inf, None

    @property
    def leader(self) -> str:
        """The holder that was last seen; empty where none was."""
        return str((self._observed_record or {}).get("holderIdentity") or "")

    async def acquire(self) -> Leadership:
        """Wait until the lease is ours, whatever the server answers meanwhile.

        Raises ApiError where the lease cannot be read at all, for a reason that waiting does not mend.
        """
        pause, failing = self.retry_period, False
        while True:
            try:
                self.leadership = await self._try_in_time()
            except LeaseLost:
                continue  # the answer arrived too late to hold the lease
            except ApiError as error:
                if error.status == _CONFLICT:
                    pause = self.retry_period
                elif not error.retryable and self._lease is None:
                    raise
                else:
                    if not failing:
                        log.warning("the lease cannot be had; it is tried again", lease=self.name, error=str(error))
                    failing, pause = True, min(pause * 2, self.lease_duration)
            else:
                failing, pause = False, self.retry_period
            self._report_transition()
            if self.leadership is not None:
                self._master_status(1)
                return self.leadership
            await asyncio.sleep(pause * (1 + JITTER_FACTOR * random.random()))  # noqa: S311 (jitter)

    def _report_transition(self) -> None:
        if self.leader in {"", self._reported_leader}:
            return
        self._reported_leader = self.leader
        if self.leader != self.identity:
            log.info("another operator is at work; waiting for its lease", lease=self.name, holder=self.leader)
        self.on_new_leader(self.leader)

    def _master_status(self, value: int) -> None:
        self.metrics.leader_election_master_status.labels(self.name).set(value)

    async def _release(self) -> None:
        """Let the next one in without a wait."""
        try:
            async with asyncio.timeout(self._request_seconds):
                lease = await self.kube.get(LEASES, self.namespace, self.name)
                spec = lease.get("spec") or {}
                if spec.get("holderIdentity") == self.identity:
                    await self._update(lease, released(spec))
        except (ApiError, TimeoutError) as error:
            log.warning("the lease could not be released", lease=self.name, error=str(error) or "no answer in time")

    async def _renew(self) -> None:
        """Renew until the lease is lost."""
        try:
            while True:
                await self._pause()
                await self._renew_in_time()
        except Exception as error:
            self.fence.deadline = -math.inf
            self._master_status(0)
            lost = error if isinstance(error, LeaseLost) else LeaseLost(f"the lease could not be renewed: {error}")
            self.on_stopped_leading(lost)

    async def _renew_in_time(self) -> None:
        """Try until it is renewed. Raises LeaseLost at the deadline, and when another holder is seen."""
        failing = False
        while True:
            left = self._deadline - self.clock()
            if left <= 0:
                raise LeaseLost(f"the lease could not be renewed within {self.renew_deadline:g} s")
            try:
                if not await self._try_in_time(left):
                    raise LeaseLost(f"{self.leader or 'another operator'} has taken the lease")
            except ApiError as error:
                if not failing and error.status != _CONFLICT:
                    failing = True
                    then = "work goes on" if math.isinf(left) else f"work ends in {left:.1f} s"
                    log.warning("the lease cannot be renewed", lease=self.name, error=str(error), otherwise=then)
                await self._pause()
            else:
                if failing:
                    log.info("the lease is renewed again", lease=self.name)
                return

    async def _pause(self) -> None:
        await asyncio.sleep(min(self.retry_period, max(0.0, self._deadline - self.clock())))

    @property
    def _request_seconds(self) -> float:
        """The timeout of a request. As in client-go, one that hangs leaves time for another."""
        return self.renew_deadline / 2

    async def _try_in_time(self, left: float = math.inf) -> Leadership | None:
        """Try once to acquire or to renew. None when another operator has the lease.

        Raises ApiError, also when there is no answer in time, and LeaseLost for a success that came too late.
        """
        sent = self.clock()
        try:
            async with asyncio.timeout(min(self._request_seconds, left)):
                if (leadership := await self._try_acquire_or_renew()) is None:
                    return None
        except TimeoutError:
            text = f"{self.kube.access.server} does not answer"
            raise ApiError(text, status=503, reason="ServiceUnavailable") from None
        deadline = math.inf if self.sole_replica else sent + self.renew_deadline
        if self.clock() >= min(self._deadline, deadline):
            raise LeaseLost(f"the lease was not renewed within {self.renew_deadline:g} s")
        self._deadline = deadline
        if not self.sole_replica:
            try:
                self.extend_deadline(deadline)
            except OSError as error:
                raise RemitError(f"nothing would end work in time: no fork server can be started: {error}") from None
        return leadership

    async def _try_acquire_or_renew(self) -> Leadership | None:
        now = micro_time()
        record = {"holderIdentity": self.identity, "leaseDurationSeconds": self.lease_duration, "renewTime": now}
        leadership, lease = self.leadership, self._lease
        if leadership and lease:  # the fast path: no other client has written the lease
            self._lease = None  # read the lease again unless this write succeeds
            await self._update(lease, record)
            return leadership
        try:
            lease = await self.kube.get(LEASES, self.namespace, self.name)
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            if not leadership:
                if self._may_have_a_holder():
                    return None
                leadership = self._created()
                record["acquireTime"] = now
            await self._create((self._observed_record or {}) | record | {"leaseTransitions": leadership.transitions})
            return leadership
        self._observe(lease)
        if leadership:
            if self.leader != self.identity:
                return None
            self.metrics.leader_election_slowpath.labels(self.name).inc()
        else:
            if self._held_by_another():
                await self._announce(lease)
                return None
            leadership = self._acquired(lease)
            if not leadership.resumed:
                record |= {"acquireTime": now, "leaseTransitions": leadership.transitions}
        await self._update(lease, record)
        return leadership

    def _acquired(self, lease: Object) -> Leadership:
        """The leadership that comes with getting this Lease."""
        record = lease.get("spec") or {}
        transitions = record.get("leaseTransitions") or 0
        times = self._times()
        if self.leader != self.identity:
            self._asked = acquired(transitions + 1, released=_was_released(record), **times)
        elif not self._asked or self._asked.transitions != transitions:
            self._asked = resumed(transitions, earlier_work_ends=_earlier_work_ends(lease), **times)
        return self._asked  # an earlier request may have succeeded although its answer was lost

    def _created(self) -> Leadership:
        """The leadership that comes with creating the Lease. Others may have held it after we last saw it."""
        last = self._observed_record
        transitions = FIRST if last is None else (last.get("leaseTransitions") or 0) + 1
        self._asked = acquired(transitions, unseen=True, **self._times())
        return self._asked

    def _times(self) -> _Times:
        """`at` is now, and not when the Lease was asked for: its holder may have renewed it since."""
        return {"at": self.clock(), "lease_duration": self.lease_duration, "kill_grace": self.kill_grace}

    def _observe(self, lease: Object) -> None:
        record = lease.get("spec") or {}
        if record != self._observed_record:
            self._observed_record, self._observed_time = record, self.clock()
        self._lease, self._missing_since = lease, None
        candidate = _annotations(lease).get(CANDIDATE, self.identity)
        if self.leadership and self.sole_replica and candidate != self.identity:
            log.warning("this operator is not the only replica: another one waits for the lease", candidate=candidate)
            self.sole_replica = False

    def _held_by_another(self) -> bool:
        """Whether another holder's Lease is valid, by our own clock since its renewal was seen: clocks may differ."""
        if self._observed_record is None or self.leader == self.identity or _was_released(self._observed_record):
            return False
        duration = self._observed_record.get("leaseDurationSeconds") or self.lease_duration
        return self.clock() - self._observed_time <= float(duration)

    def _may_have_a_holder(self) -> bool:
        """Whether a deleted Lease may have a holder that has not noticed that, or could not create it again."""
        if self._missing_since is None:
            self._missing_since = self.clock()
            log.info(
                "there is no lease; it is made unless a holder does so", lease=self.name, seconds=self.lease_duration
            )
        return self._held_by_another() or self.clock() - self._missing_since <= self.lease_duration

    async def _announce(self, lease: Object) -> None:
        """Tell the holder that somebody waits. Losing it against another write is no harm: it is tried again."""
        if not _annotations(lease).get(CANDIDATE):
            annotations = _annotations(lease) | {CANDIDATE: self.identity}
            with contextlib.suppress(ApiError):
                body = lease | {"metadata": lease["metadata"] | {"annotations": annotations}}
                await self.kube.replace(LEASES, self.namespace, self.name, body)

    async def _update(self, lease: Object, record: Object) -> None:
        annotations = _annotations(lease) | self._noted()
        if not self.leadership and (self.sole_replica or annotations.get(CANDIDATE) == self.identity):
            annotations.pop(CANDIDATE, None)  # a candidate that still waits sets it again
        body = lease | {
            "metadata": lease["metadata"] | {"annotations": annotations},
            "spec": (lease.get("spec") or {}) | record,
        }
        self._observe(await self.kube.replace(LEASES, self.namespace, self.name, body))

    def _noted(self) -> dict[str, str]:
        held = {EARLIER_WORK_ENDS: repr(self._asked.earlier_work_ends)} if self._asked else {}
        return self.annotations() | held

    async def _create(self, record: Object) -> None:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace, "annotations": self._noted()},
            "spec": record,
        }
        self._observe(await self.kube.create(LEASES, self.namespace, body))


def _annotations(lease: Object) -> dict[str, str]:
    return lease["metadata"].get("annotations") or {}


def _earlier_work_ends(lease: Object) -> float | None:
    with contextlib.suppress(KeyError, ValueError):
        noted = float(_annotations(lease)[EARLIER_WORK_ENDS])
        return noted if math.isfinite(noted) else None
    return None
