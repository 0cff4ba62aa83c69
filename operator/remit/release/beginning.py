"""Applies a new spec to the pipeline's state, and decides whether a release begins."""

from __future__ import annotations

import datetime
from dataclasses import replace

from remit.api.deploymentstatus import LiveSide, PipelineState, Release, RevisionStatus
from remit.api.slots import other
from remit.release.model import Desired, ObservedState, Revision
from remit.release.steps import Wait


def observe_spec(desired: Desired, observed: ObservedState, state: PipelineState) -> PipelineState:
    """Updates the state from the spec: a changed spec clears the pin, a changed replica count applies to the live side.

    Replicas that come together with a new revision come with that revision's side: what is live was not made for them.
    """
    state = _with_keyed_hash(desired, _adopt(desired, observed, state))
    changed = desired.key != state.key
    if changed:
        state = replace(state, key=desired.key, settled=False, pin=None, rollback_to=None)
    # If a spec was changed and changed back, neither it nor a changed replica count was applied meanwhile.
    returns = changed and desired.spec.rollback_to is None and state.live is not None and is_live(desired, state.live)
    if desired.replicas == state.replicas and not returns:
        return state
    if state.live is not None and (not changed or is_live(desired, state.live)):
        state = replace(state, live=replace(state.live, replicas=desired.replicas))
    if state.releasing is not None and not changed:
        state = replace(state, release=replace(state.releasing, replicas=desired.replicas))
    return replace(state, replicas=desired.replicas)


def _with_keyed_hash(desired: Desired, state: PipelineState) -> PipelineState:
    """The state that version 0.1 left, with the digest of today for what the spec declares: it is the same revision."""
    former, keyed = desired.snapshot.former_hash, desired.snapshot.spec_hash
    if not former or state.key != former or former == keyed:
        return state
    live, release = state.live, state.release
    if live is not None and live.spec_hash == former:
        live = replace(live, spec_hash=keyed)
    if release is not None and release.spec_hash == former:
        release = replace(release, spec_hash=keyed)
    if release is not None and release.key == former:
        release = replace(release, key=keyed)
    history = tuple(replace(r, spec_hash=keyed) if r.spec_hash == former else r for r in state.history)
    return replace(state, key=keyed, live=live, release=release, history=history)


def _adopt(desired: Desired, observed: ObservedState, state: PipelineState) -> PipelineState:
    """Adopts the side that is live already, where the state of it was lost."""
    if state.live is not None or state.releasing is not None or observed.live is None:
        return state
    view = observed.slot(observed.live)
    if view.revision is None:
        return state
    kept = desired.revisions.get(view.revision)
    return replace(
        state,
        live=LiveSide(
            slot=observed.live,
            revision=view.revision,
            spec_hash=kept.snapshot.spec_hash if kept else "",
            replicas=view.wanted,
        ),
        latest=max(state.latest, view.revision),
    )


def is_live(desired: Desired, live: LiveSide) -> bool:
    """Whether what the spec declares is what is live."""
    back = desired.spec.rollback_to
    return live.spec_hash == desired.snapshot.spec_hash if back is None else live.revision == back.revision


def superseded(desired: Desired, state: PipelineState, release: Release, *, switched: bool) -> str:
    """Returns why the current release should be superseded by the current spec; empty if it should not.

    A release that is live is finished first, because the side to return to must not be given up for an unproven one.
    """
    if release.key == state.key:
        return ""
    if state.live is not None and is_live(desired, state.live):
        return f"the spec declares revision {state.live.revision} again"
    return "" if switched or release.promoted_at is not None else "a newer spec took its place"


def begin(
    desired: Desired, observed: ObservedState, state: PipelineState, now: datetime.datetime
) -> PipelineState | Wait:
    """The state with a new release in it, the same state when none is due, or why one that is due cannot begin."""
    if state.rollback_to is not None:
        return _begin_requested(desired, observed, replace(state, rollback_to=None), state.rollback_to, now)
    if state.settled:
        return state
    if state.live is not None and is_live(desired, state.live):
        return replace(state, settled=True)
    if desired.spec.paused or state.paused:
        return Wait("Paused", "paused; what is live stays live", held=True)
    if desired.problem is not None:
        return Wait(desired.problem.reason, desired.problem.message, held=desired.problem.retryable)
    back = desired.spec.rollback_to
    if back is None:
        number = 1 + max(state.latest, *desired.revisions, observed.blue.revision or 0, observed.green.revision or 0)
        return _start(desired, observed, state, Revision(number, desired.snapshot), now)
    if back.revision not in desired.revisions:
        return Wait("RevisionUnknown", f"spec.rollbackTo: revision {back.revision} is not kept")
    if (obstacle := desired.obstacles.get(back.revision)) is not None:
        why = f"spec.rollbackTo: revision {back.revision} cannot be returned to: {obstacle.message}"
        return Wait(obstacle.reason, why, held=obstacle.retryable)
    # A revision that was never live is not proven, so it goes through all stages, including hooks.
    record = state.record(back.revision)
    proven = record is None or record.promoted_at is not None
    return _start(desired, observed, state, desired.revisions[back.revision], now, rollback=proven)


def _begin_requested(
    desired: Desired, observed: ObservedState, state: PipelineState, number: int, now: datetime.datetime
) -> PipelineState:
    if state.live is not None and state.live.revision == number:
        return replace(state, pin=number, settled=True)
    if number in desired.revisions:
        state = _start(desired, observed, state, desired.revisions[number], now, rollback=True)
        return replace(state, release=replace(state.release, pins=True)) if state.release else state
    if state.answer is None:
        return state
    return replace(
        state, answer=replace(state.answer, accepted=False, message=f"revision {number} is not kept any more")
    )


def _moment(state: PipelineState, number: int, now: datetime.datetime) -> datetime.datetime:
    """Returns the start time of a release, in whole seconds. It distinguishes the release from an earlier one of the
    same revision."""
    last = state.release
    if last is None or last.revision != number:
        return now
    return max(now, last.started_at + datetime.timedelta(seconds=1))


def _start(
    desired: Desired,
    observed: ObservedState,
    state: PipelineState,
    revision: Revision,
    now: datetime.datetime,
    *,
    rollback: bool = False,
) -> PipelineState:
    number, snapshot, record = revision.number, revision.snapshot, state.record(revision.number)
    live = observed.live or (state.live.slot if state.live else None)
    replicas = snapshot.spec.replicas
    if rollback and record is not None:
        replicas = record.replicas
    release = Release(
        revision=number,
        slot=other(live) if live else "blue",
        key=desired.key,
        spec_hash=snapshot.spec_hash,
        artifact=snapshot.artifact,
        replicas=replicas,
        strategy=desired.spec.strategy.type,
        started_at=_moment(state, number, now),
        clock=now,
        rollback=rollback,
    )
    history = state.history
    if record is None:
        begun = RevisionStatus(
            revision=number,
            artifact=snapshot.artifact,
            spec_hash=snapshot.spec_hash,
            replicas=replicas,
            deployed_at=now,
        )
        history = (begun, *history)
    return replace(state, release=release, history=history, latest=max(state.latest, number), drain_since=None)
