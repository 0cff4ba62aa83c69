"""The operator: everything put together, started in order, and stopped without losing anything."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import secrets
from collections.abc import AsyncIterator, Coroutine, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import structlog

from remit import __version__
from remit.backends import Backend, ProcessBackend
from remit.backends.docker import OFF, DockerBackend
from remit.backends.docker import Engine as DockerEngine
from remit.backends.egress import Books, Doors
from remit.errors import ApiError, RemitError
from remit.execution.admission import Admission, default_limits
from remit.execution.queue import Queue, WaitReason
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.operations import performers
from remit.reconcilers import audithead
from remit.reconcilers.access import Access
from remit.reconcilers.cache import Cache
from remit.reconcilers.deployments import DeploymentReconciler
from remit.reconcilers.events import Recorder
from remit.reconcilers.intake import WATCHED, Intake
from remit.reconcilers.kube import Kube
from remit.reconcilers.lease import Leader
from remit.reconcilers.policies import Policies
from remit.reconcilers.reporting import Reports
from remit.reconcilers.requester import Requester
from remit.reconcilers.settings import Settings
from remit.reconcilers.tasks import TaskReconciler
from remit.reconcilers.values import Source
from remit.reconcilers.watching import Watcher
from remit.reconcilers.workqueue import WorkQueue
from remit.release.judging import Judge
from remit.release.places import Places
from remit.sandbox import probe_host
from remit.telemetry import AuditLog, Checks, HealthServer, Metrics, Redactor
from remit.telemetry.ownership import stranger

log = structlog.get_logger(__name__)

_RELEASES_AT_ONCE = 4


@contextlib.asynccontextmanager
async def running_operator(access: Access, settings: Settings, redactor: Redactor) -> AsyncIterator[Operator]:
    """An operator at work; leaving the block stops it. Raises `RemitError` when it cannot start."""
    async with contextlib.AsyncExitStack() as stack:
        identity = stack.enter_context(_locked(settings.state_dir))
        kube = await stack.enter_async_context(Kube(access))
        operator = Operator.build(kube, settings, redactor)
        stack.callback(audithead.tell, operator.audit, "stop")
        stack.callback(operator.audit.close)
        await stack.enter_async_context(operator.health)  # also of one that waits: it is well, and not ready
        await _wait_for_kinds(kube, next(iter(settings.namespaces), None))
        noted = partial(audithead.noted, operator.audit)
        leader = Leader(kube, settings.operator_namespace, identity, annotations=noted)
        if settings.leader_election:
            await leader.acquire()
            stack.push_async_callback(leader.release)
        await operator.start()
        try:
            if settings.leader_election:
                operator.spawn(leader.keep(), "lease")
            yield operator
        finally:
            await operator.stop()


@dataclass
class Operator:
    """The parts. `failed` is done when one of them broke down for good."""

    settings: Settings
    kube: Kube
    queue: WorkQueue
    watcher: Watcher
    intake: Intake
    runner: Runner
    tasks: TaskReconciler
    policies: Policies
    deployments: DeploymentReconciler
    releases: WorkQueue
    """Of Deployments; `queue` is of tasks."""
    audit: AuditLog
    events: Recorder
    metrics: Metrics
    health: HealthServer
    checks: Checks
    failed: asyncio.Future[None]
    _background: list[asyncio.Task[Any]]

    @classmethod
    def build(cls, kube: Kube, settings: Settings, redactor: Redactor) -> Operator:
        host = probe_host()
        metrics = Metrics(__version__)
        checks = Checks()
        cache = Cache()
        events = Recorder(kube, metrics)
        audit = AuditLog(
            settings.state_dir / "audit" / "audit.jsonl",
            redactor=redactor,
            observer=audithead.Publishing(metrics),
        )
        queue = WorkQueue(lambda key: operator.reconcile(key), workers=settings.workers)
        engine = None if settings.docker_host == OFF else DockerEngine(settings.docker_host)
        readable = [str(path) for path in settings.read_only_paths]
        performing = performers(settings.state_dir, host, read_only_paths=readable, engine=engine)
        doors = Doors()
        backends: dict[str, Backend] = {"process": ProcessBackend(host, read_only_paths=readable, doors=doors)}
        if engine:
            backends["docker"] = DockerBackend(engine, doors, Books(settings.state_dir / "egress"))
        runner = Runner(
            backends=backends,
            store=RunStore(settings.state_dir / "runs"),
            redactor=redactor,
            on_ended=queue.add,
            performers=performing,
        )
        turns = Queue(settings.max_concurrent, wake=queue.add_after, memory=host.memory.total)
        policies = Policies(kube, cache, metrics, events, settings.operator_namespace, settings.namespaces)
        admission = Admission(
            settings.search_path,
            default_limits(host),
            frozenset(performing),
            frozenset(backends),
            memory=host.memory,
        )
        releases = WorkQueue(lambda key: operator.release(key), workers=_RELEASES_AT_ONCE)
        requester = Requester(settings.trust_requested_by, settings.only_user)
        judge = Judge(admission, policies.current, settings.docker_host)
        places = Places(
            settings.state_dir,
            host,
            kube,
            lambda namespace, name: Source(kube, namespace).data(True, name, optional=False),
            readable,
            judge,
            releases.add,
        )
        reports = Reports(settings.state_dir, events, releases.add)
        tasks = TaskReconciler(
            kube=kube,
            cache=cache,
            runner=runner,
            turns=turns,
            policies=policies,
            admission=admission,
            audit=audit,
            metrics=metrics,
            events=events,
            requester=requester,
            on_finished=lambda task: operator.intake.task_finished(task),
        )
        operator: Operator
        # Ceilings live in the operator's own namespace, whether or not its tasks are served.
        namespaces = tuple(sorted({*settings.namespaces, settings.operator_namespace})) if settings.namespaces else ()
        intake = Intake(kube, cache, queue, releases, tasks, policies, settings.namespaces, settings.resync_seconds)
        watcher = Watcher(kube.access, WATCHED, intake.event, namespaces=namespaces)
        operator = cls(
            settings=settings,
            kube=kube,
            queue=queue,
            watcher=watcher,
            intake=intake,
            runner=runner,
            tasks=tasks,
            policies=policies,
            deployments=DeploymentReconciler(
                kube, cache, metrics, events, places, judge.problem, queue.add, audit, requester, reports
            ),
            releases=releases,
            audit=audit,
            events=events,
            metrics=metrics,
            health=HealthServer(metrics, checks, host=settings.health_host, port=settings.health_port),
            checks=checks,
            failed=asyncio.get_running_loop().create_future(),
            _background=[],
        )
        queue.on_error = operator.on_error
        releases.on_error = operator.on_release_error
        metrics.tasks_running.labels("process").set_function(lambda: len(runner))
        for reason in WaitReason:
            metrics.tasks_queued.labels(reason).set_function(partial(tasks.queued, reason))
        for operation, performer in performing.items():
            if performer.breaker is not None:
                metrics.circuits_open.labels(operation).set_function(performer.breaker.open_count)
                metrics.circuit_trips.labels(operation).set_function(performer.breaker.trip_count)
        metrics.workqueue_depth.labels("ExecutionTask").set_function(lambda: len(queue))
        metrics.workqueue_depth.labels("Deployment").set_function(lambda: len(releases))
        metrics.audit_head.set_function(lambda: audit.head.seq)
        checks.ready["watching"] = lambda: None if watcher.ready.is_set() else "the watches are not up"
        checks.ready["audit"] = audit.check
        return operator

    async def start(self) -> None:
        """Know the world first, then watch it, then work."""
        audithead.tell(self.audit, "start")
        self.spawn(audithead.keep_telling(self.audit), "audit head")
        await self.intake.resync()
        self.tasks.restore()
        self.watcher.start()
        self.spawn(self.queue.run(), "work queue")
        self.spawn(self.releases.run(), "releases")
        self.spawn(self.policies.keep_status(), "policy status")
        self.spawn(self.intake.keep_resyncing(), "resync")

    async def stop(self) -> None:
        """Take nothing new, end what runs, write what became of it."""
        self.tasks.stopping = True
        await self.watcher.stop()
        await self.runner.shutdown()
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(10):
                await self.queue.drain()
        for task in (going := list(self._background)):
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        await self.runner.close()
        await self.deployments.reports.close()
        await self.deployments.places.close()
        await self.policies.write_status()
        await self.events.drain()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` beside the rest; if it ever fails, so has the operator."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_background_end)
        self._background.append(task)

    def _on_background_end(self, task: asyncio.Task[Any]) -> None:
        self._background.remove(task)
        if not task.cancelled() and (error := task.exception()) is not None and not self.failed.done():
            log.error("the operator cannot go on", part=task.get_name(), error=str(error))
            self.failed.set_exception(error)

    async def reconcile(self, key: str) -> float | None:
        """One look at a task, timed."""
        with self.metrics.reconcile_duration.labels("ExecutionTask").time():
            return await self.tasks.reconcile(key)

    async def release(self, key: str) -> float | None:
        """One look at a Deployment, timed."""
        with self.metrics.reconcile_duration.labels("Deployment").time():
            return await self.deployments.reconcile(key)

    def on_error(self, key: str, error: Exception, kind: str = "ExecutionTask") -> None:
        self.metrics.reconcile_errors.labels(kind).inc()
        if isinstance(error, RemitError):
            log.warning("reconciling failed and is tried again", kind=kind, key=key, error=str(error))
        else:
            log.error("reconciling failed and is tried again", kind=kind, key=key, exc_info=error)

    def on_release_error(self, key: str, error: Exception) -> None:
        self.on_error(key, error, "Deployment")


@contextlib.contextmanager
def _locked(state_dir: Path) -> Iterator[str]:
    """The state directory, ours alone. Gives this operator's name, which stays the same over restarts."""
    state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    if wrong := stranger(state_dir):
        raise RemitError(f"the state directory {wrong}")
    descriptor = os.open(state_dir / "operator.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RemitError(
                f"another operator works in {state_dir}; stop it, or give this one its own --state-dir"
            ) from None
        name = os.read(descriptor, 256).decode()
        if not name:
            name = f"{os.uname().nodename}-{secrets.token_hex(4)}"
            os.write(descriptor, name.encode())
            os.fsync(descriptor)
        yield name
    finally:
        os.close(descriptor)


async def _wait_for_kinds(kube: Kube, namespace: str | None) -> None:
    """Wait until the server serves our kinds: their CRDs may be applied at this very moment. An operator that serves
    some namespaces may list only there."""
    for attempt in range(60):
        try:
            for resource in WATCHED:
                await kube.request("GET", resource.path(namespace), params={"limit": "1"})
        except ApiError as error:
            if error.status not in {404, 503}:
                raise
            if attempt == 0:
                log.info("waiting for Remit's CRDs", reason=str(error))
            await asyncio.sleep(0.5)
        else:
            return
    raise RemitError("Remit's CRDs are not installed; apply them with 'remit crds | kubectl apply -f -'")
