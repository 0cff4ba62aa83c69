"""Tests what a claim says about a workspace, and which pods use it."""

from __future__ import annotations

from typing import Any

import pytest

from remit.backends.kubernetes.workspaceclaim import PodUse, WorkspaceClaim, size_told, uses
from remit.controllers.workspaceclaims import wanted

LABELS = {"app.kubernetes.io/managed-by": "remit", "app.kubernetes.io/component": "workspace"}


def claim(size: str = "16Mi", **metadata: Any) -> dict[str, Any]:
    own = {"namespace": "data", "name": "remit-workspace-pip", "uid": "u", "resourceVersion": "7", "labels": LABELS}
    return {"metadata": own | metadata, "spec": {"resources": {"requests": {"storage": size}}}}


def read(obj: dict[str, Any]) -> WorkspaceClaim:
    found = WorkspaceClaim.of(obj)
    assert found is not None
    return found


def test_a_claim_is_read() -> None:
    told = {"remit.dev/ttl-seconds-after-last-use": "60", "remit.dev/idle": '{"seconds": 3}'}
    told["remit.dev/last-used"] = "2026-01-02T03:04:05Z"
    obj = claim(annotations=told)
    obj["spec"]["storageClassName"] = "fast"
    obj["status"] = {"phase": "Bound", "capacity": {"storage": "1Gi"}}
    assert read(obj) == WorkspaceClaim(
        "data", "pip", "u", "7", 16 << 20, 1 << 30, "fast", "Bound", "2026-01-02T03:04:05Z", 60, {"seconds": 3}
    )
    assert read(claim(deletionTimestamp="2026-01-02T03:04:05Z")).is_going
    assert read(claim(creationTimestamp="2026-01-01T00:00:00Z")).last_used == "2026-01-01T00:00:00Z"


def test_what_has_no_label_or_another_name_is_a_strangers() -> None:
    assert WorkspaceClaim.of(claim(labels={"app.kubernetes.io/managed-by": "remit"})) is None
    assert WorkspaceClaim.of(claim(labels=None)) is None
    assert WorkspaceClaim.of(claim(name="database")) is None


@pytest.mark.parametrize("ttl", ["", "-1", "1.5", "x", "٣", "9" * 12, "0x1"])
def test_a_time_to_live_that_is_none_keeps_it(ttl: str) -> None:
    assert read(claim(annotations={"remit.dev/ttl-seconds-after-last-use": ttl})).ttl_seconds is None


@pytest.mark.parametrize("size", ["1Ei", "1e3", ""])
def test_a_size_that_no_task_can_ask_for_is_not_known(size: str) -> None:
    assert read(claim(size)).size is None
    assert size_told(read(claim(size)), 1) == ""


def test_only_who_asks_for_less_is_told() -> None:
    assert size_told(read(claim()), 16 << 20) == ""
    assert "has 16Mi, and the task asks for 1Mi" in size_told(read(claim()), 1 << 20)


def pod(
    *, phase: str = "Running", read_only: bool = False, kind: str = "containers", volume: bool = False
) -> dict[str, Any]:
    mount = {"name": "w", "mountPath": "/w", **({"readOnly": True} if read_only else {})}
    source = {"claimName": "remit-workspace-pip", **({"readOnly": True} if volume else {})}
    spec = {kind: [{"volumeMounts": [mount]}], "volumes": [{"name": "w", "persistentVolumeClaim": source}]}
    return {"metadata": {"name": "p", "labels": {"remit.dev/attempt": "a"}}, "spec": spec, "status": {"phase": phase}}


@pytest.mark.parametrize("kind", ["containers", "initContainers", "ephemeralContainers"])
def test_whoever_mounts_a_claim_uses_it(kind: str) -> None:
    assert list(uses([pod(kind=kind), pod(kind=kind, read_only=True), pod(kind=kind, volume=True)], "pip")) == [
        PodUse("p", "a", writes=True),
        PodUse("p", "a", writes=False),
        PodUse("p", "a", writes=False),
    ]


def test_who_does_not_mount_it_or_has_ended_does_not_use_it() -> None:
    strange = {"metadata": {"name": "s"}, "spec": {"volumes": [{"name": "w", "emptyDir": {}}]}}
    assert list(uses([pod(phase="Succeeded"), pod(phase="Failed"), strange], "pip")) == []
    assert list(uses([pod()], "pi")) == []
    assert list(uses([pod(phase="Pending"), pod(phase="Unknown")], "pip")) == [PodUse("p", "a", writes=True)] * 2


def test_tasks_want_their_workspaces_until_they_have_ended() -> None:
    def task(phase: str, **spec: Any) -> dict[str, Any]:
        volumes = [{"name": "e", "emptyDir": {}}, {"name": "w", "workspace": {"name": phase or "new"}}]
        return {"metadata": {"namespace": "n"}, "spec": {"volumes": volumes, **spec}, "status": {"phase": phase}}

    tasks = [task(""), task("Queued"), task("Running"), task("Succeeded"), task("Denied"), task("Active", schedule={})]
    tasks.append({"metadata": {"namespace": "n"}, "spec": {}})
    tasks[-2]["spec"]["schedule"] = {"cron": "* * * * *"}
    assert wanted(tasks) == {("n", "new"), ("n", "Queued"), ("n", "Running")}
