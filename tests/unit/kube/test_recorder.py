"""Tests that Events are posted in the background, and that losing one stops nothing."""

from __future__ import annotations

import asyncio
from typing import Any, cast

from structlog.testing import capture_logs

from remit.errors import ApiError
from remit.kube import events
from remit.kube.client import Kube
from remit.kube.events import Recorder
from remit.telemetry.metrics import Metrics

TASK = {
    "apiVersion": "ops.example.com/v1",
    "kind": "ExecutionTask",
    "metadata": {"name": "t", "namespace": "ns", "uid": "u", "resourceVersion": "7"},
}


class Posted:
    """An API that holds every Event until the gate opens, and refuses those with one reason."""

    def __init__(self) -> None:
        self.gate = asyncio.Event()
        self.bodies: list[dict[str, Any]] = []

    async def create(self, resource: object, namespace: str, body: dict[str, Any]) -> None:
        await self.gate.wait()
        if body["reason"] == "Refused":
            raise ApiError("forbidden", status=403, reason="Forbidden")
        self.bodies.append(body)


async def test_a_flood_is_cut_and_a_refusal_is_survived(monkeypatch: Any) -> None:
    monkeypatch.setattr(events, "_MOST_PENDING", 3)
    api = Posted()
    recorder = Recorder(cast(Kube, api), Metrics(), instance="here")
    with capture_logs() as told:
        for reason in ("Refused", "First", "Second", "Dropped"):
            recorder.record(TASK, "Normal", reason, "x" * 2000)
        api.gate.set()
        await recorder.drain()
    assert [(entry["event"].partition(":")[0], entry["reason"]) for entry in told] == [
        ("an event is dropped", "Dropped"),
        ("an event could not be posted", "Refused"),
    ]
    assert [body["reason"] for body in api.bodies] == ["First", "Second"]
    first, second = api.bodies
    assert first["metadata"]["name"] < second["metadata"]["name"]
    assert len(first["message"]) == 1024 and first["message"].endswith("x…")
    assert first["involvedObject"]["uid"] == "u" and first["reportingInstance"] == "here"
    recorder.record(TASK, "Warning", "Later", "room again")
    await recorder.drain()
    assert api.bodies[-1]["reason"] == "Later"
