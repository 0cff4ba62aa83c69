"""The idle side: kept for a while after a promotion, then drained, then retired."""

from __future__ import annotations

import datetime
from dataclasses import replace

from remit.api.deploymentstatus import PipelineState
from remit.api.slots import SLOTS, Slot, other
from remit.api.strategy import BlueGreen
from remit.release.context import seconds
from remit.release.ending import trim
from remit.release.model import Desired, ObservedState
from remit.release.steps import Decision, Drain, Preview, Retire, Step, Wait


def clear(desired: Desired, observed: ObservedState, state: PipelineState, slot: Slot, now: datetime.datetime) -> Step:
    """The next step to an empty slot. `drain_since` is when the drain was first asked for."""
    view, since = observed.slot(slot), state.drain_since
    until = since + seconds(desired.spec.drain_seconds) if since is not None else None
    if until is None or (not view.draining and now < until):
        return Drain(slot)
    if view.connections and now < until:
        return Wait("Draining", f"{view.connections} requests in flight on {slot}", until)
    return Retire(slot)


def clean_up_idle(
    desired: Desired, observed: ObservedState, state: PipelineState, now: datetime.datetime
) -> Decision | None:
    """Returns the next step for a side that is not live, while no release is in progress. None: there is nothing to
    do."""
    live = state.live.slot if state.live else None
    if observed.preview is not None:
        return Decision(Preview(None), state)
    for slot in (other(live),) if live else SLOTS:
        if observed.slot(slot).revision is None:
            continue
        until = _kept_until(desired, state)
        if until is not None and now < until:
            return Decision(Wait("ScaleDownDelay", f"{slot} is kept until {until:%H:%M:%S} UTC", until), state)
        if live is not None and (troubled := _troubled(observed, state)):
            # If a rollback is left to users, there must be a side to return to.
            return Decision(Wait("LiveUnhealthy", f"{slot} is kept, because {troubled}"), state)
        step = clear(desired, observed, state, slot, now)
        # No instance of it runs any more, so it now counts as one of the revisions that are kept for a rollback.
        if isinstance(step, Retire):
            state = trim(desired, observed.without(slot), state)
        return Decision(step, retiring(draining(state, step, now), now))
    return None


def _troubled(observed: ObservedState, state: PipelineState) -> str:
    """Why the live side is not to be relied on; empty where it is."""
    live, release = state.live, state.release
    if live is None or release is None or release.outcome != "Failed" or release.revision != live.revision:
        return ""
    view = observed.slot(live.slot)
    whole = view.healthy >= live.replicas and not view.failed
    return "" if whole else f"{view.healthy} of {live.replicas} instances of {live.slot}, which failed, are healthy"


def draining(state: PipelineState, step: object, now: datetime.datetime) -> PipelineState:
    """Remember when the drain began."""
    return replace(state, drain_since=now) if isinstance(step, Drain) and state.drain_since is None else state


def retiring(state: PipelineState, now: datetime.datetime) -> PipelineState:
    """Show the stage Retire as begun."""
    release = state.release
    if release is None or release.stage_record("Retire").state != "Waiting":
        return state
    return replace(state, release=release.with_stage("Retire", state="Running", started_at=now))


def retired(state: PipelineState, now: datetime.datetime) -> PipelineState:
    """Show the stage Retire as done, or as skipped where there was nothing to retire."""
    release = state.release
    if release is not None and release.stage_record("Retire").state == "Running":
        release = release.with_stage("Retire", state="Done", finished_at=now)
    elif release is not None and release.stage_record("Retire").state == "Waiting":
        release = release.with_stage("Retire", state="Skipped")
    return replace(state, release=release, drain_since=None, idle_since=None)


def _kept_until(desired: Desired, state: PipelineState) -> datetime.datetime | None:
    strategy = desired.spec.strategy
    if state.idle_since is None or strategy.type in {"Recreate", "Rolling"}:
        return None
    return state.idle_since + seconds((strategy.blue_green or BlueGreen()).scale_down_delay_seconds)
