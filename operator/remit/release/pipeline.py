"""The pipeline: the next step of a Deployment, as a pure function of desired and observed state, its own, and the time.

This file contains the whole state machine. It is total: there is a next step for every observed state, and the same
arguments give the same step. Whatever events occur in whatever order, it guarantees:

- The live side is not changed before the other side is healthy (except by Recreate, by Rolling within its allowance,
  and by a user who changes `replicas`).
- After a failure before the switch, the old side continues to serve. After a later failure, requests are switched back,
  whatever the state of the failed side.
- Every release ends.
"""

from __future__ import annotations

import datetime
from dataclasses import replace

from remit.api.deploymentstatus import STAGES, PipelineState, Release, ReleaseFailure, StageName
from remit.api.slots import SLOTS
from remit.release.beginning import begin, observe_spec, superseded
from remit.release.clock import held_over, not_before, progressed
from remit.release.context import Context, Fail
from remit.release.ending import fail, finish, with_digests
from remit.release.idle import clean_up_idle, clear, draining, retired
from remit.release.live import maintain_live, maintain_previous
from remit.release.model import Desired, ObservedState, may_contact, with_hooks
from remit.release.requests import consume
from remit.release.rollback import go_back
from remit.release.stages import STAGE_RULES, ensure_provisioned, skipped
from remit.release.steps import Decision, Drain, Finish, Retire, Step, Switch, Wait, due


def next_step(desired: Desired, observed: ObservedState, state: PipelineState, now: datetime.datetime) -> Decision:
    """The next step, and what to remember before it is taken."""
    now = now.replace(microsecond=0)  # status has whole seconds, so that a restarted operator computes the same
    state = not_before(state, now)
    if desired.deleted and (ended := _let_go(desired, observed, state, now)) is not None:
        return ended
    if observed.unreachable:
        wait = Wait("TargetUnreachable", observed.unreachable, desired.abandon_at, held=True)
        return Decision(wait, held_over(state, wait, now))
    if desired.deleted:
        return _tear_down(desired, observed, state, now)
    state = consume(desired, observed, observe_spec(desired, observed, with_digests(state, observed)), now)
    release = state.releasing
    if release is None:
        return _between_releases(desired, observed, state, now)
    ctx = Context(desired, observed, state, release, now)
    if release.failure is None:
        why = superseded(desired, state, release, switched=ctx.switched)
        if why:
            failure = ReleaseFailure(outcome="Superseded", reason="Superseded", message=why, at=now, asked=True)
            state = fail(ctx, failure)
    return _go_on(desired, observed, state, now)


def _go_on(desired: Desired, observed: ObservedState, state: PipelineState, now: datetime.datetime) -> Decision:
    """A release goes on, or back. The way back is asked first: it waits for nothing that the new side does."""
    release = state.releasing
    if release is None:
        raise AssertionError("there is no release")
    release = with_hooks(release, observed.hooks)
    state = replace(state, release=release)
    ctx = Context(desired, observed, progressed(state, release, observed, now), release, now)
    ctx = replace(ctx, release=ctx.state.releasing or release)
    if release.failure is not None:
        return go_back(ctx, release.failure)
    decision = _forward(ctx)
    if isinstance(decision, Decision):
        waiting = decision.step if isinstance(decision.step, Wait) else None
        state = held_over(decision.state, waiting, now)
        after = state.releasing
        held = waiting is not None and waiting.held
        deadline = None if after is None or held else replace(ctx, release=after).deadline
        if deadline is None or now < deadline:
            return Decision(due(decision.step, deadline), state)
        why = waiting.why if waiting else observed.error.message if observed.error else ctx.new.message
        detail = f": {why}" if why else ""
        limit = desired.spec.progress_deadline_seconds
        decision = Fail("ProgressDeadlineExceeded", f"no progress for {limit} s{detail}")
    failure = ReleaseFailure(outcome="Failed", reason=decision.reason, message=decision.message, at=now)
    return _go_on(desired, observed, fail(ctx, failure), now)


