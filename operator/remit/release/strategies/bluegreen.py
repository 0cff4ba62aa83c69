"""BlueGreen: a complete second side, and one switch, immediately, after a time, or after a manual promotion."""

from __future__ import annotations

from remit.api.strategy import BlueGreen
from remit.release.context import Context, seconds
from remit.release.steps import Switch, Wait
from remit.release.strategies.base import Verdict, awaiting_health, switch_over


class BlueGreenTakeover:
    exclusive = False
    moves_replicas = False

    def old_replicas(self, ctx: Context) -> int:
        return ctx.live.replicas if ctx.live else 0

    def new_replicas(self, ctx: Context) -> int:
        return _preview_replicas(ctx) or ctx.release.replicas

    def promote(self, ctx: Context) -> Verdict:
        if (few := _preview_replicas(ctx)) is not None:
            return _gate(ctx) if ctx.ready(few) else awaiting_health(ctx, few)
        verdict = switch_over(ctx, ctx.release.replicas)
        # The gate matters only for a side that could be switched to; a side that broke while it waited cannot be
        # promoted.
        return (_gate(ctx) or verdict) if isinstance(verdict, Switch) else verdict


def _preview_replicas(ctx: Context) -> int | None:
    """How many instances the new side has for as long as it is a preview; None once it is more, or from the start."""
    release, settings = ctx.release, ctx.strategy.blue_green or BlueGreen()
    if settings.preview_replicas is None or release.rollback or ctx.live is None or ctx.switched:
        return None
    if release.stage == "Promote" and _gate(ctx) is None:
        return None
    return min(settings.preview_replicas, release.replicas)


def _gate(ctx: Context) -> Wait | None:
    release, settings = ctx.release, ctx.strategy.blue_green or BlueGreen()
    # A first release has no previous side to compare with, and a rollback must not wait.
    if release.go_ahead or release.rollback or ctx.live is None:
        return None
    if not settings.auto_promote:
        return Wait("AwaitingPromotion", "healthy; waits for somebody to promote it", held=True)
    due = (release.step_at or ctx.now) + seconds(settings.auto_promote_after_seconds)
    return (
        Wait("AwaitingPromotion", f"healthy; is promoted at {due:%H:%M:%S} UTC", due, True) if ctx.now < due else None
    )
