"""What is said of a Deployment: phase and columns for people, conditions for kubectl wait, kstatus and Argo CD.

kstatus reads `Reconciling` before `Stalled`: while work goes on it is in progress; once it is stalled, no work goes on.
"""

from __future__ import annotations

import datetime
from typing import Literal

from remit.api.base import Condition
from remit.api.deploymentstatus import DeploymentPhase, DeploymentStatus, PipelineState, Release, Slot, SlotStatus
from remit.release.model import SLOTS, Desired, ObservedState, SlotView
from remit.release.steps import Decision, Wait, sentence

Truth = Literal["True", "False", "Unknown"]


def status_after(
    desired: Desired,
    observed: ObservedState,
    decision: Decision,
    before: DeploymentStatus,
    *,
    generation: int,
    now: datetime.datetime,
) -> DeploymentStatus:
    """The whole status to write with `decision`. `before` is the one that was read; its reports are kept."""
    state, release = decision.state, decision.state.releasing
    view, active = _active(observed, state, before)
    phase, reason, message = _summary(desired, observed, decision, view)
    hopeless = release is None and _hopeless(desired, decision)
    truths = _truths(state, phase, view, settled=_at_rest(state), hopeless=hopeless)
    wanted = state.live.replicas if state.live else view.wanted
    return DeploymentStatus(
        observed_generation=generation,
        phase=phase,
        stage=_stage(state),
        active=_named(state, active[1]),
        preview=_named(state, release.revision) if release and active[1] != release.revision else "",
        ready=f"{view.healthy}/{wanted}",
        message=message,
        active_slot=active[0],
        active_revision=active[1],
        preview_revision=release.revision if release and active[1] != release.revision else None,
        pinned_revision=state.pin,
        replicas=view.wanted,
        ready_replicas=view.healthy,
        conditions=[
            _condition(type_, status, reason, message, before, generation, now) for type_, status in truths.items()
        ],
        slots=before.slots if observed.unreachable else _slots(observed),
        stages=state.release.stages if state.release else (),
        history=state.history,
        report=before.report,
        request=state.answer,
        pipeline=state,
    )


def _active(
    observed: ObservedState, state: PipelineState, before: DeploymentStatus
) -> tuple[SlotView, tuple[Slot | None, int | None]]:
    """The side that requests go to. While the target is out of sight, what was last seen of it holds."""
    if observed.unreachable:
        seen = SlotView(before.active_revision, before.replicas, before.replicas, before.ready_replicas)
        return seen, (before.active_slot, before.active_revision)
    if observed.live is None:
        return SlotView(), (None, None)
    view = observed.slot(observed.live)
    known = state.live.revision if state.live and state.live.slot == observed.live else None
    return view, (observed.live, view.revision or known)


def _slots(observed: ObservedState) -> list[SlotStatus]:
    return [
        SlotStatus(
            name=name,
            revision=view.revision,
            replicas=view.wanted,
            ready_replicas=view.healthy,
            restarts=view.restarts,
            draining=view.draining,
            message=view.message,
        )
        for name in SLOTS
        if (view := observed.slot(name)).revision is not None
    ]


def _hopeless(desired: Desired, decision: Decision) -> bool:
    """What the spec declares cannot even begin, and waiting does not help."""
    unknown = isinstance(decision.step, Wait) and decision.step.reason == "RevisionUnknown"
    back = desired.spec.rollback_to
    problems = (desired.problem, desired.obstacles.get(back.revision) if back is not None else None)
    broken = any(each is not None and not each.retryable for each in problems) and not decision.state.settled
    return unknown or broken


def _at_rest(state: PipelineState) -> bool:
    """Nothing is being brought about: what is left to do is to wait, or to tidy up the old side."""
    return state.releasing is None and state.settled and state.rollback_to is None


def _failed(state: PipelineState) -> Release | None:
    """The release that failed what the spec declares, while nothing newer came of it."""
    release = state.release
    if release is None or release.outcome in {None, "Promoted", "Superseded"} or state.pin is not None:
        return None
    return release if state.settled and release.key == state.key else None


