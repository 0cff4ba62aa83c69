"""ExecutionTasks: looks at the newest form of each, and has the driver, or its schedule, take it one step on."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from remit.api.executiontask import ExecutionTask
from remit.api.phases import Phase
from remit.controllers import unreadable
from remit.controllers.policies import Policies
from remit.controllers.requester import Requester
from remit.controllers.runhistory import RunHistory
from remit.controllers.schedules import ScheduleReconciler
from remit.controllers.taskstore import ApiTaskStore
from remit.errors import InvalidInput
from remit.execution import progress
from remit.execution.admission import Admission
from remit.execution.conditions import NOT_READ
from remit.execution.disposable import is_disposable
from remit.execution.lifecycle import Finish
from remit.execution.queue import Queue, WaitReason
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.execution.taskdriver import TaskDriver
from remit.execution.taskstore import StatusConflict, StoredTask
from remit.kube.client import Kube, Object
from remit.kube.events import Recorder
from remit.kube.indexer import key_of
from remit.kube.leadership import Leadership
from remit.kube.reflector import Reflector
from remit.kube.status import Outdated, StatusWriter
from remit.sandbox.fencing import now as boot_time
from remit.telemetry.audit import AuditLog
from remit.telemetry.metrics import Metrics

if TYPE_CHECKING:
    from remit.telemetry.otlptraces import Tracer

log = structlog.get_logger(__name__)

ORPHAN_SECONDS = 24 * 3600
"""How long output and run records of a missing task are kept if its deletion was not observed, in seconds."""
_TASKS_PER_TURN = 100
"""Tasks that are read as the operator starts before others have a turn on the event loop."""


@dataclass
class TaskReconciler:
    """Reconciles tasks from their creation to their final status."""

    kube: Kube
    reflector: Reflector
    runner: Runner
    turns: Queue
    policies: Policies
    admission: Admission
    audit: AuditLog
    metrics: Metrics
    events: Recorder
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    boot: Callable[[], float] = boot_time
    requester: Callable[[Object], str] = field(default_factory=Requester)
    leadership: Leadership | None = None
    """None without leader election."""
    finished_task_ttl: int | None = None
    """Seconds after its end that a task which is disposable is deleted, where its spec does not say; None: never."""
    tracer: Tracer | None = None
    anomalies: bool = True
    """Whether a run is compared with those before that are like it."""
    _missing: set[str] = field(default_factory=set)
    """Uids of missing tasks that were reported."""
    writer: StatusWriter = field(init=False)
    _history: RunHistory | None = field(init=False)
    _driver: TaskDriver = field(init=False)
    _schedules: ScheduleReconciler = field(init=False)

    def __post_init__(self) -> None:
        self._history = RunHistory(self.reflector) if self.anomalies else None
        self.writer = StatusWriter(self.kube, self.reflector, self.metrics, "ExecutionTask")
        store = ApiTaskStore(
            self.kube,
            self.writer,
            self.policies,
            self.metrics,
            self.events,
            requested_by=self.requester,
            now=lambda: self.now(),
            tracer=self.tracer,
            history=self._history,
        )
        self._driver = TaskDriver(
            store,
            self.runner,
            self.turns,
            self.policies,
            self.admission,
            self.audit,
            now=lambda: self.now(),
            boot=self.boot,
            advice=_advice,
            leadership=self.leadership,
        )
        self._schedules = ScheduleReconciler(
            self.kube,
            self.reflector,
            self.metrics,
            self.events,
            lambda: self.now(),
            self.writer,
            compares=self.anomalies,
        )

    @property
    def stopping(self) -> bool:
        """Set once the operator goes: what ends is still written, and nothing more is started."""
        return self._driver.stopping

    @stopping.setter
    def stopping(self, stopping: bool) -> None:
        self._driver.stopping = stopping

    async def reconcile(self, key: str) -> float | None:
        """Takes one step for the task `key`. Returns the seconds until its next reconciliation, or None."""
        self._driver.leave_ended()
        obj = self.reflector.objects.get(key)
        if obj is None:
            self._driver.leave(key)
            return None
        try:
            stored = StoredTask(self._with_default_ttl(ExecutionTask.parse(obj), obj), obj)
        except InvalidInput as error:
            await self._refuse_unreadable(obj, error)
            return None
        task, phase = stored.task, stored.task.status.phase
        if task.spec.schedule is None or (phase and phase.final) or task.metadata.deletion_timestamp:
            return await self._driver.step(stored)
        with structlog.contextvars.bound_contextvars(task=key, uid=task.metadata.uid):
            try:
                return None if self.stopping else await self._by_the_clock(stored)
            except (Outdated, StatusConflict):
                return 0.0

    def _with_default_ttl(self, task: ExecutionTask, obj: Object) -> ExecutionTask:
        """Returns the task with the default TTL, if it has none and no client would create it again."""
        ttl, spec = self.finished_task_ttl, task.spec
        if ttl is None or spec.ttl_seconds_after_finished is not None or spec.schedule is not None:
            return task
        if not is_disposable(obj):
            return task
        return task.model_copy(update={"spec": spec.model_copy(update={"ttl_seconds_after_finished": ttl})})

    def deleted(self, obj: Object) -> None:
        """Called after the deletion of a task. Ends what runs of it, and removes what was kept of it."""
        metadata = obj["metadata"]
        self._driver.deleted(key_of(obj), metadata["namespace"], metadata["uid"])

    def vanished(self, obj: Object) -> None:
        """Called when the API server does not have the task any more and its deletion was not observed. Ends what runs
        of it. The server may have lost its state, so `sweep` decides about what was kept of the task."""
        self._driver.vanished(key_of(obj), obj["metadata"]["uid"])

    async def sweep(self) -> None:
        """Handles what is kept of missing tasks whose deletion was not observed.

        Their attempts are ended. What is kept is removed `ORPHAN_SECONDS` after a sweep first missed the task, and not
        before that was reported, because an API server that lost its state, or the wrong server, has none of the tasks
        either. A task is reported when the second sweep misses it, because its deletion event may still arrive.
        """
        store, tasks, told = self.runner.store, self.reflector, dict[str, int]()
        kept = await asyncio.to_thread(_kept, store)
        self._missing &= {uid for _, uid, _ in kept}
        for namespace, uid, seconds in kept:
            if tasks.namespaces and namespace not in tasks.namespaces:
                continue
            if uid in tasks.objects or self.runner.running(uid):
                self._missing.discard(uid)
                if seconds is not None:
                    store.unmark_missing(namespace, uid)
            elif seconds is None:
                # The run was removed meanwhile or cannot be written; the next sweep marks it.
                with contextlib.suppress(OSError):
                    store.mark_missing(namespace, uid)
                await self.runner.end_lost(namespace, uid)
            elif uid not in self._missing:
                self._missing.add(uid)
                told[namespace] = told.get(namespace, 0) + 1
                await self.runner.end_lost(namespace, uid)
            elif seconds >= ORPHAN_SECONDS:
                await self.runner.clear(namespace, uid)
            await asyncio.sleep(0)  # there may be thousands of objects
        for namespace, count in told.items():
            self._tell_missing(namespace, count)

    def _tell_missing(self, namespace: str, count: int) -> None:
        message = (
            f"the API server does not have {count} task(s) of namespace {namespace} any more, and nobody saw them"
            f" deleted; their output and run records in {self.runner.store.root / namespace} are removed"
            f" {ORPHAN_SECONDS // 3600} h after they were first missed, unless they are back by then; copy them before"
            " that if the API server lost its state"
        )
        log.warning("tasks are missing", namespace=namespace, tasks=count, message=message)
        self.events.record(_namespace(namespace), "Warning", "TasksMissing", message)

    def queued(self, reason: WaitReason) -> int:
        """How many tasks wait for `reason`."""
        return self._driver.waiting(reason)

    async def restore(self) -> None:
        """Take over from the operator before what the API server tells of it."""
        await self._driver.restore(self._readable())

    async def _readable(self) -> AsyncIterator[ExecutionTask]:
        for count, obj in enumerate(self.reflector.objects.list(), 1):
            if count % _TASKS_PER_TURN == 0:
                await asyncio.sleep(0)
            try:
                task = ExecutionTask.parse(obj)
            except InvalidInput:
                continue  # reconciliation reports the error in the task's status
            if self._history is not None:
                self._history.learn(obj, task.status)
            yield task

    async def _by_the_clock(self, stored: StoredTask) -> float | None:
        try:
            return await self._schedules.step(self._driver.admission.placed(stored.task), stored.source)
        except InvalidInput as error:
            finish = Finish(Phase.FAILED, "InvalidSchedule", "Invalid", str(error))
            return await self._driver.finish(stored, finish)

    async def _refuse_unreadable(self, obj: Object, error: InvalidInput) -> None:
        """The object passed the API server, and is still not one: another version of the CRDs is installed, or was when
        it was stored. One that another version has begun is left as it is: that may be at work on it, or come back."""
        phase = (obj.get("status") or {}).get("phase")
        if phase in {each for each in Phase if each.final}:
            return
        if phase is not None:
            shown = str(Phase.RUNNING if phase == Phase.RUNNING else Phase.PENDING)
            why = f"nothing is done about it: {error}; delete it, or run the version of Remit that made it"
            await unreadable.tell(self.writer, self.events, obj, shown, "Invalid", why, NOT_READ, self.now())
            return
        blank = ExecutionTask.parse({**obj, "spec": {"command": {"argv": ["-"]}}, "status": {}})
        finish = Finish(Phase.FAILED, "Invalid", "Invalid", f"{error}; install the CRDs of this version of Remit")
        status = progress.finished(blank, finish, self.now()).model_copy(update={"operation": ""})
        await self.writer.write(obj, status)
        self.events.record(obj, "Warning", "Invalid", finish.message)


def _kept(store: RunStore) -> list[tuple[str, str, float | None]]:
    """Namespace and uid of each task of which something is kept, and for how many seconds it is missing."""
    return [(namespace, uid, store.missing_for(namespace, uid)) for namespace, uid in store.tasks()]


def _namespace(name: str) -> Object:
    """The object of an Event about a namespace as a whole."""
    metadata = {"name": name, "namespace": name, "uid": "", "resourceVersion": ""}
    return {"apiVersion": "v1", "kind": "Namespace", "metadata": metadata}


def _advice(task: ExecutionTask) -> str:
    namespace, name = task.metadata.namespace, task.metadata.name
    return f"; a policy that allows it: remit policy suggest -n {namespace} --task {name}"
