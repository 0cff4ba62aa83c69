"""Tests steps of the driver of tasks that need no process."""

from __future__ import annotations

import datetime
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

from remit.agent.executions import Execution, ExecutionStore, OwnPolicies
from remit.api.executiontask import ExecutionTask
from remit.execution.admission import Admission
from remit.execution.queue import Queue
from remit.execution.resolved import Resolved
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.execution.taskdriver import TaskDriver
from remit.execution.taskstore import StoredTask
from remit.kube.leadership import Leadership
from remit.telemetry.audit import AuditLog
from remit.telemetry.redact import Redactor

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


START = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


@dataclass
class Time:
    """A machine's two clocks: one only advances, the other can also be set."""

    passed: float = 0.0
    set_by: float = 0.0

    def wall(self) -> datetime.datetime:
        return START + datetime.timedelta(seconds=self.passed + self.set_by)

    def boot(self) -> float:
        return 1000.0 + self.passed


@dataclass(frozen=True, slots=True)
class Kept(ExecutionStore):
    """Records the changes of tasks that depend on time."""

    deleted: list[str] = field(default_factory=list)

    async def delete(self, stored: StoredTask) -> None:
        self.deleted.append(stored.task.metadata.uid)


@dataclass
class Timed:
    driver: TaskDriver
    store: Kept
    time: Time

    async def step(self, task: ExecutionTask) -> float | None:
        return await self.driver.step(StoredTask(task, Execution(task, Resolved({}))))


@pytest.fixture
def timed(tmp_path: Path) -> Iterator[Timed]:
    runner = Runner({}, RunStore(tmp_path / "runs"), Redactor(), lambda key: None)
    audit = AuditLog(tmp_path / "audit.jsonl", redactor=runner.redactor)
    store, time, turns = Kept("somebody", 0), Time(), Queue(1, wake=lambda key, seconds: None)
    driver = TaskDriver(store, runner, turns, OwnPolicies([]), Admission(), audit, now=time.wall, boot=time.boot)
    yield Timed(driver, store, time)
    audit.close()


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_set_changes_no_time_to_live(timed: Timed, hours: int) -> None:
    task = ExecutionTask.parse({**FINISHED, "spec": {**FINISHED["spec"], "ttlSecondsAfterFinished": 60}})
    assert await timed.step(task) == pytest.approx(62)
    timed.time.passed, timed.time.set_by = 10, hours * 3600
    with structlog.testing.capture_logs() as logs:
        assert await timed.step(task) == pytest.approx(52)
        assert await timed.step(task) == pytest.approx(52)
    assert [entry["seconds"] for entry in logs] == [hours * 3600]
    assert timed.store.deleted == []
    timed.time.passed = 62
    await timed.step(task)
    assert timed.store.deleted == ["u"]


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_clock_that_is_set_changes_no_deadline_and_no_retry(timed: Timed, hours: int) -> None:
    backoff = {"initialSeconds": 300, "maxSeconds": 300}
    task = ExecutionTask.parse(
        {
            "metadata": FINISHED["metadata"],
            "spec": {"command": {"argv": ["true"]}, "deadlineSeconds": 100, "retry": {"backoff": backoff}},
            "status": {"phase": "Backoff", "nextRetryTime": "2026-01-01T00:00:50Z"},
        }
    )
    assert await timed.step(task) == pytest.approx(50)
    timed.time.passed, timed.time.set_by = 10, hours * 3600
    assert await timed.step(task) == pytest.approx(40)
    timed.time.passed = 100
    await timed.driver.step(StoredTask(task, execution := Execution(task, Resolved({}))))
    assert execution.task.status.phase == "TimedOut"


@pytest.mark.parametrize("hours", [-1, 1])
async def test_a_task_that_comes_after_the_clock_was_set_has_the_new_time(timed: Timed, hours: int) -> None:
    timed.time.set_by = hours * 3600
    end = timed.time.wall().strftime("%FT%TZ")
    task = ExecutionTask.parse(
        {
            **FINISHED,
            "spec": {**FINISHED["spec"], "ttlSecondsAfterFinished": 60},
            "status": {**FINISHED["status"], "completionTime": end},
        }
    )
    assert await timed.step(task) == pytest.approx(60)


async def test_nothing_is_kept_of_a_task_that_is_gone(timed: Timed) -> None:
    await timed.step(ExecutionTask.parse(FINISHED))
    timed.driver.deleted("default/t", "default", "u")
    assert timed.driver._clock._offsets == {}


async def test_which_job_the_running_attempt_is_is_written_to_status_once(
    timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = {"number": 1, "id": "u-1", "backend": "kubernetes", "startedAt": "2026-01-01T00:00:00.000000Z"}
    status = {"phase": "Running", "attemptCount": 1, "attempts": [attempt]}
    task = ExecutionTask.parse({**FINISHED, "spec": {**FINISHED["spec"], "backend": "kubernetes"}, "status": status})
    execution = Execution(task, Resolved({}))
    monkeypatch.setattr(timed.driver.runner, "running", lambda uid: True)
    for known in ("", "of-the-job", "of-the-job"):
        monkeypatch.setattr(timed.driver.runner, "job_uid", lambda uid, known=known: known)
        before = execution.task
        assert await timed.driver.step(StoredTask(before, execution)) is None
        assert execution.task.status.attempts[0].job_uid == known
    assert execution.task is before  # it is not written again
    assert execution.task.status.phase == "Running"
