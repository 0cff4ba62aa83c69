"""The interface of a target (processes, Docker, Kubernetes). All decisions are made elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from remit.api.slots import Slot
from remit.release.model import ObservedState, Revision


@dataclass(frozen=True, slots=True)
class Material:
    """The resolved configuration of one revision. It contains secrets, so it is never shown, and its repr omits all
    fields."""

    env: Mapping[str, str] = field(default_factory=dict, repr=False)
    """The whole environment of an instance, but for what the target itself adds."""
    files: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    """Read-only files, by absolute path."""
    secrets: frozenset[str] = field(default=frozenset(), repr=False)
    """What of all this no kept output may show."""


class Target(Protocol):
    """One Deployment's place on one target.

    Every method is idempotent and returns as soon as the target has taken the order; whether it came about is seen by
    `observe`. All of them raise `remit.errors.DeploymentError`, with a stable `reason` and with `retryable` telling
    whether the same call may succeed later; a call that hangs is a failure, so each has a time limit of its own.
    """

    @property
    def leftovers(self) -> str:
        """Describe what is made on the target and where that is, for people who have to find it without Remit."""

    async def observe(self) -> ObservedState:
        """Observe what is there now: both sides, where requests go, the preview, and which artifacts are at hand.

        Found again by name or label, so that a restarted operator sees what an earlier one did. A target that cannot be
        reached is `ObservedState(unreachable=why)`, not an error.
        """

    async def prepare(self, revision: Revision) -> None:
        """Bring the artifact to the target: pull the image, copy the directory, unpack the archive."""

    async def provision(self, slot: Slot, revision: Revision, replicas: int, material: Material) -> None:
        """Start instances of `revision` on `slot`, which is empty or holds this revision. Ends a drain."""

    async def scale(self, slot: Slot, replicas: int) -> None:
        """Set the number of instances on `slot`, which keeps its revision even with 0 instances."""

    async def switch(self, live: Slot, share: int = 0, *, failover: bool = False) -> None:
        """Send requests to `live`, but for `share` percent that go to the other side. Atomic: no request is lost.

        With `failover`, those that cannot be brought to `live` go to the other side; a target that cannot do that
        leaves it.
        """

    async def preview(self, slot: Slot | None) -> None:
        """Route the preview endpoint to `slot`. None: it leads nowhere."""

    async def drain(self, slot: Slot) -> None:
        """Give `slot` no new requests; `observe` then counts down its connections."""

    async def retire(self, slot: Slot) -> None:
        """Stop the instances on `slot`, and forget what it held. The live pointer is not touched."""

    async def keep(self, revisions: Iterable[int]) -> None:
        """Remove what belongs to all other revisions, because no rollback returns to them."""

    async def remove(self) -> None:
        """Take away what is left when both sides are retired and the Deployment goes: routes, Services, artifacts."""

    async def abandon(self) -> None:
        """Take away what is on the operator's host, such as routes, without contacting the target. What is there stays
        there."""

    async def close(self) -> None:
        """Close connections. Instances continue to run."""
