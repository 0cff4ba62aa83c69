"""Rolls a release back: requests return to the last good side, whatever the state of the failed side.

Nothing here depends on the state of the failed side. The rollback is evaluated before anything that waits for that
side.
"""

from __future__ import annotations

from remit.api.deploymentstatus import LiveSide, ReleaseFailure
from remit.release.context import Context, seconds
from remit.release.ending import finish
from remit.release.steps import Decision, Provision, Retire, Scale, Step, Switch, Wait, due
from remit.release.strategies import STRATEGIES

EXCLUSIVE_SECONDS = 30
"""How long a program that must not run twice is given to stop before the old one is started all the same."""


def go_back(ctx: Context, failure: ReleaseFailure) -> Decision:
    """The next step of a release that failed, up to its end."""
    live, switched = ctx.live, ctx.observed.live == ctx.slot
    if live is None:
        message = f"{failure.message}; there is no earlier side to return to"
        return finish(ctx, failure.outcome, failure.reason, message, takes_over=switched)
    if switched and not failure.asked and not ctx.desired.spec.rollback.automatic:
        message = f"{failure.message}; rollback.automatic is false, so it stays live"
        return finish(ctx, "Failed", failure.reason, message, takes_over=True)
    step = _make_room(ctx, failure) or restore(ctx, live)
    if step is None:
        back = f"{failure.message}; revision {live.revision} is live"
        return finish(ctx, failure.outcome, failure.reason, back, takes_over=False)
    if ctx.now < ctx.deadline:
        return Decision(due(step, ctx.deadline), ctx.state)
    return _last_resort(ctx, live, step, failure)


def restore(ctx: Context, live: LiveSide) -> Step | None:
    """The next step until all requests are seen to go to the good side again, with all its instances; None: they do."""
    observed, view = ctx.observed, ctx.observed.slot(live.slot)
    if observed.live is None or (observed.live == live.slot and (observed.share or observed.failover)):
        return Switch(live.slot)
    if not observed.holding(live.revision, live.slot):
        revision = ctx.revision(live.revision)
        if view.revision not in {None, live.revision}:
            return Retire(live.slot)
        if revision is not None:
            return Provision(live.slot, revision, live.replicas)
        return Wait("RevisionUnknown", f"revision {live.revision} is not kept any more, and nothing of it is left")
    if view.wanted != live.replicas:
        return Scale(live.slot, live.replicas)
    ready = observed.ready(live.revision, live.slot, live.replicas)
    if observed.live != live.slot and ready:
        return Switch(live.slot)
    # A side that this release did not change is as good as before; any other side must be observed as complete first.
    if not ready and (observed.live != live.slot or STRATEGIES[ctx.release.strategy].moves_replicas):
        return Wait("Restoring", f"{view.healthy} of {live.replicas} instances of the old side are healthy")
    return None if observed.converged else Wait("Converging", "requests still reach the failed side")


def _make_room(ctx: Context, failure: ReleaseFailure) -> Step | None:
    """Stop the failed side first where both must never run; it is given only so long to obey."""
    gone = ctx.new.revision is None and not ctx.new.started
    if not STRATEGIES[ctx.release.strategy].exclusive or gone or ctx.old.started:
        return None
    until = failure.at + seconds(EXCLUSIVE_SECONDS)
    if ctx.now >= until:
        return None
    if ctx.new.revision is None:
        return Wait("Stopping", f"{ctx.new.started} instances of the failed side are still there", until)
    return Retire(ctx.slot)


def _last_resort(ctx: Context, live: LiveSide, step: Step, failure: ReleaseFailure) -> Decision:
    """The good side did not come back whole in time: some of it is better than none, and so is to go on trying."""
    too_late = ctx.now >= ctx.release.clock + 2 * seconds(ctx.desired.spec.progress_deadline_seconds)
    if not too_late and isinstance(step, Switch):
        return Decision(step, ctx.state)
    away = ctx.observed.live != live.slot and ctx.observed.holding(live.revision, live.slot)
    if not too_late and away and ctx.observed.slot(live.slot).healthy:
        return Decision(Switch(live.slot), ctx.state)
    return _given_up(ctx, failure)


def _given_up(ctx: Context, failure: ReleaseFailure) -> Decision:
    live = ctx.observed.live
    where = "nowhere" if live is None else f"to {live}"
    message = f"{failure.message}; the old side did not come back in time, requests go {where}"
    return finish(ctx, "Failed", "RollbackFailed", message, takes_over=live == ctx.slot)