def _forward(ctx: Context) -> Decision | Fail:
    """The next step of a release that is well."""
    step = maintain_previous(ctx)
    if step is not None:
        return Decision(step, ctx.state)
    if ctx.paused:
        return Decision(Wait("Paused", "paused; what is live stays live", held=True), ctx.state)
    error = ctx.observed.error
    if error is not None and not error.retryable and error.revision == ctx.release.revision:
        return Fail(error.reason, error.message)
    if crashed := ctx.crashed():
        return crashed
    for name in STAGES[:-1]:
        if ctx.release.stage_record(name).state not in {"Waiting", "Running"}:
            continue
        if skipped(ctx, name):
            ctx = _enter(ctx, ctx.release.with_stage(name, state="Skipped"))
            continue
        ctx = _enter(ctx, _started(ctx.release, name, ctx.now))
        while isinstance(verdict := ensure_provisioned(ctx) or STAGE_RULES[name](ctx), Release):
            ctx = _enter(ctx, verdict)
        if isinstance(verdict, Fail):
            return verdict
        if verdict is not None:
            return Decision(verdict, draining(ctx.state, verdict, ctx.now))
        ctx = _enter(ctx, _passed(ctx, name))
    return finish(ctx, "Promoted", "Promoted", f"revision {ctx.release.revision} is live", takes_over=True)


def _enter(ctx: Context, release: Release) -> Context:
    return replace(ctx, release=release, state=ctx.remember(release))


def _started(release: Release, name: StageName, now: datetime.datetime) -> Release:
    record = release.stage_record(name)
    if record.state == "Running":
        return release
    release = release.with_stage(record.name, state="Running", started_at=now)
    return replace(release, step_at=now) if name == "Promote" else release


def _passed(ctx: Context, name: StageName) -> Release:
    record = ctx.release.stage_record(name)
    release = ctx.release.with_stage(record.name, state="Done", finished_at=ctx.now)
    release = replace(release, clock=ctx.now, held=False)
    if name != "Promote":
        return release
    before, failed = ctx.new.requests, ctx.new.failed_requests
    return replace(
        release, promoted_at=ctx.now, requests_before=before, failed_before=None if before is None else failed
    )


def _between_releases(
    desired: Desired, observed: ObservedState, state: PipelineState, now: datetime.datetime
) -> Decision:
    """Begin what is due; otherwise keep the live side as it should be, and tidy up the other one."""
    live = state.live
    if live is not None and (observed.share or observed.failover or observed.live not in {None, live.slot}):
        # The requests were moved by something other than a release. Nothing begins from that state; the side that was
        # released gets the requests back.
        return Decision(Switch(live.slot), state)
    begun = begin(desired, observed, state, now)
    blocked = begun if isinstance(begun, Wait) else None
    if isinstance(begun, PipelineState):
        if begun.releasing is not None:
            return _go_on(desired, observed, begun, now)
        state = begun
    step = maintain_live(desired, observed, state)
    decision = Decision(step, state) if step is not None else clean_up_idle(desired, observed, state, now)
    if decision is None:
        decision = Decision(blocked or Wait("Settled", "nothing to do", held=True), retired(state, now))
    return replace(decision, blocked=blocked)


def _let_go(desired: Desired, observed: ObservedState, state: PipelineState, now: datetime.datetime) -> Decision | None:
    """The end of a deletion that leaves the target as it is: nothing was ever released there, or it is out of reach for
    too long."""
    if state.latest == 0 and (observed.unreachable or not may_contact(state, desired.problem)):
        return Decision(Finish("Deleted", "NeverReleased", "nothing of it was ever released"), state)
    if observed.unreachable and desired.abandon_at is not None and now >= desired.abandon_at:
        message = f"the target stayed out of reach ({observed.unreachable}); what is on it is left there"
        return Decision(Finish("Deleted", "Abandoned", message), state)
    return None


def _tear_down(desired: Desired, observed: ObservedState, state: PipelineState, now: datetime.datetime) -> Decision:
    """The Deployment is deleted: drain and retire both sides, the idle one first."""
    live = observed.live or "blue"
    for slot in sorted(SLOTS, key=lambda slot: slot == live):
        if observed.slot(slot).revision is not None:
            step: Step = clear(desired, observed, state, slot, now)
            state = draining(state, step, now) if isinstance(step, Drain | Wait) else state
            return Decision(step, replace(state, drain_since=None) if isinstance(step, Retire) else state)
    return Decision(Finish("Deleted", "Deleted", "nothing of it is left on the target"), state)
