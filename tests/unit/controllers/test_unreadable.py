"""Tests objects that an earlier version stored and today's rules refuse: the status reports it and otherwise stays
unchanged."""

from __future__ import annotations

import asyncio
import copy
import datetime
from typing import Any, cast

import pytest

from remit.controllers.deployments import DeploymentReconciler
from remit.controllers.tasks import TaskReconciler
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, TASKS, Kube, Object
from remit.kube.reflector import Reflector
from remit.telemetry.metrics import Metrics
from statusreaders import kstatus

NOW = datetime.datetime(2026, 1, 1, 12, 0, tzinfo=datetime.UTC)
PIPELINE = {"latest": 2, "key": "abc", "live": {"slot": "blue", "revision": 2}}


class Server:
    """An API server that accepts writes of status."""

    def __init__(self, obj: Object) -> None:
        self.object, self.writes, self.events = obj, 0, cast(list[tuple[str, str]], [])
        self.refuses = False

    async def patch(self, resource: Any, namespace: str, name: str, body: Object, **_: Any) -> Object:
        if self.refuses:
            raise ApiError("spec.replicas: Invalid value", status=422, reason="Invalid")
        changed = copy.deepcopy(self.object)
        changed["status"] = changed.get("status", {}) | body["status"]
        changed["metadata"]["resourceVersion"] = str(self.writes + 2)
        self.object, self.writes = changed, self.writes + 1
        return changed

    def record(self, obj: Object, type_: str, reason: str, message: str) -> None:
        self.events.append((reason, message))


def stored(spec: dict[str, Any], **status: Any) -> Object:
    metadata = {"namespace": "default", "name": "shop", "uid": "u", "generation": 3, "resourceVersion": "1"}
    return {"metadata": metadata, "spec": spec, "status": {"observedGeneration": 3, **status}}


def reconcile(server: Server, times: int = 2) -> None:
    nothing = cast(Any, None)
    kube, resource = cast(Kube, server), TASKS if "command" in server.object["spec"] else DEPLOYMENTS
    reflector = Reflector(resource)
    reflector.observe(server.object)
    events, now = cast(Any, server), lambda: NOW
    reconciler: Any
    if resource is TASKS:
        reconciler = TaskReconciler(
            kube, reflector, nothing, nothing, nothing, nothing, nothing, Metrics(), events, now=now
        )
    else:
        reconciler = DeploymentReconciler(kube, reflector, Reflector(TASKS), Metrics(), events, *[nothing] * 6, now=now)
    for _ in range(times):
        assert asyncio.run(reconciler.reconcile("default/shop")) is None


def test_a_deployment_keeps_its_release_and_says_why_nothing_is_done() -> None:
    server = Server(stored({"artifact": {"image": "shop:v1"}}, phase="Healthy", activeRevision=2, pipeline=PIPELINE))
    assert kstatus(server.object) == "Current"
    reconcile(server)
    status = server.object["status"]
    assert (status["phase"], status["pipeline"], status["activeRevision"]) == ("Degraded", PIPELINE, 2)
    assert "target" in status["message"]
    assert "revision 2 goes on" in status["message"]
    assert kstatus(server.object) == "Failed"
    assert (server.writes, server.events) == (1, [("Invalid", status["message"])])


@pytest.mark.parametrize(("phase", "shown"), [("Scheduled", "Pending"), ("Queued", "Pending"), ("Running", "Running")])
def test_a_task_that_was_begun_is_left_to_the_version_that_reads_it(phase: str, shown: str) -> None:
    attempts = [{"number": 1, "id": "a"}]
    server = Server(stored({"command": {"argv": []}}, phase=phase, attempts=attempts))
    reconcile(server)
    status = server.object["status"]
    assert (status["phase"], status["attempts"]) == (shown, attempts)
    assert kstatus(server.object) == "Failed"
    assert [reason for reason, _ in server.events] == ["Invalid"]
    assert "nothing is done about it: " in status["message"]


def test_a_task_that_ended_stays_as_it_is() -> None:
    server = Server(stored({"command": {"argv": []}}, phase="Succeeded"))
    reconcile(server)
    assert (server.writes, server.events) == (0, [])


def test_an_event_tells_where_the_api_server_refuses_the_status() -> None:
    """Kubernetes before 1.30 validates the whole object when its status is written."""
    server = Server(stored({"artifact": {"image": "shop:v1"}}))
    server.refuses = True
    reconcile(server, times=1)
    assert [reason for reason, _ in server.events] == ["Invalid"]
