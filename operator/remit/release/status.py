"""Computes the status of a Deployment: phase and columns for people, conditions for kubectl wait, kstatus and Argo CD.

kstatus reads `Reconciling` before `Stalled`: an object is in progress while work continues; once it is stalled, no work
continues. What tools wait for, `Healthy` and the end of `Reconciling`, applies to the observed spec and to no earlier
one.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from remit.api.base import Condition
from remit.api.deploymentstatus import DeploymentStatus, LiveSide, PipelineState, Release, SlotStatus
from remit.api.phases import DeploymentPhase
from remit.api.slots import SLOTS, Slot, other
from remit.release.beginning import is_live
from remit.release.model import Desired, ObservedState, SlotView
from remit.release.steps import Decision, Finish, Step, Wait, sentence

Truth = Literal["True", "False", "Unknown"]
NOT_READ: Final[Mapping[str, Truth]] = {
    "Available": "Unknown",
    "Progressing": "False",
    "Healthy": "False",
    "Reconciling": "False",
    "Stalled": "True",
}
"""The conditions of a Deployment that this version cannot read or release, and so does nothing about."""

_HELD: Final[Mapping[str, DeploymentPhase]] = {
    "Paused": DeploymentPhase.PAUSED,
    "AwaitingPromotion": DeploymentPhase.AWAITING_PROMOTION,
}
"""Phases of a release that waits for a person, by the reason of its wait."""


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
    summary = _summary(desired, observed, decision, view)
    verdicts = _verdicts(desired, observed, decision, view, summary)
    return DeploymentStatus(
        observed_generation=generation,
        phase=summary.phase,
        stage=_stage(state),
        active=_named(state, active[1]),
        preview=_named(state, release.revision) if release and active[1] != release.revision else "",
        ready=before.ready if observed.unreachable else _ready(desired, observed, state, view),
        message=summary.message,
        active_slot=active[0],
        active_revision=active[1],
        preview_revision=release.revision if release and active[1] != release.revision else None,
        pinned_revision=state.pin,
        replicas=view.wanted,
        ready_replicas=view.healthy,
        conditions=[_condition(type_, verdict, before, generation, now) for type_, verdict in verdicts.items()],
        slots=before.slots if observed.unreachable else _slots(observed),
        stages=state.release.stages if state.release else (),
        history=state.history,
        report=before.report,
        request=state.answer,
        pipeline=state,
    )


@dataclass(frozen=True, slots=True)
class _Summary:
    """A phase, a reason in CamelCase, and a message."""

    phase: DeploymentPhase
    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class _Verdict:
    """The status, reason and message of a condition."""

    status: Truth
    reason: str
    message: str


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


def _ready(desired: Desired, observed: ObservedState, state: PipelineState, view: SlotView) -> str:
    """Healthy instances that requests go to, on both sides where both serve, and how many there should be."""
    healthy, wanted = view.healthy, desired.replicas
    if observed.live is not None and observed.share:
        healthy += observed.slot(other(observed.live)).healthy
    for side in (state.live, state.releasing):
        if side is not None and side.slot == observed.live:
            wanted = side.replicas
    return f"{healthy}/{wanted}"


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


def _failed(desired: Desired, state: PipelineState) -> Release | None:
    """The release that failed what the spec declares, while nothing newer came of it."""
    release = state.release
    if release is None or release.outcome in {None, "Promoted", "Superseded"} or state.pin is not None:
        return None
    return release if state.settled and desired.key == state.key == release.key else None


def _summary(desired: Desired, observed: ObservedState, decision: Decision, view: SlotView) -> _Summary:
    state, step, release = decision.state, decision.step, decision.state.releasing
    if desired.deleted:
        return _terminating(observed, step)
    if observed.unreachable:
        phase = DeploymentPhase.PROGRESSING if release else DeploymentPhase.PENDING
        why = f"the target cannot be reached: {observed.unreachable}"
        return _Summary(DeploymentPhase.DEGRADED if state.live else phase, "TargetUnreachable", why)
    if release is not None:
        return _releasing(desired, observed, step, release)
    if decision.blocked is not None and decision.blocked.reason == "Paused":
        return _Summary(DeploymentPhase.PAUSED, "Paused", decision.blocked.why)
    if (failed := _failed(desired, state)) is not None:
        serving = state.live is not None and failed.reason != "RollbackFailed"
        phase = DeploymentPhase.DEGRADED if serving else DeploymentPhase.FAILED
        return _Summary(phase, failed.reason, failed.message)
    if decision.blocked is not None:
        return _blocked(state, decision.blocked, view)
    if not state.settled:
        after = step.message if isinstance(step, Finish) else sentence(step)
        return _Summary(DeploymentPhase.PROGRESSING, "Progressing", f"{after}; what the spec declares comes next")
    return _at_rest(desired, observed, state, view)


def _terminating(observed: ObservedState, step: Step) -> _Summary:
    if not observed.unreachable:
        return _Summary(DeploymentPhase.TERMINATING, "Deleting", f"is being deleted; {sentence(step)}")
    until = step.until if isinstance(step, Wait) else None
    rest = f"; from {until:%FT%TZ} on it will no longer be waited for" if until else ""
    why = f"is being deleted, and the target cannot be reached: {observed.unreachable}{rest}"
    return _Summary(DeploymentPhase.TERMINATING, "TargetUnreachable", why)


def _releasing(desired: Desired, observed: ObservedState, step: Step, release: Release) -> _Summary:
    """The summary while a release goes on, or back."""
    if release.failure is not None:
        return _Summary(DeploymentPhase.ROLLING_BACK, release.failure.reason, release.failure.message)
    waits = step if isinstance(step, Wait) else None
    why = observed.error.message if observed.error and waits is None else sentence(step)
    if release.key != desired.key:
        why = f"{why}; the spec was edited since, and what it declares now is released after this"
    reason = waits.reason if waits else release.stage or "Progressing"
    phase = _HELD.get(reason, DeploymentPhase.PROGRESSING) if waits else DeploymentPhase.PROGRESSING
    return _Summary(phase, reason, why)


def _blocked(state: PipelineState, blocked: Wait, view: SlotView) -> _Summary:
    """The verdict if the release that the spec declares cannot begin."""
    phase = DeploymentPhase.PENDING
    if not blocked.held:
        phase = DeploymentPhase.DEGRADED if state.live else DeploymentPhase.FAILED
    elif state.live is not None and not _whole(state.live, view):
        phase = DeploymentPhase.DEGRADED
    return _Summary(phase, blocked.reason, blocked.why)


def _at_rest(desired: Desired, observed: ObservedState, state: PipelineState, view: SlotView) -> _Summary:
    """Nothing is due but to keep what is live as it should be."""
    live = state.live
    if live is None:
        return _Summary(DeploymentPhase.PENDING, "Pending", "nothing was released yet")
    if observed.live != live.slot or observed.share or view.revision != live.revision:
        return _Summary(DeploymentPhase.DEGRADED, "Unhealthy", f"revision {live.revision} does not get all requests")
    if not _whole(live, view):
        message = f"{view.healthy} of {live.replicas} instances are healthy"
        return _Summary(
            DeploymentPhase.DEGRADED, "Unhealthy", f"{message}: {view.message}" if view.message else message
        )
    if is_live(desired, live):
        return _Summary(DeploymentPhase.HEALTHY, "Promoted", f"revision {live.revision} is live")
    message = (
        f"revision {live.revision} is live by request, not what the spec declares; a new spec or a retry ends that"
    )
    return _Summary(DeploymentPhase.PINNED, "Pinned", message)


def _whole(live: LiveSide, view: SlotView) -> bool:
    return view.healthy >= live.replicas and not view.failed


def _verdicts(
    desired: Desired, observed: ObservedState, decision: Decision, view: SlotView, summary: _Summary
) -> dict[str, _Verdict]:
    """`Healthy` is about what the spec declares, and so is the end of `Reconciling`; `Available` is about what serves,
    as that of an apps/v1 Deployment."""
    state = decision.state

    def verdict(holds: bool, *, known: bool = True) -> _Verdict:
        status: Truth = "True" if holds else "False"
        return _Verdict(status if known else "Unknown", summary.reason, summary.message)

    seen = not observed.unreachable
    empty_by_wish = state.live is not None and state.live.replicas == 0
    stalled = verdict(_gives_up(desired, decision, summary))
    if stalled.status == "True" and (failed := _failed(desired, state)) is not None:
        stalled = _Verdict("True", failed.reason, failed.message)
    healthy = summary.phase is DeploymentPhase.HEALTHY
    return {
        "Available": verdict(view.healthy > 0 or empty_by_wish, known=seen or state.live is None),
        "Progressing": verdict(seen and summary.phase is DeploymentPhase.PROGRESSING),
        "Healthy": verdict(healthy),
        "Reconciling": verdict(not healthy and stalled.status == "False"),
        "Stalled": stalled,
    }


def _gives_up(desired: Desired, decision: Decision, summary: _Summary) -> bool:
    """Whether what the spec declares is not live, and nothing more is done about that."""
    state, blocked = decision.state, decision.blocked
    if desired.deleted or state.releasing is not None or state.rollback_to is not None:
        return False
    hopeless = blocked is not None and not blocked.held
    return hopeless or summary.phase is DeploymentPhase.PINNED or _failed(desired, state) is not None


def _stage(state: PipelineState) -> str:
    """The stage that the release is in, or in which it failed while it goes back."""
    release = state.release
    if release is None:
        return ""
    shown = "Failed" if release.outcome is None and release.failure is not None else "Running"
    return next((record.name for record in release.stages if record.state == shown), "")


def _named(state: PipelineState, revision: int | None) -> str:
    record = state.record(revision) if revision is not None else None
    return "" if revision is None else f"{record.artifact} ({revision})" if record else f"({revision})"


def _condition(
    type_: str, verdict: _Verdict, before: DeploymentStatus, generation: int, now: datetime.datetime
) -> Condition:
    old = next((condition for condition in before.conditions if condition.type == type_), None)
    since = old.last_transition_time if old is not None and old.status == verdict.status else None
    return Condition(
        type=type_,
        status=verdict.status,
        reason=verdict.reason,
        message=verdict.message,
        last_transition_time=since or now.replace(microsecond=0),
        observed_generation=generation,
    )