def _summary(
    desired: Desired, observed: ObservedState, decision: Decision, view: SlotView
) -> tuple[DeploymentPhase, str, str]:
    """Phase, reason and message."""
    state, step = decision.state, decision.step
    release, failed, waits = state.releasing, _failed(state), step if isinstance(step, Wait) else None
    if observed.unreachable and desired.deleted:
        until = waits.until if waits else None
        rest = f"; from {until:%FT%TZ} on it will no longer be waited for" if until else ""
        message = f"is being deleted, and the target cannot be reached: {observed.unreachable}{rest}"
        return DeploymentPhase.PROGRESSING, "TargetUnreachable", message
    if observed.unreachable:
        return DeploymentPhase.DEGRADED, "TargetUnreachable", f"the target cannot be reached: {observed.unreachable}"
    if desired.deleted:
        return DeploymentPhase.PROGRESSING, "Deleting", f"is being deleted; {sentence(step)}"
    if release is not None and release.failure is not None:
        return DeploymentPhase.ROLLING_BACK, release.failure.reason, release.failure.message
    if waits is not None and waits.reason == "Paused":
        return DeploymentPhase.PAUSED, "Paused", waits.why
    if waits is not None and waits.reason == "AwaitingPromotion":
        return DeploymentPhase.AWAITING_PROMOTION, waits.reason, waits.why
    if release is not None:
        why = observed.error.message if observed.error and not waits else sentence(step)
        return DeploymentPhase.PROGRESSING, waits.reason if waits else release.stage or "Progressing", why
    if failed is not None:
        serving = state.live is not None and failed.reason != "RollbackFailed"
        return DeploymentPhase.DEGRADED if serving else DeploymentPhase.FAILED, failed.reason, failed.message
    if waits is not None and not state.settled:
        phase = DeploymentPhase.DEGRADED if state.live else DeploymentPhase.PENDING
        return phase, waits.reason, waits.why
    if state.live is None:
        return DeploymentPhase.PENDING, "Pending", "nothing was released yet"
    if view.healthy < state.live.replicas or view.failed:
        message = f"{view.healthy} of {state.live.replicas} instances are healthy"
        return DeploymentPhase.DEGRADED, "Unhealthy", f"{message}: {view.message}" if view.message else message
    if state.pin is not None:
        return DeploymentPhase.HEALTHY, "Pinned", f"revision {state.pin} was returned to; a new spec releases it"
    return DeploymentPhase.HEALTHY, "Promoted", f"revision {state.live.revision} is live"


def _truths(
    state: PipelineState, phase: DeploymentPhase, view: SlotView, *, settled: bool, hopeless: bool
) -> dict[str, Truth]:
    whole = state.live is not None and view.healthy >= state.live.replicas and not view.failed
    empty_by_wish = state.live is not None and state.live.replicas == 0
    stalled = hopeless or (settled and _failed(state) is not None)
    return {
        "Available": _truth(view.healthy > 0 or empty_by_wish),
        "Progressing": _truth(state.releasing is not None and phase is DeploymentPhase.PROGRESSING),
        "Healthy": _truth(whole),
        "Reconciling": _truth(not stalled and not (settled and phase is DeploymentPhase.HEALTHY)),
        "Stalled": _truth(stalled),
    }


def _truth(holds: bool) -> Truth:
    return "True" if holds else "False"


def _stage(state: PipelineState) -> str:
    release = state.release
    if release is None:
        return ""
    running = next((record.name for record in release.stages if record.state == "Running"), "")
    return running or (release.stage or "" if release.outcome is None else "")


def _named(state: PipelineState, revision: int | None) -> str:
    record = state.record(revision) if revision is not None else None
    return "" if revision is None else f"{record.artifact} ({revision})" if record else f"({revision})"


def _condition(
    type_: str,
    status: Truth,
    reason: str,
    message: str,
    before: DeploymentStatus,
    generation: int,
    now: datetime.datetime,
) -> Condition:
    old = next((condition for condition in before.conditions if condition.type == type_), None)
    since = old.last_transition_time if old is not None and old.status == status else None
    return Condition(
        type=type_,
        status=status,
        reason=reason,
        message=message,
        last_transition_time=since or now.replace(microsecond=0),
        observed_generation=generation,
    )
