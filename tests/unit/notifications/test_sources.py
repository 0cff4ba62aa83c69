"""Tests which alerts exist, according to what was observed."""

from __future__ import annotations

import datetime
from typing import Any

import pytest

from remit.notifications.alert import AlertName
from remit.notifications.config import NotificationConfig
from remit.notifications.sources import MOST_ACTIVE, ActiveAlerts

NOW = datetime.datetime(2030, 1, 2, 3, 0, tzinfo=datetime.UTC)
CONFIG = {
    "receivers": [{"name": "r", "apprise": {"urls": ["json://localhost"]}}],
    "routes": [{"receivers": ["r"]}],
    "denials": {"count": 3, "within": "5m"},
}


@pytest.fixture
def active() -> ActiveAlerts:
    return ActiveAlerts(NotificationConfig.model_validate(CONFIG))


def after(**span: float) -> datetime.datetime:
    return NOW + datetime.timedelta(**span)


def task(name: str, phase: str, ended: datetime.datetime = NOW, owner: tuple[str, str] | None = None) -> dict[str, Any]:
    metadata: dict[str, Any] = {"name": name, "namespace": "shop", "uid": f"uid-of-{name}", "labels": {"team": "a"}}
    if owner:
        kind, of = owner
        metadata["ownerReferences"] = [
            {"apiVersion": "remit.dev/v1alpha1", "kind": kind, "name": of, "controller": True, "uid": "u"}
        ]
    status = {"phase": phase, "completionTime": ended.isoformat(), "error": {"message": f"{name} went wrong"}}
    return {"metadata": metadata, "status": status}


def deployment(phase: str, *, stalled: bool = False, outcome: str = "") -> dict[str, Any]:
    status: dict[str, Any] = {"phase": phase, "message": "the message"}
    if stalled:
        status["conditions"] = [{"type": "Stalled", "status": "True"}]
    if outcome:
        status["history"] = [{"outcome": outcome}, {"outcome": "Promoted"}]
    return {"metadata": {"name": "web", "namespace": "shop", "uid": "d"}, "status": status}


def names(active: ActiveAlerts, now: datetime.datetime = NOW) -> list[tuple[str, str]]:
    return [(alert.key.name, alert.key.subject) for alert in active.at(now)]


@pytest.mark.parametrize("phase", ["Failed", "TimedOut"])
def test_a_failed_task_is_an_alert_for_an_hour(active: ActiveAlerts, phase: str) -> None:
    active.observe_task(task("a", phase), NOW)
    (alert,) = active.at(after(minutes=59))
    assert (alert.key, alert.message) == ((AlertName.TASK_FAILED, "shop", "task/a"), "a went wrong")
    assert (alert.started_at, alert.severity, alert.labels) == (NOW, "warning", {"team": "a"})
    assert active.at(after(minutes=60)) == []


@pytest.mark.parametrize("phase", ["Running", "Succeeded", "Cancelled", "Denied", "Backoff"])
def test_other_phases_raise_no_alert(active: ActiveAlerts, phase: str) -> None:
    active.observe_task(task("a", phase), NOW)
    assert names(active) == []


def test_an_old_failure_raises_no_alert(active: ActiveAlerts) -> None:
    active.observe_task(task("a", "Failed", ended=after(hours=-2)), NOW)
    assert names(active) == []


def test_a_deleted_task_is_no_alert(active: ActiveAlerts) -> None:
    active.observe_task(failed := task("a", "Failed"), NOW)
    active.forget_task(failed)
    assert names(active) == []


def unusual(name: str, status: str = "True", **more: Any) -> dict[str, Any]:
    obj = task(name, "Succeeded", **more)
    obj["status"]["conditions"] = [{"type": "Unusual", "status": status, "message": "took 41s; the 20 runs before …"}]
    return obj


