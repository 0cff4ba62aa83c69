"""Rolling: instances are replaced a few at a time, and requests follow them."""

from __future__ import annotations

import math
from collections.abc import Callable

from remit.api.slots import other
from remit.api.strategy import Rolling
from remit.release.context import Context, Fail
from remit.release.steps import Switch, Wait
from remit.release.strategies.base import Verdict, switch_over


class RollingTakeover:
    exclusive = False
    moves_replicas = True

    def old_replicas(self, ctx: Context) -> int:
        """The replicas that the old side keeps, as its healthy successors allow; it grows again only in a rollback."""
        if ctx.switched or ctx.live is None:
            return ctx.old.wanted
        if ctx.release.stage_record("Prepare").state != "Done":
            return ctx.live.replicas
        surge, unavailable = _allowance(ctx)
        if ctx.release.stage != "Promote":
            # The new side does not replace instances yet. The old side gives up instances only if no surge is allowed.
            return min(ctx.old.wanted, max(0, ctx.live.replicas - (0 if surge else unavailable)))
        # Requests are moved first, then instances.
        replaced = _replaced(ctx) if ctx.observed.share >= _share(ctx) else 0.0
        return min(ctx.old.wanted, max(0, math.ceil(ctx.live.replicas * (1 - replaced)) - unavailable))

    def new_replicas(self, ctx: Context) -> int:
        """The replicas of the new side: as many as fit beside the old side's, and never fewer than before."""
        surge, _ = _allowance(ctx)
        most = max(ctx.release.replicas, ctx.live.replicas if ctx.live else 0) + surge
        room = max(most - max(ctx.old.started, ctx.old.wanted), ctx.new.wanted if ctx.new.revision else 0)
        return ctx.release.replicas if ctx.switched else max(0, min(ctx.release.replicas, room))

    def promote(self, ctx: Context) -> Verdict:
        old, new, wanted = other(ctx.slot), ctx.new, ctx.release.replicas
        if ctx.switched or ctx.live is None or ctx.ready(wanted):
            return switch_over(ctx, wanted)
        if ctx.observed.share > 0 and ctx.lost:
            return Fail("InstanceFailed", f"{new.failed} of the new instances failed")
        if ctx.observed.share < _share(ctx):
            return Switch(old, _share(ctx))
        return ctx.crashing() or Wait("Rolling", f"{new.healthy} of {wanted} instances are replaced")


def _replaced(ctx: Context) -> float:
    """The part of the old side that has a healthy successor."""
    return min(1.0, ctx.new.healthy / ctx.release.replicas) if ctx.release.replicas else 1.0


def _share(ctx: Context) -> int:
    """Percent of the requests that the new side should have before all of it is there."""
    return min(99, math.floor(100 * _replaced(ctx)))


def _allowance(ctx: Context) -> tuple[int, int]:
    """How many instances there may be too many, and too few. As in Kubernetes, at least one of them is not 0."""
    settings = ctx.strategy.rolling or Rolling()
    surge = _count(settings.max_surge, ctx.release.replicas, math.ceil)
    unavailable = _count(settings.max_unavailable, ctx.release.replicas, math.floor)
    return surge, unavailable if surge or unavailable else 1


def _count(setting: int | str, replicas: int, rounded: Callable[[float], int]) -> int:
    return setting if isinstance(setting, int) else rounded(int(setting.removesuffix("%")) * replicas / 100)
