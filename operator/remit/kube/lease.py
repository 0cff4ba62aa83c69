"""Leader election by a Lease, after client-go's `leaderelection`: of several operators one works, the others wait.

Two rules keep two of them from working at once, whatever state one is in:

- An operator works for `renew_deadline` seconds from the moment before it sent its last successful renewal. A clock
  holds it to that, here and in the fork server, and not an error: a request may hang.
- Another operator takes the lease only after it has seen no renewal for `lease_duration` seconds by its own clock. That
  is longer, and begins later.
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
from typing import Protocol

import structlog

from remit.errors import ApiError, LeaseLost, RemitError
from remit.kube.client import LEASES, Kube, Object

log = structlog.get_logger(__name__)

LEASE_NAME = "remit-operator"
RELEASED: Object = {"holderIdentity": "", "leaseDurationSeconds": 1}
"""The fields of a Lease that nobody holds: the next operator takes it at once."""
CANDIDATE = "remit.dev/candidate"
"""Annotation of the Lease: an operator that waits for it. A holder with `sole_replica` is not alone then."""
_JITTER = 0.2
_NOT_FOUND, _CONFLICT = 404, 409


def boot_time() -> float:
    """CLOCK_BOOTTIME, in seconds: it goes on while the machine is suspended."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


class Fence(Protocol):
    """What keeps this process from working longer than it may."""

    deadline: float
    """Until when this process may work, in seconds of CLOCK_BOOTTIME."""


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
    end_work: Callable[[], None]
    """Ends all work and returns when nothing is left of it. It may block."""
    name: str = LEASE_NAME
    lease_duration: int = 15
    renew_deadline: float = 10
    retry_period: float = 2
    sole_replica: bool = False
    annotations: Callable[[], dict[str, str]] = dict
    """What each write of the Lease notes on it."""
    on_new_leader: Callable[[str], None] = lambda identity: None
    """Called while this operator waits, with the identity of a holder that was not seen before."""
    on_stopped_leading: Callable[[LeaseLost], None] = lambda error: None
    """Called at once when the lease is lost. It should end the process."""
    clock: Callable[[], float] = boot_time
    _deadline: float = field(default=math.inf, init=False)
    _acquired: bool = field(default=False, init=False)
    _lease: Object | None = field(default=None, init=False)
    """As it was last read or written."""
    _holder: str = field(default="", init=False)
    _renew_time: str = field(default="", init=False)
    _observed_at: float = field(default=0.0, init=False)
    """When this renewal by this holder was first seen."""

    def __post_init__(self) -> None:
        if not self.lease_duration > self.renew_deadline > self.retry_period * (1 + _JITTER):
            raise ValueError("a lease's duration must exceed its renew deadline, and that its retry period")

    @contextlib.asynccontextmanager
    async def leading(self) -> AsyncIterator[None]:
        """Wait for the lease, renew it during the block, and release it afterwards, unless the block failed."""
        await self.acquire()
        renewing = asyncio.create_task(self._renew(), name="lease")
        try:
            yield
            lost = renewing.done()
        except BaseException:
            lost = True
            raise
        finally:
            renewing.cancel()
            await asyncio.gather(renewing, return_exceptions=True)
            await asyncio.to_thread(self.end_work)  # nothing may be left when another one begins
            if not lost:
                await self._release()
            self.fence.deadline = math.inf

    async def acquire(self) -> None:
        """Wait until the lease is ours, whatever the server answers meanwhile.

        Raises ApiError where the lease cannot be read at all, for a reason that waiting does not mend.
        """
        pause, failing, holder = self.retry_period, False, ""
        while not self._acquired:
            try:
                self._acquired = await self._attempt()
            except LeaseLost:
                continue  # the answer came too late to count
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
                if not self._acquired and holder != self._holder:
                    holder = self._holder
                    log.info("another operator is at work; waiting for its lease", lease=self.name, holder=holder)
                    self.on_new_leader(holder)
            if not self._acquired:
                await asyncio.sleep(pause * (1 + _JITTER * random.random()))  # noqa: S311 (jitter)

    async def _release(self) -> None:
        """Let the next one in without a wait."""
        try:
            async with asyncio.timeout(self._request_seconds):
                lease = await self.kube.get(LEASES, self.namespace, self.name)
                if (lease.get("spec") or {}).get("holderIdentity") == self.identity:
                    await self._replace(lease, RELEASED)
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
                if not await self._attempt(left):
                    raise LeaseLost(f"{self._holder or 'another operator'} has taken the lease")
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
        """As in client-go, a request that hangs leaves time for another one."""
        return self.renew_deadline / 2

    async def _attempt(self, left: float = math.inf) -> bool:
        """Try once to acquire or to renew. False when another operator has the lease.

        Raises ApiError, also when there is no answer in time, and LeaseLost for a success that came too late.
        """
        sent = self.clock()
        try:
            async with asyncio.timeout(min(self._request_seconds, left)):
                if not await self._acquire_or_renew():
                    return False
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
        return True

    async def _acquire_or_renew(self) -> bool:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.identity, "leaseDurationSeconds": self.lease_duration, "renewTime": now}
        if self._acquired and self._lease is not None:
            lease, self._lease = self._lease, None  # read again unless this is written
            await self._replace(lease, spec)
            return True
        try:
            lease = await self.kube.get(LEASES, self.namespace, self.name)
        except ApiError as error:
            if error.status != _NOT_FOUND:
                raise
            if not self._acquired and self._held_by_another():  # its holder does not know yet that it was deleted
                return False
            await self._create(spec | {"acquireTime": now, "leaseTransitions": 0})
            return True
        self._observe(lease)
        if self._holder != self.identity:
            if self._acquired:
                return False
            if self._held_by_another():
                await self._announce(lease)
                return False
            transitions = (lease.get("spec") or {}).get("leaseTransitions") or 0
            spec |= {"acquireTime": now, "leaseTransitions": transitions + 1}
        await self._replace(lease, spec)
        return True

    def _observe(self, lease: Object) -> None:
        spec = lease.get("spec") or {}
        holder, renew_time = spec.get("holderIdentity") or "", str(spec.get("renewTime"))
        if self._lease is None or (holder, renew_time) != (self._holder, self._renew_time):
            self._holder, self._renew_time, self._observed_at = holder, renew_time, self.clock()
        self._lease = lease
        candidate = _annotations(lease).get(CANDIDATE, self.identity)
        if self._acquired and self.sole_replica and candidate != self.identity:
            log.warning("this operator is not the only replica: another one waits for the lease", candidate=candidate)
            self.sole_replica = False

    def _held_by_another(self) -> bool:
        """By our own clock since we saw it renewed: two machines' clocks need not agree."""
        if self._lease is None or self._holder in {"", self.identity}:
            return False
        duration = (self._lease.get("spec") or {}).get("leaseDurationSeconds") or self.lease_duration
        return self.clock() - self._observed_at <= float(duration)

    async def _announce(self, lease: Object) -> None:
        """Tell the holder that somebody waits. Losing it against another write is no harm: it is tried again."""
        if not _annotations(lease).get(CANDIDATE):
            annotations = _annotations(lease) | {CANDIDATE: self.identity}
            with contextlib.suppress(ApiError):
                body = lease | {"metadata": lease["metadata"] | {"annotations": annotations}}
                await self.kube.replace(LEASES, self.namespace, self.name, body)

    async def _replace(self, lease: Object, spec: Object) -> None:
        annotations = _annotations(lease) | self.annotations()
        if not self._acquired and (self.sole_replica or annotations.get(CANDIDATE) == self.identity):
            annotations.pop(CANDIDATE, None)  # whoever still waits says so again
        body = lease | {
            "metadata": lease["metadata"] | {"annotations": annotations},
            "spec": (lease.get("spec") or {}) | spec,
        }
        self._lease = await self.kube.replace(LEASES, self.namespace, self.name, body)

    async def _create(self, spec: Object) -> None:
        body = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace, "annotations": self.annotations()},
            "spec": spec,
        }
        self._lease = await self.kube.create(LEASES, self.namespace, body)


def _annotations(lease: Object) -> dict[str, str]:
    return lease["metadata"].get("annotations") or {}
