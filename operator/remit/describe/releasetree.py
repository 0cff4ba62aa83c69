"""A Deployment as a tree: what is live, what is on its way, and what to do about it. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass

from remit.api.deployment import Deployment
from remit.api.deploymentstatus import DeploymentStatus, RevisionStatus, SlotStatus
from remit.api.executiontask import ExecutionTask
from remit.api.phases import DeploymentPhase
from remit.execution.durations import human_duration
from remit.release.conclusion import failure
from remit.release.model import HookKey

_TARGETS = {"process": "processes", "docker": "Docker", "kubernetes": "Kubernetes"}


@dataclass(frozen=True, slots=True)
class Stage:
    """The stage that the release is in."""

    name: str
    number: int
    """Counted from 1."""
    of: int
    reason: str
    """What it waits for, as one stable CamelCase word."""
    took: str
    """How long it has been in it, such as `12s`."""


@dataclass(frozen=True, slots=True)
class SideSummary:
    """Blue or green, with a revision on it."""

    slot: str
    ready: int
    wanted: int
    marks: tuple[str, ...] = ()
    """Any of live, preview and draining."""
    restarts: int = 0
    message: str = ""

    @property
    def whole(self) -> bool:
        return self.ready >= self.wanted


@dataclass(frozen=True, slots=True)
class Hook:
    """A hook's task."""

    name: str
    stage: str
    task: str
    phase: str
    message: str = ""


@dataclass(frozen=True, slots=True)
class RevisionBranch:
    """A revision, with what there is of it."""

    number: int
    artifact: str
    outcome: str
    marks: tuple[str, ...] = ()
    """Any of live, preview and pinned."""
    took: str = ""
    sides: tuple[SideSummary, ...] = ()
    hooks: tuple[Hook, ...] = ()


@dataclass(frozen=True, slots=True)
class ReleaseTree:
    """The tree that `remit get deployment NAME` shows."""

    name: str
    phase: str
    message: str
    strategy: str
    target: str
    stage: Stage | None
    revisions: tuple[RevisionBranch, ...]
    """The newest first."""
    advice: tuple[str, ...]
    """What can be done now, one sentence each."""
    verbs: tuple[tuple[str, str], ...] = ()
    """The same: commands of `remit`, each with what it comes to at this moment."""

    @property
    def line(self) -> str:
        """All of it in one line, for where nothing can be drawn anew. It has no durations: they always change."""
        sides = [
            f"revision {revision.number} on {side.slot} {side.ready}/{side.wanted}"
            + "".join(f" {mark}" for mark in side.marks)
            for revision in self.revisions
            for side in revision.sides
        ]
        hooks = [f"hook {hook.name} {hook.phase}" for revision in self.revisions[:1] for hook in revision.hooks]
        where = f"{self.phase} ({self.stage.name})" if self.stage else self.phase
        return "; ".join([f"{where}: {self.message}" if self.message else where, *sides, *hooks])


def release_tree(
    deployment: Deployment, tasks: Mapping[HookKey, ExecutionTask], now: datetime.datetime, *, options: str = ""
) -> ReleaseTree:
    """The tree of a Deployment and of the tasks that are its hooks. `options` end each command that is advised."""
    status, spec, verbs = deployment.status, deployment.spec, tuple(_advice(deployment))
    return ReleaseTree(
        name=deployment.metadata.name,
        phase=str(status.phase or DeploymentPhase.PENDING),
        message=status.message or "no operator has looked at it yet",
        strategy=spec.strategy.type,
        target=_TARGETS[spec.target.kind],
        stage=_stage(deployment, now),
        revisions=tuple(_revision(deployment, revision, tasks) for revision in status.history),
        advice=tuple(f"remit {verb} {deployment.metadata.name}{options}  {why}" for verb, why in verbs),
        verbs=verbs,
    )


def _stage(deployment: Deployment, now: datetime.datetime) -> Stage | None:
    status = deployment.status
    for number, stage in enumerate(status.stages, 1):
        if stage.name == status.stage:
            took = human_duration(now - stage.started_at) if stage.started_at else ""
            reason = next((each.reason for each in status.conditions if each.type == "Reconciling"), "")
            return Stage(stage.name, number, len(status.stages), reason, took)
    return None


def _revision(
    deployment: Deployment, revision: RevisionStatus, tasks: Mapping[HookKey, ExecutionTask]
) -> RevisionBranch:
    status, number = deployment.status, revision.revision
    standing = {"live": status.active_revision, "preview": status.preview_revision, "pinned": status.pinned_revision}
    seconds = revision.duration_seconds
    return RevisionBranch(
        number=number,
        artifact=revision.artifact,
        outcome=revision.outcome,
        marks=tuple(mark for mark, which in standing.items() if which == number),
        took="" if seconds is None else human_duration(datetime.timedelta(seconds=seconds)),
        sides=tuple(_side(deployment, slot) for slot in status.slots if slot.revision == number),
        hooks=tuple(
            Hook(key.name, key.stage, task.metadata.name, str(task.status.phase or "Pending"), task.status.message)
            for key, task in sorted(tasks.items(), key=lambda each: _began(each[1]))
            if key.revision == number
        ),
    )


def _began(task: ExecutionTask) -> tuple[bool, str, str]:
    created = task.metadata.creation_timestamp
    return created is None, created.isoformat() if created else "", task.metadata.name


def _side(deployment: Deployment, slot: SlotStatus) -> SideSummary:
    status = deployment.status
    live = slot.name == status.active_slot
    marks = {
        "live": live,
        "preview": not live and slot.revision == status.preview_revision,
        "draining": slot.draining,
    }
    return SideSummary(
        slot=slot.name,
        ready=slot.ready_replicas,
        wanted=slot.replicas,
        marks=tuple(mark for mark, holds in marks.items() if holds),
        restarts=slot.restarts,
        message=slot.message,
    )


def _advice(deployment: Deployment) -> list[tuple[str, str]]:
    """Verbs of `remit`, each with what it comes to at this moment."""
    status = deployment.status
    release, live = status.pipeline.release, status.pipeline.live
    back = f"goes back to revision {live.revision}" if live else "ends the release; nothing was live before it"
    if release is not None and release.outcome is not None:
        release = None
    match status.phase:
        case DeploymentPhase.AWAITING_PROMOTION:
            return [("promote", "lets it go on"), ("abort", back)]
        case DeploymentPhase.PAUSED if status.pipeline.paused:
            return [("resume", "goes on"), *([("abort", back)] if release else [])]
        case DeploymentPhase.PROGRESSING if release is not None and release.promoted_at is not None:
            return [("promote", "ends the bake"), ("abort", back)]
        case DeploymentPhase.PROGRESSING if release is not None:
            return [("abort", back)]
        case DeploymentPhase.PINNED:
            return [("retry", "releases what the spec declares; or apply another spec")]
    why, last = failure(deployment), status.pipeline.release
    if why is not None:
        if last is None or why.reason != last.reason:
            return []  # the release cannot begin, and another attempt would not change that
        return [("retry", "releases it once more; or apply a spec that is mended")]
    if status.phase is DeploymentPhase.DEGRADED and earlier(status):
        return [("rollback", "returns to the last good revision before")]
    return []


def earlier(status: DeploymentStatus) -> list[RevisionStatus]:
    """The revisions to which a rollback is possible."""
    return [each for each in status.history if each.outcome == "Promoted" and each.revision != status.active_revision]
