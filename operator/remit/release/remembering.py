"""Memory to status, and back: what is written is what is remembered after a restart."""

from __future__ import annotations

from dataclasses import asdict

from remit.api.deploymentstatus import (
    DeploymentStatus,
    HookTask,
    LiveSide,
    PipelineState,
    ReleaseFailure,
    ReleaseProgress,
    RequestAnswer,
    RevisionStatus,
    StageStatus,
)
from remit.release.memory import Answer, Failure, HookRecord, Live, Memory, Record, Release, StageRecord


def remembered(status: DeploymentStatus) -> Memory:
    """The memory that this status holds."""
    state, answer = status.pipeline, status.request
    return Memory(
        live=Live(**dict(state.live)) if state.live else None,
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
        answer=Answer(**dict(answer)) if answer else None,
    )


def pipeline_state(memory: Memory) -> PipelineState:
    """The part of the memory that only the operator reads."""
    release = memory.release
    progress = None
    if release is not None:
        fields = {name: value for name, value in _fields(release).items() if name not in {"stages", "hooks", "failure"}}
        hooks = [HookTask(**_fields(record)) for record in release.hooks]
        failure = ReleaseFailure(**_fields(release.failure)) if release.failure else None
        progress = ReleaseProgress(**fields, hooks=hooks, failure=failure)
    return PipelineState(
        live=LiveSide(**_fields(memory.live)) if memory.live else None,
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


def stages(memory: Memory) -> list[StageStatus]:
    return [StageStatus(**_fields(record)) for record in memory.release.stages] if memory.release else []


def history(memory: Memory, before: list[RevisionStatus]) -> list[RevisionStatus]:
    """The history, with the reports that are in it already."""
    reports = {revision.revision: revision.report for revision in before}
    return [
        RevisionStatus(
            **{**_fields(record), "outcome": record.outcome or "InProgress"}, report=reports.get(record.revision)
        )
        for record in memory.history
    ]


def answer(memory: Memory) -> RequestAnswer | None:
    return RequestAnswer(**_fields(memory.answer)) if memory.answer else None


def _fields(record: Live | Release | Failure | Record | Answer | StageRecord | HookRecord) -> dict[str, object]:
    return asdict(record)


def _release(progress: ReleaseProgress, stages: list[StageStatus]) -> Release:
    fields = dict(progress)
    fields["hooks"] = tuple(HookRecord(**dict(hook)) for hook in progress.hooks)
    fields["failure"] = Failure(**dict(progress.failure)) if progress.failure else None
    return Release(**fields, stages=tuple(StageRecord(**dict(stage)) for stage in stages))


def _record(revision: RevisionStatus) -> Record:
    fields = {name: value for name, value in revision if name not in {"report", "outcome"}}
    return Record(**fields, outcome=None if revision.outcome == "InProgress" else revision.outcome)
