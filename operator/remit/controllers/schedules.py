"""Scheduled tasks: children created when they are due, and cleared away when they are old."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass

import structlog

from remit.api.controllerref import controller_of, is_controlled_by
from remit.api.executiontask import ExecutionTask
from remit.api.executiontaskstatus import RecentRun
from remit.api.group import API_VERSION
from remit.errors import ApiError, InvalidInput
from remit.execution import anomalies, cron, progress, schedule
from remit.execution.schedule import Replace, Skip, Start, Wait
from remit.kube.client import TASKS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.indexer import CONTROLLER
from remit.kube.reflector import Reflector
from remit.kube.status import StatusWriter
from remit.telemetry.metrics import Metrics

log = structlog.get_logger(__name__)


def parent_key(obj: Object) -> str | None:
    """The key of the scheduled task that `obj` names as its controller, if it does."""
    name = controller_of(obj, API_VERSION, "ExecutionTask")
    return None if name is None else f"{obj['metadata']['namespace']}/{name}"


@dataclass
class ScheduleReconciler:
    """Takes one scheduled task one step on."""

    kube: Kube
    reflector: Reflector
    metrics: Metrics
    events: Recorder
    now: Callable[[], datetime.datetime]
    writer: StatusWriter
    compares: bool = True
    """Whether runs are compared with those before them."""

    async def step(self, task: ExecutionTask, obj: Object) -> float | None:
        """Gives seconds until the next tick, or None. Raises `InvalidInput` for a schedule that cannot be read."""
        assert task.spec.schedule is not None  # noqa: S101  # by the caller's choice
        cron.check(task.spec.schedule)
        now, children = self.now(), self._children(obj)
        active = [child for child in children if child.status.phase is None or not child.status.phase.final]
        if task.spec.cancel:
            return await self._end(task, obj, active)
        turn = schedule.turn(task, [child.metadata.name for child in active], now)
        last, started = task.status.last_schedule_time, [child.metadata.name for child in active]
        if turn.set_back:
            last = now
            self.events.record(obj, "Warning", "ClockSetBack", turn.set_back)
            log.warning("the clock was set back", schedule=task.key, told=turn.set_back)
        match turn.action:
            case Start(tick=tick):
                last = tick
                if (name := await self._start(obj, tick)) is not None:
                    started.append(name)
            case Skip(tick=tick, why=why):
                last = tick
                self.events.record(obj, "Warning", "RunSkipped", why)
            case Replace():
                await self._cancel(active)
            case Wait():
                pass
        recent = _recent(task, children) if self.compares else []
        status = progress.scheduled(task, now, last=last, upcoming=turn.next_tick, active=started, recent=recent)
        await self.writer.write(obj, status)
        for child in schedule.surplus(children, task.spec.schedule):
            await self._delete(child)
        return None if turn.next_tick is None else max(0.0, (turn.next_tick - now).total_seconds())

    def _children(self, parent: Object) -> list[ExecutionTask]:
        found = []
        for obj in self.reflector.objects.by_index(CONTROLLER, parent["metadata"]["uid"]):
            if is_controlled_by(obj, parent):
                try:
                    found.append(ExecutionTask.parse(obj))
                except InvalidInput:
                    continue  # an object of another version; its own reconciliation reports that
        return sorted(found, key=lambda child: child.metadata.name)

    async def _start(self, obj: Object, tick: datetime.datetime) -> str | None:
        """Create the child for `tick`; it may be there already, from before the operator was killed."""
        child = schedule.child(obj, tick)
        name, namespace = child["metadata"]["name"], obj["metadata"]["namespace"]
        try:
            created = await self.kube.create(TASKS, namespace, child)
        except ApiError as error:
            if error.reason != "AlreadyExists":
                if error.retryable:
                    raise
                self.events.record(obj, "Warning", "RunRefused", f"{name} cannot be created: {error}")
                return None
            there = await self.kube.get(TASKS, namespace, name)
            if why := schedule.mismatch(there, obj, tick):
                message = f"the run for {tick:%FT%TZ} was skipped: there is a task {name} already, and {why}; delete it"
                self.events.record(obj, "Warning", "RunSkipped", message)
                return None
            return str(name)
        self.metrics.api_writes.labels("create", "ExecutionTask").inc()
        self.reflector.observe(created)
        self.events.record(obj, "Normal", "RunStarted", f"created {name}")
        return str(name)

    async def _end(self, task: ExecutionTask, obj: Object, active: list[ExecutionTask]) -> float | None:
        """Cancelled: no further runs, and the schedule ends when its last run has. Gives seconds until it is to be
        deleted, or None."""
        await self._cancel(active)
        if active:
            return None
        await self.writer.write(obj, progress.finished(task, schedule.CANCELLED, self.now()))
        return task.spec.ttl_seconds_after_finished

    async def _cancel(self, children: list[ExecutionTask]) -> None:
        for child in children:
            if not child.spec.cancel:
                metadata = child.metadata
                body = {"metadata": {"uid": metadata.uid}, "spec": {"cancel": True}}
                await self.kube.patch(TASKS, metadata.namespace, metadata.name, body)
                self.metrics.api_writes.labels("patch", "ExecutionTask").inc()

    async def _delete(self, child: ExecutionTask) -> None:
        metadata = child.metadata
        await self.kube.discard(TASKS, metadata.namespace, metadata.name, uid=metadata.uid)
        self.metrics.api_writes.labels("delete", "ExecutionTask").inc()


def _recent(task: ExecutionTask, children: list[ExecutionTask]) -> list[RecentRun]:
    """The usage of recent runs. It is kept here, as they are deleted long before there are enough of them."""
    ended = (anomalies.run_of(child.metadata.name, child.status) for child in children)
    return anomalies.latest(task.status.recent_runs, (run for run in ended if run is not None))
