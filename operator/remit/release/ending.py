"""How a release turns back, and how it ends: what is remembered then."""

from __future__ import annotations

import datetime
from dataclasses import replace

from remit.api.deploymentstatus import (
    LiveSide,
    Outcome,
    PipelineState,
    Release,
    ReleaseFailure,
    RevisionStatus,
    StageStatus,
)
from remit.release.context import Context
from remit.release.model import Desired, ObservedState
from remit.release.steps import Decision, Finish


def fail(ctx: Context, failure: ReleaseFailure) -> PipelineState:
    """Fail the release, which can only go back from here. Its outcome depends on whether the new side was live."""
    release = ctx.release
    if ctx.live is not None and (release.promoted_at is not None or ctx.switched):
        failure = replace(failure, outcome="RolledBack")
    if release.stage is not None:
        release = _close_stage(release, release.stage, failure.message, ctx.now)
    return ctx.remember(replace(release, failure=failure, clock=ctx.now, held=False))


def finish(ctx: Context, outcome: Outcome, reason: str, message: str, *, takes_over: bool) -> Decision:
    """End the release. `takes_over`: from now on the new side is the one to rely on."""
    release, state, now = ctx.release, ctx.state, ctx.now
    before = state.live
    records = tuple(
        replace(record, state="Skipped")
        if record.state in {"Waiting", "Running"} and record.name != "Retire"
        else record
        for record in release.stages
    )
    ended = replace(
        release,
        stages=records,
        outcome=outcome,
        reason=reason,
        message=message,
        finished_at=now,
        held=False,
        incarnations={},
        marks=(),
    )
    if (served := ctx.served) is not None:
        ended = replace(ended, requests=served[0], failed_requests=served[1])
    live = before
    if takes_over:
        live = LiveSide(
            slot=release.slot, revision=release.revision, spec_hash=release.spec_hash, replicas=release.replicas
        )
    state = replace(
        state,
        release=ended,
        live=live,
        settled=state.settled or release.key == state.key,
        history=_history(state.history, ended, before, outcome),
        pin=release.revision if outcome == "Promoted" and release.pins else state.pin,
        idle_since=now if takes_over and before is not None else None,
        drain_since=None,
    )
    return Decision(Finish(outcome, reason, message), trim(ctx.desired, ctx.observed, state))


def _history(
    history: tuple[RevisionStatus, ...], release: Release, before: LiveSide | None, outcome: Outcome
) -> tuple[RevisionStatus, ...]:
    """The history after the end of `release`; `before` was live when it began."""

    def after(record: RevisionStatus) -> RevisionStatus:
        if record.revision == release.revision:
            if release.rollback and outcome != "Promoted":
                return record  # a failed return to the revision does not change the outcome of its own release
            return replace(
                record,
                outcome=outcome,
                replicas=release.replicas,
                promoted_at=release.promoted_at or record.promoted_at,
                duration_seconds=(_end(release) - release.started_at).total_seconds(),
            )
        if before is not None and record.revision == before.revision:
            rolled_back = release.rollback and outcome == "Promoted"
            return replace(record, replicas=before.replicas, outcome="RolledBack" if rolled_back else record.outcome)
        return record

    return tuple(after(record) for record in history)


def with_digests(state: PipelineState, observed: ObservedState) -> PipelineState:
    """The state, with the digest of each revision that has become known. It never changes again."""
    known = observed.digests
    return replace(
        state, history=tuple(replace(r, digest=r.digest or known.get(r.revision, "")) for r in state.history)
    )


def trim(desired: Desired, observed: ObservedState, state: PipelineState) -> PipelineState:
    """Forget the oldest revisions beyond `revisionHistoryLimit`, but none that is live, pinned or still wanted, and
    none that a side still holds: it reads its files until it has drained.

    The last good one is kept first, so that failed ones never push out what a rollback returns to.
    """
    release, live = state.release, state.live
    declared = next((record.revision for record in state.history if record.spec_hash == state.key), None)
    needed = {state.pin, state.rollback_to, declared}
    needed |= {live.revision if live else None, release.revision if release else None}
    held = {observed.blue.revision, observed.green.revision}
    good = last_good(state)
    old = [record for record in state.history if record.revision not in needed]
    old.sort(key=lambda record: (record.revision not in held, record.revision != good))
    beyond = old[desired.spec.revision_history_limit :]
    forgotten = {record.revision for record in beyond if record.revision not in held}
    return replace(state, history=tuple(r for r in state.history if r.revision not in forgotten))


def last_good(state: PipelineState) -> int | None:
    """The revision that was live before the present one."""
    live = state.live.revision if state.live else None
    promoted = [r for r in state.history if r.promoted_at and r.outcome == "Promoted" and r.revision != live]
    return max(promoted, key=lambda r: (r.promoted_at, r.revision)).revision if promoted else None


def _close_stage(release: Release, name: str, message: str, now: datetime.datetime) -> Release:
    def closed(record: StageStatus) -> StageStatus:
        if record.name != name or record.state != "Running":  # a stage that was never entered did not fail
            return record
        return replace(record, state="Failed", finished_at=now, message=message)

    return replace(release, stages=tuple(map(closed, release.stages)))


def _end(release: Release) -> datetime.datetime:
    return max(release.finished_at or release.started_at, release.started_at)
