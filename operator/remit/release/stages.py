"""The stages of a release, in order: what each one asks for before it is passed."""

from __future__ import annotations

from collections.abc import Callable

from remit.api.deployment import Hook
from remit.api.deploymentstatus import StageName
from remit.release.context import Context, Fail, seconds
from remit.release.idle import clear
from remit.release.model import HookKey
from remit.release.steps import Prepare, Preview, Provision, RunHook, Scale, Wait
from remit.release.strategies import STRATEGIES
from remit.release.strategies.base import Verdict


def validate(ctx: Context) -> Verdict:
    if ctx.revision(ctx.release.revision) is None:
        return Fail("RevisionUnknown", f"revision {ctx.release.revision} is not kept any more")
    return None


def prepare(ctx: Context) -> Verdict:
    revision = ctx.revision(ctx.release.revision)
    if revision is None or ctx.release.revision in ctx.observed.prepared:
        return validate(ctx)
    return Prepare(revision)


def provision(ctx: Context) -> Verdict:
    """The new side holds the revision, with as many instances as it should have by now."""
    revision, strategy = ctx.revision(ctx.release.revision), STRATEGIES[ctx.release.strategy]
    if revision is None:
        return validate(ctx)
    if strategy.exclusive and ctx.live is not None and ctx.old.started and not ctx.switched:
        return Wait("Stopping", f"{ctx.old.started} instances of the old side are still there")
    if ctx.new.revision not in {None, revision.number}:
        return clear(ctx.desired, ctx.observed, ctx.state, ctx.slot, ctx.now)
    replicas = strategy.new_replicas(ctx)
    if not ctx.observed.holding(revision.number, ctx.slot):
        return Provision(ctx.slot, revision, replicas)
    if ctx.new.wanted != replicas:
        return Scale(ctx.slot, replicas)
    # A revision that was live before needs no preview, and a rollback skips it.
    shown = ctx.release.rollback or ctx.switched or ctx.observed.preview == ctx.slot
    return None if shown else Preview(ctx.slot)


def health(ctx: Context) -> Verdict:
    replicas = STRATEGIES[ctx.release.strategy].new_replicas(ctx)
    if ctx.ready(replicas):
        return _proven(ctx)
    return ctx.crashing() or Wait("Unhealthy", f"{ctx.new.healthy} of {replicas} instances are healthy{ctx.detail}")


def pre_promotion(ctx: Context) -> Verdict:
    return _hooks(ctx, "PrePromotion", ctx.desired.spec.stages.pre_promotion)


def promote(ctx: Context) -> Verdict:
    return STRATEGIES[ctx.release.strategy].promote(ctx)


def post_promotion(ctx: Context) -> Verdict:
    return _watch(ctx) or _hooks(ctx, "PostPromotion", ctx.desired.spec.stages.post_promotion)


def bake(ctx: Context) -> Verdict:
    """Observes the new side under real requests. The stage is done when its time has passed and all instances are
    healthy."""
    broken = _watch(ctx)
    if broken is not None:
        return broken
    until = (ctx.release.promoted_at or ctx.now) + seconds(ctx.desired.spec.stages.bake_seconds)
    if ctx.now < until and not ctx.release.full:
        return Wait("Baking", f"live; watched until {until:%H:%M:%S} UTC", until, held=True)
    return health(ctx)


STAGE_RULES: dict[StageName, Callable[[Context], Verdict]] = {
    "Validate": validate,
    "Prepare": prepare,
    "Provision": provision,
    "Health": health,
    "PrePromotion": pre_promotion,
    "Promote": promote,
    "PostPromotion": post_promotion,
    "Bake": bake,
}
"""The rules of all stages except Retire, which continues after the end, so that users need not wait for it."""


def skipped(ctx: Context, stage: StageName) -> bool:
    """Whether there is nothing to do in a stage. A rollback returns to what was proven before, so it is not put off."""
    stages = ctx.desired.spec.stages
    match stage:
        case "PrePromotion":
            return ctx.release.rollback or not stages.pre_promotion
        case "PostPromotion":
            return ctx.release.rollback or not stages.post_promotion
        case "Bake":
            return ctx.release.rollback or not stages.bake_seconds
        case _:
            return False


def _proven(ctx: Context) -> Verdict:
    """It has been healthy for long enough, counted from when the last of its instances became so."""
    until = ctx.release.clock + seconds(ctx.desired.spec.min_ready_seconds)
    if ctx.switched or ctx.release.rollback or ctx.now >= until:
        return None
    return Wait("MinReady", f"healthy; has to stay so until {until:%H:%M:%S} UTC", until, held=True)


def _hooks(ctx: Context, stage: StageName, hooks: list[Hook]) -> Verdict:
    """Run the hooks one after the other. Only success is success: one that was lost runs again."""
    for hook in hooks:
        key = HookKey(ctx.release.revision, stage, hook.name)
        view = ctx.observed.hooks.get(key)
        if view is None:
            return RunHook(key, hook)
        if view.state == "Failed":
            return Fail("HookFailed", f"hook {hook.name} failed: {view.message or 'no message'}")
        if view.state == "Running":
            return Wait("HookRunning", f"hook {hook.name} runs")
    return None


def _watch(ctx: Context) -> Verdict:
    """Fail or wait if something happens to a side that is live and not proven yet."""
    new = ctx.new
    if new.revision != ctx.release.revision:
        return Fail("InstancesGone", "its instances are gone")
    if not ctx.switched:
        return Fail("TrafficLost", "requests do not go to it any more")
    if new.failed:
        return Fail("InstanceFailed", f"{new.failed} of its instances failed{ctx.detail}")
    if verdict := ctx.failing() or ctx.marked():
        return verdict
    wanted = ctx.release.replicas
    return Scale(ctx.slot, wanted) if new.wanted != wanted else None


def ensure_provisioned(ctx: Context) -> Verdict:
    """Keep the new side as it should be in the stages after Provision and before the switch."""
    if ctx.switched or ctx.release.stage not in {"Health", "PrePromotion", "Promote"}:
        return None
    return provision(ctx)
