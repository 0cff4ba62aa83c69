"""Counts releases by the differences between a Deployment's status before and after a write, so that nothing is counted
twice. What there is of Deployments and instances is read from the informer's cache."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Final, Literal, NamedTuple

from remit.api.deployment import Target
from remit.api.deploymentstatus import DeploymentStatus, Release, SlotStatus
from remit.kube.client import Object
from remit.policy.verdict import Reason
from remit.telemetry.metrics import Metrics

TARGETS: Final = Target.exactly_one
Side = Literal["live", "preview"]
DENIALS: Final = frozenset(Reason) - {
    Reason.ALLOWED,
    Reason.AUDITED,
    Reason.INVALID_COMMAND,
    Reason.INVALID_REQUEST,
    Reason.EXECUTABLE_NOT_FOUND,
}
"""Reasons by which a policy keeps a Deployment from being released."""


class Instances(NamedTuple):
    desired: int
    ready: int


def count(metrics: Metrics, before: DeploymentStatus, after: DeploymentStatus) -> None:
    """Count what has happened between two forms of the status, of which `after` has been written."""
    old, new = before.pipeline.release, after.pipeline.release
    if new is not None:
        same = old is not None and (old.revision, old.started_at) == (new.revision, new.started_at)
        _count_release(metrics, old if same else None, new)
        report = after.report
        if report is not None and report.switch_milliseconds is not None and report != before.report:
            # The new status may already be that of a newer release.
            reported = old if old is not None and old.revision == report.revision else new
            metrics.release_switch.labels(reported.strategy).observe(report.switch_milliseconds / 1000)
    if restarts := _restarts(before.slots, after.slots):
        metrics.instance_restarts.inc(restarts)


def _count_release(metrics: Metrics, old: Release | None, new: Release) -> None:
    words = metrics.words
    if old is None:
        metrics.policy_decisions.labels("Allowed", "Deployment", "release").inc()
        if new.rollback and new.pins:
            metrics.release_rollbacks.labels(new.strategy, "RollbackRequested").inc()
    for stage in new.stages:
        ended = old is not None and old.stage_record(stage.name).finished_at is not None
        if stage.finished_at is not None and stage.started_at is not None and not ended:
            seconds = (stage.finished_at - stage.started_at).total_seconds()
            metrics.release_stage.labels(new.strategy, stage.name).observe(seconds)
    if new.failure is not None and (old is None or old.failure is None):
        metrics.release_rollbacks.labels(new.strategy, words(new.failure.reason)).inc()
    if new.outcome is not None and (old is None or old.outcome is None):
        metrics.release_finished.labels(new.strategy, new.outcome).inc()
        if new.finished_at is not None:
            seconds = (new.finished_at - new.started_at).total_seconds()
            metrics.release_duration.labels(new.strategy, new.outcome).observe(seconds)


def ended(before: DeploymentStatus, after: DeploymentStatus) -> Release | None:
    """The release that came to its end between two forms of the status, if one did."""
    old, new = before.pipeline.release, after.pipeline.release
    if new is None or new.outcome is None:
        return None
    same = old is not None and (old.revision, old.started_at) == (new.revision, new.started_at)
    return None if same and old is not None and old.outcome is not None else new


def _restarts(before: Iterable[SlotStatus], after: Iterable[SlotStatus]) -> int:
    """A side that has another revision by now counts from 0."""
    known = {(slot.name, slot.revision): slot.restarts for slot in before}
    return sum(max(0, slot.restarts - known.get((slot.name, slot.revision), 0)) for slot in after)


def instances(deployments: Iterable[Object]) -> dict[tuple[str, Side], Instances]:
    """How many instances all Deployments together should have and have, by the kind of target and the side."""
    desired, ready = Counter[tuple[str, Side]](), Counter[tuple[str, Side]]()
    for deployment in deployments:
        target = next((name for name in TARGETS if name in deployment["spec"]["target"]), "")
        status = deployment.get("status") or {}
        for slot in status.get("slots") or ():
            side: Side = "live" if slot["name"] == status.get("activeSlot") else "preview"
            desired[target, side] += slot.get("replicas", 0)
            ready[target, side] += slot.get("readyReplicas", 0)
    return {key: Instances(desired[key], ready[key]) for key in desired}
