"""Tests one driver with two stores: a task on an API server and in an agent gets the same status and the same audit
trail."""

from __future__ import annotations

import asyncio
import datetime
import json
import re
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import orjson
import pytest

from remit.agent.executions import Execution, ExecutionStore, OwnPolicies
from remit.agent.inputs import resolved_of
from remit.api.commandpolicy import CommandPolicy
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import ExecutionTaskStatus
from remit.backends.process import ProcessBackend
from remit.controllers.intake import reflectors
from remit.controllers.policies import Policies
from remit.controllers.tasks import TaskReconciler
from remit.errors import AuditUnavailable, InvalidInput
from remit.execution.admission import Admission, default_limits
from remit.execution.queue import Queue
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.execution.taskdriver import TaskDriver
from remit.execution.taskstore import StoredTask
from remit.execution.waiting import QUEUED_IS_WORTH_A_WRITE
from remit.kube.client import POLICIES, TASKS, Kube
from remit.kube.events import Recorder
from remit.kube.status import as_wire
from remit.kube.workqueue import WorkQueue
from remit.policy.compile import compile_policy
from remit.sandbox import probe_host
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor

from .conftest import PATIENCE, World

POLICY = {
    "metadata": {"name": "rules", "namespace": "default"},
    "spec": {
        "commands": {"allow": [{"executable": name} for name in ("sh", "no-such-program")]},
        "environment": {"allow": ["TOKEN"]},
    },
}


@dataclass
class Stage:
    """A task and what runs it. `look` is one step of its driver."""

    root: Path
    spec: dict[str, Any]
    ahead: datetime.timedelta = datetime.timedelta()
    audit_fails: int = 0
    """How many of the next records cannot be written."""
    cancels_while_deciding: bool = False
    """Whether the user cancels when a decision is in the audit trail and not yet in status."""
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def __post_init__(self) -> None:
        host, redactor = probe_host(), Redactor()
        self.audit = AuditLog(self.root / "audit.jsonl", redactor=redactor)
        append = self.audit.append_async

        async def perhaps(event: AuditEvent) -> Any:
            if self.audit_fails:
                self.audit_fails -= 1
                raise AuditUnavailable("the disk is full")
            anchor = await append(event)
            if self.cancels_while_deciding:
                self.cancels_while_deciding = False
                await self.cancel()
            return anchor

        self.audit.append_async = perhaps  # type: ignore[method-assign]
        backend = ProcessBackend(host)
        self.runner = Runner({"process": backend}, RunStore(self.root / "runs"), redactor, lambda _: self.changed.set())
        self.turns = Queue(1, wake=lambda key, seconds: self.changed.set())
        self.admission = Admission(defaults=default_limits(host), memory=host.memory)

    def now(self) -> datetime.datetime:
        return datetime.datetime.now(datetime.UTC) + self.ahead

    def boot(self) -> float:
        return time.clock_gettime(time.CLOCK_BOOTTIME) + self.ahead.total_seconds()

    async def open(self) -> None:
        """Creates the task, and the policy that applies to it."""

    async def look(self) -> float | None:
        raise NotImplementedError

    async def status(self) -> ExecutionTaskStatus:
        raise NotImplementedError

    async def cancel(self) -> None:
        raise NotImplementedError

    async def until(self, *phases: str) -> ExecutionTaskStatus:
        """Takes steps as a work queue would, until the task is in one of `phases`."""
        async with asyncio.timeout(PATIENCE):
            while True:
                self.changed.clear()
                seconds = await self.look()
                status = await self.status()
                if status.phase in phases:
                    return status
                waiting = asyncio.ensure_future(self.changed.wait())
                await asyncio.wait({waiting}, timeout=seconds)
                waiting.cancel()

    async def begun(self) -> None:
        """Waits until the task's program has written output."""
        await self.until("Running")
        async with asyncio.timeout(PATIENCE):
            while not any(path.stat().st_size for path in (self.root / "runs").rglob("stdout.head")):
                await asyncio.sleep(0.02)

    async def ended(self) -> ExecutionTaskStatus:
        return await self.until("Succeeded", "Failed", "TimedOut", "Cancelled", "Denied")

    def trail(self) -> list[dict[str, Any]]:
        return [orjson.loads(line) for line in (self.root / "audit.jsonl").read_bytes().splitlines()]

    async def close(self) -> None:
        await self.runner.shutdown()
        self.audit.close()


