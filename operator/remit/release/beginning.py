"""What the wish means for what is remembered, and whether a release begins."""

from __future__ import annotations

import datetime
from dataclasses import replace

from remit.api.deploymentstatus import LiveSide, PipelineState, Release, RevisionStatus
from remit.release.model import Desired, Revision, World, other
from remit.release.steps import Wait


def heed(desired: Desired, world: World, memory: PipelineState) -> PipelineState:
    """The memory after a look at the wish: a new spec releases a pin, and new replicas reach the live side.

    Replicas that come together with a new revision come with that revision's side: what is live was not made for them.
    """
    memory = _adopt(desired, world, memory)
    changed = desired.key != memory.key
    if changed:
        memory = replace(memory, key=desired.key, settled=False, pin=None, rollback_to=None)
    if desired.replicas == memory.replicas:
        return memory
    if memory.live is not None and (not changed or _satisfied(desired, memory.live)):
        memory = replace(memory, live=replace(memory.live, replicas=desired.replicas))
    if memory.releasing is not None and not changed:
        memory = replace(memory, release=replace(memory.releasing, replicas=desired.replicas))
    return replace(memory, replicas=desired.replicas)


def _adopt(desired: Desired, world: World, memory: PipelineState) -> PipelineState:
    """Take up what is live already, where the memory of it was lost."""
    if memory.live is not None or memory.releasing is not None or world.live is None:
        return memory
    view = world.slot(world.live)
    if view.revision is None:
        return memory
    kept = desired.revisions.get(view.revision)
    return replace(
        memory,
        live=LiveSide(
            slot=world.live,
            revision=view.revision,
            spec_hash=kept.snapshot.spec_hash if kept else "",
            replicas=view.wanted,
        ),
        latest=max(memory.latest, view.revision),
    )


def _satisfied(desired: Desired, live: LiveSide) -> bool:
    """Whether what the spec declares is what is live."""
    back = desired.spec.rollback_to
    return live.spec_hash == desired.snapshot.spec_hash if back is None else live.revision == back.revision


def superseded(desired: Desired, memory: PipelineState, release: Release, *, switched: bool) -> str:
    """Why the release that goes on should make way for what the spec declares now; empty: it should not.

    Once it is live it is finished first: the side to return to is not given up for one that nobody has proven.
    """
    if release.key == memory.key:
        return ""
    if memory.live is not None and _satisfied(desired, memory.live):
        return f"the spec declares revision {memory.live.revision} again"
    return "" if switched or release.promoted_at is not None else "a newer spec took its place"


def begin(desired: Desired, world: World, memory: PipelineState, now: datetime.datetime) -> PipelineState | Wait:
    """The memory with a new release in it, the same memory when none is due, or why one that is due cannot begin."""
    if memory.rollback_to is not None:
        return _begin_requested(desired, world, replace(memory, rollback_to=None), memory.rollback_to, now)
    if memory.settled:
        return memory
    if memory.live is not None and _satisfied(desired, memory.live):
        return replace(memory, settled=True)
    if desired.spec.paused or memory.paused:
        return Wait("Paused", "paused; what is live stays live", held=True)
    if desired.problem is not None:
        return Wait(desired.problem.reason, desired.problem.message, held=desired.problem.retryable)
    back = desired.spec.rollback_to
    if back is None:
        number = 1 + max(memory.latest, *desired.revisions, world.blue.revision or 0, world.green.revision or 0)
        return _start(desired, world, memory, Revision(number, desired.snapshot), now)
    if back.revision not in desired.revisions:
        return Wait("RevisionUnknown", f"spec.rollbackTo: revision {back.revision} is not kept")
    if (obstacle := desired.obstacles.get(back.revision)) is not None:
        why = f"spec.rollbackTo: revision {back.revision} cannot be returned to: {obstacle.message}"
        return Wait(obstacle.reason, why, held=obstacle.retryable)
    # What was never live has proven nothing: it takes the whole way, hooks and all.
    record = memory.record(back.revision)
    proven = record is None or record.promoted_at is not None
    return _start(desired, world, memory, desired.revisions[back.revision], now, rollback=proven)


def _begin_requested(
    desired: Desired, world: World, memory: PipelineState, number: int, now: datetime.datetime
) -> PipelineState:
    if memory.live is not None and memory.live.revision == number:
        return replace(memory, pin=number, settled=True)
    if number in desired.revisions:
        memory = _start(desired, world, memory, desired.revisions[number], now, rollback=True)
        return replace(memory, release=replace(memory.release, pins=True)) if memory.release else memory
    if memory.answer is None:
        return memory
    return replace(
        memory, answer=replace(memory.answer, accepted=False, message=f"revision {number} is not kept any more")
    )


def _moment(memory: PipelineState, number: int, now: datetime.datetime) -> datetime.datetime:
    """When it begins. By this moment, in whole seconds, it is told from an earlier release of the same revision."""
    last = memory.release
    if last is None or last.revision != number:
        return now
    return max(now, last.started_at + datetime.timedelta(seconds=1))


def _start(
    desired: Desired,
    world: World,
    memory: PipelineState,
    revision: Revision,
    now: datetime.datetime,
    *,
    rollback: bool = False,
) -> PipelineState:
    number, snapshot, record = revision.number, revision.snapshot, memory.record(revision.number)
    live = world.live or (memory.live.slot if memory.live else None)
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
        started_at=_moment(memory, number, now),
        clock=now,
        rollback=rollback,
    )
    history = memory.history
    if record is None:
        begun = RevisionStatus(
            revision=number,
            artifact=snapshot.artifact,
            spec_hash=snapshot.spec_hash,
            replicas=replicas,
            deployed_at=now,
        )
        history = (begun, *history)
    return replace(memory, release=release, history=history, latest=max(memory.latest, number), drain_since=None)
