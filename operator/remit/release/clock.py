"""Decides what counts as progress of a release, from which its deadline is counted, and when to look at it again."""

from __future__ import annotations

import datetime
from dataclasses import replace
from typing import Final

from remit.api.deploymentstatus import PipelineState, Release
from remit.release.model import ObservedState
from remit.release.steps import Wait

LOOK_SECONDS: Final = 2.0
"""Interval of reconciliations of a Deployment without known changes, in seconds."""
REST_SECONDS: Final = 30.0
"""The same where nothing is to be done and the target tells of changes by itself."""


def next_look(wait: Wait, observed: ObservedState, now: datetime.datetime) -> float:
    """Returns the seconds until a waiting Deployment is reconciled again. An idle Deployment must cost the API server
    almost nothing."""
    longest = REST_SECONDS if observed.watched and wait.reason == "Settled" else LOOK_SECONDS
    return longest if wait.until is None else max(0.05, min(longest, (wait.until - now).total_seconds()))


def not_before(state: PipelineState, now: datetime.datetime) -> PipelineState:
    """Moments that lie in the future are brought to now: the clock was set back, and nothing should wait that out."""

    def clamp(moment: datetime.datetime | None) -> datetime.datetime | None:
        return None if moment is None else min(moment, now)

    release = state.release
    if release is not None:
        failure = release.failure
        release = replace(
            release,
            clock=min(release.clock, now),
            step_at=clamp(release.step_at),
            promoted_at=clamp(release.promoted_at),
            failure=failure and replace(failure, at=min(failure.at, now)),
        )
    return replace(state, release=release, idle_since=clamp(state.idle_since), drain_since=clamp(state.drain_since))


def progressed(
    state: PipelineState, release: Release, observed: ObservedState, now: datetime.datetime
) -> PipelineState:
    """Updates the state from the new side: which of its instances have been healthy, and how many at once.

    More healthy instances than ever before are progress; fewer, and then the same again, are none.
    """
    view = observed.slot(release.slot)
    if release.failure is not None:
        return state
    held = view.revision == release.revision
    instances = view.instances if held else {}
    healthy = {name: each.incarnation for name, each in instances.items() if each.healthy}
    known = {name: first for name, first in release.incarnations.items() if name in instances}
    release = replace(release, incarnations=healthy | known)
    if held and view.healthy > release.best:
        release = replace(release, best=view.healthy, clock=now)
    return replace(state, release=release)


def held_over(state: PipelineState, step: Wait | None, now: datetime.datetime) -> PipelineState:
    """Excludes deliberate waits from the progress deadline: when such a wait ends, counting starts again."""
    release, held = state.releasing, step is not None and step.held
    if release is None or release.held == held:
        return state
    return replace(state, release=replace(release, held=held, clock=release.clock if held else now))