@dataclass
class ApiServer(Stage):
    """A task on an API server, as an operator runs it."""

    kube: Kube | None = None

    async def open(self) -> None:
        assert self.kube is not None
        metrics, known = Metrics(), reflectors((), "remit-system")
        self.tasks = known[TASKS]
        self.events = Recorder(self.kube, metrics)
        policies = Policies(
            self.kube,
            known[POLICIES],
            self.tasks,
            WorkQueue("commandpolicy", metrics),
            metrics,
            self.events,
            "remit-system",
        )
        self.reconciler = TaskReconciler(
            self.kube,
            self.tasks,
            self.runner,
            self.turns,
            policies,
            self.admission,
            self.audit,
            metrics,
            self.events,
            now=self.now,
            boot=self.boot,
            requester=lambda obj: "somebody",
        )
        kinds = {"apiVersion": "remit.dev/v1alpha1", "kind": "CommandPolicy"}
        await self.kube.create(POLICIES, "default", {**kinds, **POLICY})
        await policies.fresh()
        body = {**kinds, "kind": "ExecutionTask", "metadata": {"name": "t"}, "spec": self.spec}
        await self.kube.create(TASKS, "default", body)

    async def look(self) -> float | None:
        assert self.kube is not None
        self.tasks.observe(await self.kube.get(TASKS, "default", "t"))  # as the watch does
        return await self.reconciler.reconcile("default/t")

    async def status(self) -> ExecutionTaskStatus:
        assert self.kube is not None
        return ExecutionTask.parse(await self.kube.get(TASKS, "default", "t")).status

    async def cancel(self) -> None:
        assert self.kube is not None
        await self.kube.patch(TASKS, "default", "t", {"spec": {"cancel": True}})

    async def close(self) -> None:
        await super().close()
        await self.events.drain()


@dataclass
class Agent(Stage):
    """A task in an agent, as the Python API runs it, except that it waits for the audit trail like a task of an
    operator."""

    async def open(self) -> None:
        metadata = {"name": "t", "namespace": "default", "uid": "u", "generation": 1, "creationTimestamp": self.now()}
        task = ExecutionTask.parse({"metadata": metadata, "spec": self.spec})
        self.execution = Execution(task, resolved_of(task, {}))
        self.driver = TaskDriver(
            ExecutionStore("somebody", task.spec.output.tail_bytes),
            self.runner,
            self.turns,
            OwnPolicies([compile_policy(CommandPolicy.parse(POLICY))]),
            self.admission,
            self.audit,
            now=self.now,
            boot=self.boot,
        )

    async def look(self) -> float | None:
        execution = self.execution
        return await self.driver.step(StoredTask(execution.task, execution, execution.resolved.env))

    async def status(self) -> ExecutionTaskStatus:
        return self.execution.task.status

    async def cancel(self) -> None:
        self.execution.cancel()


Scenario = Callable[[Stage], Awaitable[ExecutionTaskStatus]]


async def plainly(stage: Stage) -> ExecutionTaskStatus:
    return await stage.ended()


async def cancelled_while_it_runs(stage: Stage) -> ExecutionTaskStatus:
    await stage.begun()
    await stage.cancel()
    return await stage.ended()


async def cancelled_while_it_is_decided(stage: Stage) -> ExecutionTaskStatus:
    stage.cancels_while_deciding = True
    return await stage.ended()


async def cancelled_in_backoff(stage: Stage) -> ExecutionTaskStatus:
    await stage.until("Backoff")
    await stage.cancel()
    return await stage.ended()


async def with_no_trail_at_first(stage: Stage) -> ExecutionTaskStatus:
    stage.audit_fails = 1
    status = await stage.until("Pending")
    assert status.conditions[0].reason == "AuditUnavailable"
    assert status.message.endswith("the disk is full")
    assert not status.attempts
    assert stage.trail() == []
    return await stage.ended()


