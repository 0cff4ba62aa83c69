"""Tests the counters of releases, from one status to the next."""

from __future__ import annotations

import datetime
import itertools
from dataclasses import replace
from typing import Any

from prometheus_client.parser import text_string_to_metric_families

from remit.api.deploymentstatus import (
    DeploymentStatus,
    PipelineState,
    Release,
    ReleaseFailure,
    ReleaseReport,
    SlotStatus,
)
from remit.controllers import releasemetrics
from remit.controllers.releasemetrics import Instances
from remit.telemetry.metrics import MOST_WORDS, Metrics

START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
RELEASE = Release(revision=1, slot="green", strategy="Canary", started_at=START, clock=START)


def after(seconds: float) -> datetime.datetime:
    return START + datetime.timedelta(seconds=seconds)


def status(release: Release | None, **fields: Any) -> DeploymentStatus:
    stages = release.stages if release is not None else ()
    return DeploymentStatus(stages=stages, pipeline=PipelineState(release=release), **fields)


def counted(*statuses: DeploymentStatus) -> dict[tuple[str, ...], float]:
    """Returns the samples other than 0 after these statuses were written in order."""
    metrics = Metrics()
    for before, now in itertools.pairwise(statuses):
        releasemetrics.count(metrics, before, now)
    return {
        (sample.name, *sample.labels.values()): sample.value
        for family in text_string_to_metric_families(metrics.render()[0].decode())
        for sample in family.samples
        if sample.name.startswith(("remit_release", "remit_deployment", "remit_policy"))
        and not sample.name.endswith(("_bucket", "_created"))
        and sample.value
    }


def test_a_release_is_counted_once_however_often_its_status_is_written() -> None:
    prepared = RELEASE.with_stage("Prepare", state="Done", started_at=after(1), finished_at=after(4))
    ended = replace(prepared, outcome="Promoted", finished_at=after(20))
    report = ReleaseReport(revision=1, started_at=START, switch_milliseconds=250)
    forms = [status(None), status(RELEASE), status(prepared), status(ended), status(ended, report=report)]
    assert counted(*(form for each in forms for form in (each, each))) == {
        ("remit_policy_decisions_total", "Allowed", "Deployment", "release"): 1,
        ("remit_release_stage_seconds_count", "Prepare", "Canary"): 1,
        ("remit_release_stage_seconds_sum", "Prepare", "Canary"): 3,
        ("remit_release_finished_total", "Promoted", "Canary"): 1,
        ("remit_release_duration_seconds_count", "Promoted", "Canary"): 1,
        ("remit_release_duration_seconds_sum", "Promoted", "Canary"): 20,
        ("remit_release_switch_seconds_count", "Canary"): 1,
        ("remit_release_switch_seconds_sum", "Canary"): 0.25,
    }


def test_rollbacks_are_counted_by_cause_when_they_begin() -> None:
    failure = ReleaseFailure(outcome="RolledBack", reason="BakeFailed", at=after(5))
    back = replace(RELEASE, failure=failure)
    ended = replace(back, outcome="RolledBack", finished_at=after(9))
    asked = replace(RELEASE, revision=2, started_at=after(60), rollback=True, pins=True)
    found = counted(status(None), status(RELEASE), status(back), status(ended), status(asked))
    assert found["remit_release_rollbacks_total", "BakeFailed", "Canary"] == 1
    assert found["remit_release_rollbacks_total", "RollbackRequested", "Canary"] == 1
    assert found["remit_release_finished_total", "RolledBack", "Canary"] == 1


def test_restarts_only_rise() -> None:
    def slot(restarts: int, revision: int = 1) -> DeploymentStatus:
        return status(None, slots=[SlotStatus(name="blue", revision=revision, restarts=restarts)])

    found = counted(slot(0), slot(2), slot(2), slot(1), slot(3, revision=2))
    assert found["remit_deployment_instance_restarts_total",] == 5


def test_whoever_writes_status_makes_no_end_of_labels() -> None:
    metrics = Metrics()
    for number in range(3 * MOST_WORDS):
        failure = ReleaseFailure(outcome="Failed", reason=f"Made{number}", at=after(1))
        releasemetrics.count(metrics, status(RELEASE), status(replace(RELEASE, failure=failure)))
    evil = ReleaseFailure(outcome="Failed", reason='"} evil{x="\n', at=after(1))
    releasemetrics.count(metrics, status(RELEASE), status(replace(RELEASE, failure=evil)))
    lines = [line for line in metrics.render()[0].decode().splitlines() if "rollbacks_total{" in line]
    assert len(lines) == MOST_WORDS + 1
    assert 'remit_release_rollbacks_total{reason="Other",strategy="Canary"}' in "\n".join(lines)
    assert "evil" not in "".join(lines)


def test_instances_are_summed_by_target_and_side() -> None:
    def deployment(target: str, *slots: dict[str, Any]) -> dict[str, Any]:
        return {"spec": {"target": {target: {}}}, "status": {"activeSlot": "blue", "slots": list(slots)}}

    blue, green = {"name": "blue", "replicas": 3, "readyReplicas": 2}, {"name": "green", "replicas": 2}
    found = releasemetrics.instances(
        [deployment("process", blue, green), deployment("process", blue), {"spec": {"target": {"docker": {}}}}]
    )
    assert found == {("process", "live"): Instances(6, 4), ("process", "preview"): Instances(2, 0)}
