"""Canary: the new side gets a growing share of the requests, step by step."""

from __future__ import annotations

from dataclasses import replace

from remit.api.slots import other
from remit.release.context import Context, Fail, seconds
from remit.release.steps import Switch, Wait
from remit.release.strategies.base import Verdict, switch_over


class CanaryTakeover:
    exclusive = False
    moves_replicas = False

    def old_replicas(self, ctx: Context) -> int:
        return ctx.live.replicas if ctx.live else 0

    def new_replicas(self, ctx: Context) -> int:
        return ctx.release.replicas

    def promote(self, ctx: Context) -> Verdict:
        verdict = switch_over(ctx, ctx.release.replicas)
        if isinstance(verdict, Wait) and ctx.observed.share > 0 and ctx.lost:
            return Fail(
                "InstanceFailed", f"{ctx.new.failed} instances failed at {ctx.observed.share} % of the requests"
            )
        return (_at_step(ctx) or verdict) if isinstance(verdict, Switch) else verdict


def _at_step(ctx: Context) -> Verdict:
    release, canary = ctx.release, ctx.strategy.canary
    if canary is None or release.step >= len(canary.steps) or release.full or release.rollback or ctx.live is None:
        return None
    step, old = canary.steps[release.step], other(ctx.slot)
    if (ctx.observed.live, ctx.observed.share) != (old, step.weight):
        return Switch(old, step.weight)
    if not ctx.observed.converged:
        return Wait("Converging", f"{step.weight} % of the requests are not there yet")
    following = replace(release, step=release.step + 1, step_at=ctx.now, clock=ctx.now, go_ahead=False)
    if release.go_ahead:
        return following
    if step.pause_seconds is None:
        return Wait("AwaitingPromotion", f"at {step.weight} %; waits for somebody to promote it", held=True)
    due = (release.step_at or ctx.now) + seconds(step.pause_seconds)
    if ctx.now >= due:
        return following
    return Wait("CanaryPause", f"at {step.weight} % until {due:%H:%M:%S} UTC", due, True)