async def with_no_trail_at_its_end(stage: Stage) -> ExecutionTaskStatus:
    await stage.until("Running")
    stage.audit_fails = 1
    with pytest.raises(AuditUnavailable):  # a work queue would try again
        await stage.ended()
    assert (await stage.status()).phase == "Running"
    return await stage.ended()


async def interrupted(stage: Stage) -> ExecutionTaskStatus:
    await stage.begun()
    await stage.runner.shutdown()
    return await stage.ended()


async def in_the_queue(stage: Stage) -> ExecutionTaskStatus:
    """Another task uses the only capacity; after a while, status reports the wait."""
    assert stage.turns.enter("default/other", "default", (), since=0.0, now=stage.now().timestamp()) is None
    await stage.look()
    assert (await stage.status()).phase in {None, "Pending"}  # the default of the CRD
    stage.ahead += datetime.timedelta(seconds=QUEUED_IS_WORTH_A_WRITE)
    status = await stage.until("Queued")
    assert status.queue is not None
    assert (status.queue.position, status.queue.reason) == (1, "OperatorCapacity")
    return status


async def its_turn_comes(stage: Stage) -> ExecutionTaskStatus:
    await in_the_queue(stage)
    stage.turns.leave("default/other", stage.now().timestamp())
    return await stage.ended()


async def its_deadline_comes_first(stage: Stage) -> ExecutionTaskStatus:
    await in_the_queue(stage)
    stage.ahead += datetime.timedelta(hours=1)
    return await stage.ended()


async def with_no_run_store(stage: Stage) -> ExecutionTaskStatus:
    root = stage.runner.store.root
    root.rmdir()
    root.touch()  # a file, so that no folder can be created
    return await stage.ended()


async def changed_while_its_end_is_recorded(stage: Stage) -> ExecutionTaskStatus:
    await stage.until("Running")
    stage.cancels_while_deciding = True
    return await stage.ended()


async def changed_with_no_run_store(stage: Stage) -> ExecutionTaskStatus:
    root = stage.runner.store.root
    root.rmdir()
    root.touch()
    return await changed_while_its_end_is_recorded(stage)


def sh(script: str, **spec: Any) -> dict[str, Any]:
    return {"command": {"argv": ["sh", "-c", script]}, **spec}


SLEEP = sh("echo begun; exec sleep 600")
RM = {"command": {"argv": ["rm", "-rf", "/"]}}
ONCE_MORE = {"retry": {"maxRetries": 1, "backoff": {"initialSeconds": 0, "jitter": 0}}}
LATER = {"retry": {"maxRetries": 1, "backoff": {"initialSeconds": 600, "jitter": 0}}}
SCENARIOS: dict[str, tuple[dict[str, Any], Scenario, str, list[str]]] = {
    "success": (sh("echo hi"), plainly, "Completed", ["Allowed", "Completed"]),
    "exit code": (sh("echo out; exit 3"), plainly, "ExitCode", ["Allowed", "ExitCode"]),
    "retry": (
        sh('test "$REMIT_ATTEMPT" = 2', **ONCE_MORE),
        plainly,
        "Completed",
        ["Allowed", "ExitCode", "Allowed", "Completed"],
    ),
    "timeout": ({**SLEEP, "timeoutSeconds": 1}, plainly, "Timeout", ["Allowed", "Timeout"]),
    "cancel": (SLEEP, cancelled_while_it_runs, "Cancelled", ["Allowed", "Cancelled"]),
    "cancel in backoff": (sh("exit 1", **LATER), cancelled_in_backoff, "Cancelled", ["Allowed", "ExitCode"]),
    "cancel before it starts": (SLEEP, cancelled_while_it_is_decided, "Cancelled", ["Allowed"]),
    "cancel before it is denied": (RM, cancelled_while_it_is_decided, "Cancelled", ["Denied"]),
    "denied": (RM, plainly, "NotAllowed", ["Denied"]),
    "no such program": ({"command": {"argv": ["no-such-program"]}}, plainly, "ExecutableNotFound", ["Denied"]),
    "no trail at first": (sh("echo hi"), with_no_trail_at_first, "Completed", ["Allowed", "Completed"]),
    "no trail at its end": (sh("echo hi"), with_no_trail_at_its_end, "Completed", ["Allowed", "Completed"]),
    "a denial and no trail": (RM, with_no_trail_at_first, "NotAllowed", ["Denied"]),
    "interrupted": (SLEEP, interrupted, "Interrupted", ["Allowed", "Interrupted"]),
    "its turn comes": (sh("echo hi"), its_turn_comes, "Completed", ["Allowed", "Completed"]),
    "deadline": (sh("echo hi", deadlineSeconds=60), its_deadline_comes_first, "DeadlineExceeded", []),
    "no run store": (sh("echo hi"), with_no_run_store, "BackendError", ["Allowed", "BackendError"]),
    "cancel after its end": (sh("echo hi"), changed_while_its_end_is_recorded, "Completed", ["Allowed", "Completed"]),
    "cancel after its end, and no run store": (
        sh("echo hi"),
        changed_with_no_run_store,
        "Cancelled",
        ["Allowed", "BackendError"],
    ),
}
"""The spec, the events, the final reason, and the verdicts in the audit trail."""


