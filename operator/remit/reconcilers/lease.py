"""Leader election by a Lease: of several operators one works, the others wait.

The holder's name is kept in its state directory, which a lock allows one process at a time: an operator that was
killed takes its own lease up again at once.
"""

from __future__ import annotations

import asyncio
import datetime
from collections.abc import Callable
from dataclasses import dataclass, field

import structlog

from remit.errors import ApiError, RemitError
from remit.reconcilers.kube import LEASES, Kube, Object

log = structlog.get_logger(__name__)

LEASE_NAME = "remit-operator"


class LeaseLost(RemitError):
    """Another operator may be at work: this one must stop."""


@dataclass
class Leader:
    """The Lease `name` in `namespace`, held as `identity`. Times in seconds."""

    kube: Kube
    namespace: str
    identity: str
    name: str = LEASE_NAME
    duration: int = 15
    renew_every: float = 5
    annotations: Callable[[], dict[str, str]] = dict
    """What each write of the Lease notes on it."""
    clock: Callable[[], float] = field(default_factory=lambda: asyncio.get_running_loop().time)
    _seen: tuple[str, float] = ("", 0.0)

    async def acquire(self) -> None:
        """Wait until the lease is ours."""
        told = False
        while not await self._try():
            if not told:
                log.info("another operator is at work; waiting for its lease to end", lease=self.name)
                told = True
            await asyncio.sleep(min(self.renew_every, 2))

    async def keep(self) -> None:
        """Renew for ever. Raises `LeaseLost` when somebody else has it, or when it could not be renewed in time."""
        renewed = self.clock()
        while True:
            await asyncio.sleep(self.renew_every)
            try:
                held = await self._try()
            except ApiError as error:
                if self.clock() - renewed > self.duration * 2 / 3:
                    raise LeaseLost(f"the lease could not be renewed: {error}") from None
                continue
            if not held:
                raise LeaseLost("another operator holds the lease")
            renewed = self.clock()

    async def release(self) -> None:
        """Let the next one in without a wait."""
        try:
            lease = await self.kube.get(LEASES, self.namespace, self.name)
            if lease["spec"].get("holderIdentity") == self.identity:
                released = {"holderIdentity": "", "leaseDurationSeconds": 1}
                await self.kube.replace(LEASES, self.namespace, self.name, self._changed(lease, released))
        except ApiError as error:
            log.warning("the lease could not be released", error=str(error))

    async def _try(self) -> bool:
        now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = {"holderIdentity": self.identity, "leaseDurationSeconds": self.duration, "renewTime": now}
        try:
            lease = await self.kube.get(LEASES, self.namespace, self.name)
        except ApiError as error:
            if error.status != 404:
                raise
            return await self._create(spec | {"acquireTime": now, "leaseTransitions": 0})
        held = lease.get("spec") or {}
        if held.get("holderIdentity") not in {"", None, self.identity} and not self._expired(held):
            return False
        if held.get("holderIdentity") != self.identity:
            spec |= {"acquireTime": now, "leaseTransitions": held.get("leaseTransitions", 0) + 1}
        try:
            await self.kube.replace(LEASES, self.namespace, self.name, self._changed(lease, spec))
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def _changed(self, lease: Object, spec: Object) -> Object:
        metadata = lease["metadata"]
        noted = (metadata.get("annotations") or {}) | self.annotations()
        return lease | {
            "metadata": metadata | {"annotations": noted},
            "spec": (lease.get("spec") or {}) | spec,
        }

    async def _create(self, spec: Object) -> bool:
        lease = {
            "apiVersion": "coordination.k8s.io/v1",
            "kind": "Lease",
            "metadata": {"name": self.name, "namespace": self.namespace, "annotations": self.annotations()},
            "spec": spec,
        }
        try:
            await self.kube.create(LEASES, self.namespace, lease)
        except ApiError as error:
            if error.status != 409:
                raise
            return False
        return True

    def _expired(self, held: Object) -> bool:
        """By our own clock since we saw it renewed: two machines' clocks need not agree."""
        renewed = str(held.get("renewTime"))
        if renewed != self._seen[0]:
            self._seen = renewed, self.clock()
        return self.clock() - self._seen[1] > float(held.get("leaseDurationSeconds", self.duration))
