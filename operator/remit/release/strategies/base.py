"""The interface of strategies, which differ in two things: how many instances each side has, and how requests move from
one to the other."""

from __future__ import annotations

from typing import Protocol

from remit.api.deploymentstatus import Release
from remit.release.context import Context, Fail
from remit.release.steps import Step, Switch, Wait

Verdict = Step | Fail | Release | None
"""What a stage decides: take this step, fail, save this and decide again, or (None) it has passed."""


class RolloutStrategy(Protocol):
    """A rollout strategy. Every answer depends on the context alone."""

    exclusive: bool
    """Whether the two sides must never run at the same time."""
    moves_replicas: bool
    """Whether the old side is scaled down during the release."""

    def old_replicas(self, ctx: Context) -> int:
        """How many instances the old side should have now."""

    def new_replicas(self, ctx: Context) -> int:
        """How many instances the new side should have now."""

    def promote(self, ctx: Context) -> Verdict:
        """The next step of the stage Promote."""


def switch_over(ctx: Context, replicas: int) -> Verdict:
    """Send all requests to the new side once it is ready, and wait until the switch is seen."""
    if ctx.switched:
        return None if ctx.observed.converged else Wait("Converging", "requests still reach the old side")
    return Switch(ctx.slot, failover=_stands_by(ctx)) if ctx.ready(replicas) else awaiting_health(ctx, replicas)


def _stands_by(ctx: Context) -> bool:
    """Whether requests that the new side cannot take may go to the old one until the release is over. Where going back
    is left to people, so is this; a program that cannot run twice has no old side, and a rollback leaves a bad one."""
    automatic = ctx.desired.spec.rollback.automatic and not ctx.release.rollback
    return ctx.live is not None and automatic and ctx.release.strategy != "Recreate"


def awaiting_health(ctx: Context, replicas: int) -> Wait | Fail:
    """Decide what to do while not all instances are healthy yet, or never will be."""
    return ctx.crashing() or Wait("Unhealthy", f"{ctx.new.healthy} of {replicas} instances are healthy")