def without_advice(status: dict[str, Any]) -> dict[str, Any]:
    """Removes hints on `remit policy suggest`, which an agent cannot give."""
    advice = r'; a policy that allows it: remit policy suggest[^"]*'
    found: dict[str, Any] = json.loads(re.sub(advice, "", json.dumps(status)))
    return found


@pytest.mark.parametrize("name", SCENARIOS)
async def test_both_stores_tell_the_same(world: World, tmp_path: Path, name: str) -> None:
    spec, play, reason, verdicts = SCENARIOS[name]
    told: list[tuple[Any, Any]] = []
    for kind, rest in ((ApiServer, {"kube": world.kube}), (Agent, {})):
        root = tmp_path / kind.__name__
        root.mkdir()
        stage = kind(root, spec, **rest)
        try:
            await stage.open()
            status = await play(stage)
        finally:
            await stage.close()
        trail = stage.trail()
        assert status.conditions[0].reason == reason
        assert [record["verdict"] for record in trail] == verdicts
        told.append((comparable(without_advice(as_wire(status))), comparable(trail)))
    assert told[0] == told[1]


async def test_an_agent_refuses_at_once_what_a_task_of_an_api_server_waits_for(world: World, tmp_path: Path) -> None:
    reference = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "nosuch", "key": "token"}}}
    spec = sh("echo hi", env=[reference], deadlineSeconds=60)
    stage = ApiServer(tmp_path, spec, kube=world.kube)
    try:
        await stage.open()
        assert (await stage.until("Pending")).conditions[0].reason == "WaitingForReference"
        stage.ahead += datetime.timedelta(minutes=1)
        assert (await stage.ended()).conditions[0].reason == "DeadlineExceeded"
        assert stage.trail() == []
    finally:
        await stage.close()
    with pytest.raises(InvalidInput, match="an agent has none"):
        resolved_of(ExecutionTask.parse({"metadata": {"name": "t"}, "spec": spec}), {})


CHANGEABLE = {
    "id",
    "attempt",
    "uid",
    "ref",
    "time",
    "duration",
    "usage",
    "hash",
    "prev",
    "output",
    "seq",
    "observedGeneration",
}


def comparable(told: Any) -> Any:
    """Removes names that are new each time, times, and resource usage."""
    if isinstance(told, dict):
        return {key: comparable(value) for key, value in told.items() if not _changes(key, value)}
    return [comparable(one) for one in told] if isinstance(told, list) else told


def _changes(key: str, value: Any) -> bool:
    moment = key.endswith(("Time", "At", "deadline")) or key == "queuedAt"
    return moment or (key in CHANGEABLE and not isinstance(value, dict | list)) or key == "usage"
