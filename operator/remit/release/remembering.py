"""Memory to status, and back: what is written is what is remembered after a restart."""

from __future__ import annotations

from dataclasses import asdict

from remit.api.deploymentstatus import (
    DeploymentStatus,
    PipelineState,
    ReleaseProgress,
    RevisionStatus,
    StageStatus,
)
from remit.release.memory import Memory, Record, Release


def remembered(status: DeploymentStatus) -> Memory:
    """The memory that this status holds."""
    state = status.pipeline
    return Memory(
        live=state.live,
        release=_release(state.release, status.stages) if state.release else None,
        history=tuple(_record(revision) for revision in status.history),
        latest=state.latest,
        key=state.key,
        settled=state.settled,
        replicas=state.replicas,
        pin=status.pinned_revision,
        rollback_to=state.rollback_to,
        paused=state.paused,
        idle_since=state.idle_since,
        drain_since=state.drain_since,
        answer=status.request,
    )


def pipeline_state(memory: Memory) -> PipelineState:
    """The part of the memory that only the operator reads."""
    release = memory.release
    progress = None
    if release is not None:
        fields = {name: getattr(release, name) for name in ReleaseProgress.model_fields}
        progress = ReleaseProgress(**fields)
    return PipelineState(
        live=memory.live,
        release=progress,
        latest=memory.latest,
        key=memory.key,
        settled=memory.settled,
        replicas=memory.replicas,
        rollback_to=memory.rollback_to,
        paused=memory.paused,
        idle_since=memory.idle_since,
        drain_since=memory.drain_since,
    )


def stages(memory: Memory) -> tuple[StageStatus, ...]:
    return memory.release.stages if memory.release else ()


def history(memory: Memory, before: list[RevisionStatus]) -> list[RevisionStatus]:
    """The history, with the reports that are in it already."""
    reports = {revision.revision: revision.report for revision in before}
    return [
        RevisionStatus(
            **{**asdict(record), "outcome": record.outcome or "InProgress"}, report=reports.get(record.revision)
        )
        for record in memory.history
    ]


def _release(progress: ReleaseProgress, stages: tuple[StageStatus, ...]) -> Release:
    return Release(**dict(progress), stages=stages)


def _record(revision: RevisionStatus) -> Record:
    fields = {name: value for name, value in revision if name not in {"report", "outcome"}}
    return Record(**fields, outcome=None if revision.outcome == "InProgress" else revision.outcome)
