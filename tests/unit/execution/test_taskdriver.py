"""Steps of the driver of tasks that need no process."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from remit.agent.executions import Execution, ExecutionStore, OwnPolicies
from remit.api import ExecutionTask
from remit.execution.admission import Admission
from remit.execution.queue import Queue
from remit.execution.resolved import Resolved
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.execution.taskdriver import TaskDriver
from remit.execution.taskstore import StoredTask
from remit.kube.leadership import Leadership
from remit.telemetry import AuditLog, Redactor

FINISHED: dict[str, Any] = {
    "metadata": {"name": "t", "namespace": "default", "uid": "u", "creationTimestamp": "2026-01-01T00:00:00Z"},
    "spec": {"command": {"argv": ["true"]}, "backend": "docker", "image": "alpine"},
    "status": {
        "phase": "Succeeded",
        "completionTime": "2026-01-01T00:00:02Z",
        "attempts": [
            {
                "number": 1,
                "id": "a",
                "backend": "docker",
                "startedAt": "2026-01-01T00:00:01.000000Z",
                "finishedAt": "2026-01-01T00:00:02.000000Z",
                "reason": "Completed",
            }
        ],
    },
}


class Engine:
    """A backend whose attempts outlive the operator."""

    name = "docker"

    async def run(self, *args: Any, **more: Any) -> Any:
        raise AssertionError

    adopt = recover = run


@pytest.mark.parametrize("leadership", [None, Leadership(3, earlier_work_ends=float("inf"))])
async def test_a_task_that_has_ended_does_not_depend_on_the_run_store(
    tmp_path: Path, leadership: Leadership | None
) -> None:
    store = RunStore(tmp_path / "runs")
    (store.open("default", "u", "a").path / "outcome.json").write_text('{"reason": "of another version"}')
    runner = Runner({"docker": Engine()}, store, Redactor(), lambda key: None)
    turns = Queue(1, wake=lambda key, seconds: None)
    audit = AuditLog(tmp_path / "audit.jsonl", redactor=runner.redactor)
    task = ExecutionTask.parse(FINISHED)
    driver = TaskDriver(
        ExecutionStore("somebody", 0), runner, turns, OwnPolicies([]), Admission(), audit, leadership=leadership
    )
    try:
        assert await driver.step(StoredTask(task, Execution(task, Resolved({})))) is None
    finally:
        audit.close()