@pytest.mark.parametrize("owner", [None, ("ExecutionTask", "nightly"), ("Deployment", "web")])
def test_an_unusual_task_is_an_alert_for_an_hour(active: ActiveAlerts, owner: tuple[str, str] | None) -> None:
    active.observe_task(unusual("a", owner=owner), NOW)
    active.observe_task(unusual("a", owner=owner), after(minutes=10))  # observed again, as in a list
    (alert,) = active.at(after(minutes=59))
    assert (alert.key, alert.message) == ((AlertName.TASK_UNUSUAL, "shop", "task/a"), "took 41s; the 20 runs before …")
    assert (alert.started_at, alert.severity, alert.labels) == (NOW, "warning", {"team": "a"})
    assert active.at(after(minutes=60)) == []


def test_a_usual_deleted_or_old_task_raises_no_alert(active: ActiveAlerts) -> None:
    active.observe_task(unusual("a", status="False"), NOW)
    active.observe_task(unusual("b", ended=after(hours=-2)), NOW)
    active.observe_task(gone := unusual("c"), NOW)
    active.forget_task(gone)
    assert names(active) == []


def test_a_schedule_fails_until_a_run_succeeds(active: ActiveAlerts) -> None:
    of = ("ExecutionTask", "nightly")
    active.observe_task(task("nightly-1", "Failed", after(minutes=1), of), NOW)
    assert names(active, after(days=3)) == [("ScheduleFailing", "schedule/nightly")]
    active.observe_task(task("nightly-2", "Succeeded", after(minutes=2), of), NOW)
    assert names(active) == []
    active.observe_task(task("nightly-1", "Failed", after(minutes=1), of), NOW)  # observed again, as in a list
    assert names(active) == []


def test_a_schedule_that_is_deleted_fails_no_more(active: ActiveAlerts) -> None:
    active.observe_task(task("nightly-1", "Failed", NOW, ("ExecutionTask", "nightly")), NOW)
    active.forget_task(task("nightly", "Scheduled"))
    assert names(active) == []


def test_a_hook_is_reported_by_its_release(active: ActiveAlerts) -> None:
    active.observe_task(task("web-migrate", "Failed", NOW, ("Deployment", "web")), NOW)
    assert names(active) == []


def test_a_burst_of_denials(active: ActiveAlerts) -> None:
    for number in range(2):
        active.observe_task(denied := task(f"d{number}", "Denied", after(seconds=number)), NOW)
        active.observe_task(denied, NOW)
    assert names(active) == []
    active.observe_task(task("d2", "Denied", after(seconds=30)), NOW)
    assert names(active, after(seconds=31)) == [("PolicyDenials", "policy")]
    assert names(active, after(minutes=5, seconds=31)) == []


@pytest.mark.parametrize(
    ("status", "name"),
    [
        (deployment("AwaitingPromotion"), "ReleaseWaiting"),
        (deployment("RollingBack"), "ReleaseRolledBack"),
        (deployment("Degraded", stalled=True, outcome="RolledBack"), "ReleaseRolledBack"),
        (deployment("Degraded", stalled=True, outcome="Failed"), "ReleaseFailed"),
        (deployment("Failed", stalled=True), "ReleaseFailed"),
        (deployment("Degraded"), "DeploymentDegraded"),
    ],
)
def test_what_a_deployment_says(active: ActiveAlerts, status: dict[str, Any], name: str) -> None:
    active.observe_deployment(status, NOW)
    active.observe_deployment(status, after(minutes=1))
    (alert,) = active.at(NOW)
    assert (alert.key, alert.message) == ((name, "shop", "deployment/web"), "the message")
    assert alert.started_at == NOW
    active.observe_deployment(deployment("Healthy"), after(minutes=2))
    assert names(active) == []


@pytest.mark.parametrize("phase", ["Healthy", "Pinned", "Progressing", "Paused", "Pending", "Terminating"])
def test_what_is_well_is_no_alert(active: ActiveAlerts, phase: str) -> None:
    active.observe_deployment(deployment("Degraded"), NOW)
    active.observe_deployment(deployment(phase, stalled=phase == "Pinned"), NOW)
    assert names(active) == []


