"""Tests writes of status while the watch delivers events."""

from __future__ import annotations

from typing import Any

import pytest

from remit.api.executiontaskstatus import ExecutionTaskStatus
from remit.api.phases import Phase
from remit.kube.client import TASKS
from remit.kube.reflector import Reflector
from remit.kube.status import Outdated, StatusWriter
from remit.telemetry.metrics import Metrics

TASK: dict[str, Any] = {
    "metadata": {"name": "t", "namespace": "default", "uid": "u", "resourceVersion": "1", "generation": 1},
    "spec": {},
}


class Server:
    """A server whose watch reports a deletion before the response to the preceding write arrives."""

    def __init__(self, reflector: Reflector) -> None:
        self._reflector = reflector

    async def patch(self, resource: Any, namespace: str, name: str, body: Any, *, subresource: str = "") -> Any:
        written = {**TASK, "status": body["status"], "metadata": {**TASK["metadata"], "resourceVersion": "2"}}
        self._reflector.observe(written)
        self._reflector.observe_deletion({**written, "metadata": {**TASK["metadata"], "resourceVersion": "3"}})
        return written


async def test_a_write_does_not_count_for_an_object_that_is_gone_by_now() -> None:
    reflector = Reflector(TASKS)
    reflector.observe(TASK)
    writer = StatusWriter(Server(reflector), reflector, Metrics(), "ExecutionTask")  # type: ignore[arg-type]
    with pytest.raises(Outdated):
        await writer.write(TASK, ExecutionTaskStatus(phase=Phase.RUNNING))
    assert reflector.objects.get("default/t") is None