def test_a_deployment_that_is_deleted(active: ActiveAlerts) -> None:
    active.observe_deployment(deployment("AwaitingPromotion"), NOW)
    active.forget_deployment(deployment("AwaitingPromotion"))
    assert names(active) == []


def test_a_check_that_fails_for_a_while(active: ActiveAlerts) -> None:
    active.observe_checks({"audit": "the disk is full", "watching": "no watch"}, NOW)
    assert names(active) == []
    active.observe_checks({"audit": "the disk is full"}, after(seconds=30))
    (alert,) = active.at(after(seconds=30))
    assert (alert.key, alert.severity) == ((AlertName.AUDIT_UNAVAILABLE, "", "check/audit"), "critical")
    active.observe_checks({}, after(seconds=35))
    assert names(active) == []


def test_the_number_of_alerts_is_bounded(active: ActiveAlerts) -> None:
    for number in range(MOST_ACTIVE + 5):
        active.observe_task(task(f"t{number}", "Failed"), NOW)
    found = names(active)
    assert len(found) == MOST_ACTIVE
    assert found[0] == ("TaskFailed", "task/t5")


def test_many_alerts_of_one_namespace_push_out_no_others(active: ActiveAlerts) -> None:
    active.observe_checks({"audit": "the disk is full"}, NOW)
    active.observe_checks({"audit": "the disk is full"}, after(seconds=30))
    active.observe_deployment(deployment("Degraded"), NOW)
    for number in range(MOST_ACTIVE + 5):
        noisy = task(f"t{number}", "Failed")
        noisy["metadata"]["namespace"] = "noisy"
        active.observe_task(noisy, NOW)
    found = names(active)
    assert len(found) == MOST_ACTIVE
    assert found[:3] == [
        ("AuditUnavailable", "check/audit"),
        ("DeploymentDegraded", "deployment/web"),
        ("TaskFailed", "task/t7"),
    ]


@pytest.mark.parametrize("moment", ["2030-01-02T03:00:00", "9999-12-31T23:59:59Z", "0001-01-01T00:00:00+14:00"])
def test_an_invalid_time_of_another_client(active: ActiveAlerts, moment: str) -> None:
    """A schema accepts a time without a zone. It must not suppress notifications of later runs."""
    run = task("nightly-1", "Failed", owner=("ExecutionTask", "nightly"))
    single = task("once", "Failed")
    run["status"]["completionTime"] = single["status"]["completionTime"] = moment
    active.observe_task(run, NOW)
    active.observe_task(single, NOW)
    for alert in active.at(NOW):
        assert alert.started_at <= after(minutes=5)
    active.observe_task(
        task("nightly-2", "Succeeded", after(minutes=10), ("ExecutionTask", "nightly")), after(minutes=10)
    )
    assert ("ScheduleFailing", "schedule/nightly") not in names(active)


def test_a_run_that_goes_with_its_schedule_raises_no_alert(active: ActiveAlerts) -> None:
    """The garbage collector deletes the run after its schedule."""
    run = task("nightly-1", "Failed", owner=("ExecutionTask", "nightly"))
    active.observe_task(run, NOW)
    active.forget_task(task("nightly", "Failed"))
    run["metadata"]["deletionTimestamp"] = NOW.isoformat()
    active.observe_task(run, NOW)
    assert names(active) == []


@pytest.mark.parametrize("owner", ["x\ntask/other: resolved", "n" * 100_000, ""])
def test_an_owner_that_nothing_can_be_called(active: ActiveAlerts, owner: str) -> None:
    active.observe_task(task("a", "Failed", owner=("ExecutionTask", owner)), NOW)
    assert names(active) == [("TaskFailed", "task/a")]
