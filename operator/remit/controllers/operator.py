"""The operator: everything put together, started in order, and stopped without losing anything."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import AsyncIterator, Callable, Coroutine, Iterable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

import structlog

from remit import __version__
from remit.api.endpoint import Resource
from remit.api.group import API_VERSION
from remit.backends.base import Backend, TaskReference
from remit.backends.docker.backend import DockerBackend
from remit.backends.docker.engine import OFF
from remit.backends.docker.engine import Engine as DockerEngine
from remit.backends.docker.folders import NOBODY, Staging
from remit.backends.egress.listeners import EgressListeners
from remit.backends.egress.usagestore import UsageStore
from remit.backends.kubernetes.backend import KubernetesBackend
from remit.backends.kubernetes.launcher import Launcher
from remit.backends.process import ProcessBackend
from remit.controllers import audithead, gauges, notifying
from remit.controllers.controller import Controller
from remit.controllers.deployments import DeploymentReconciler
from remit.controllers.intake import Intake, reflectors
from remit.controllers.placing import BESIDE_THE_OPERATOR, backends
from remit.controllers.policies import Policies
from remit.controllers.reporting import Reports
from remit.controllers.requester import Requester
from remit.controllers.settings import Settings
from remit.controllers.statedir import holder_identity, locked_in_time
from remit.controllers.table import controllers
from remit.controllers.tasks import TaskReconciler
from remit.controllers.values import Source
from remit.controllers.watching import Watcher
from remit.controllers.workspaceclaims import keep_pruning as keep_pruning_claims
from remit.errors import ApiError, LeaseLost, RemitError
from remit.execution.admission import Admission, default_limits
from remit.execution.artifacts.opening import check, open_store
from remit.execution.artifacts.s3.location import write_down
from remit.execution.artifacts.store import StoreUnavailable
from remit.execution.folders import Folders, keep_pruning
from remit.execution.pruning import Pruner
from remit.execution.queue import Queue
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.execution.workspaces import WorkspaceStore
from remit.kube.access import Access
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.leadership import Leadership
from remit.kube.lease import LeaderElector
from remit.kube.reflector import Reflector
from remit.kube.workqueue import WorkQueue
from remit.notifications.notifier import Notifier
from remit.operations import executors, load_drivers
from remit.policy.request import WITH_IMAGES, Installation
from remit.privatefiles import private_directory
from remit.release.judging import Judge
from remit.release.places import Places
from remit.sandbox import end_work, extend_deadline, fence, probe_host
from remit.stateformat import check_state_format
from remit.telemetry import otlp
from remit.telemetry.audit import AuditLog
from remit.telemetry.health import Checks, HealthServer
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor
from remit.userpaths import default_state_dir

if TYPE_CHECKING:
    from remit.telemetry.otlptraces import Tracer

log = structlog.get_logger(__name__)

_LOOKS_FOR_KINDS, _LOOK_SECONDS = 60, 0.5
_NOT_FOUND = 404
_DRAIN_SECONDS, _LAST_WRITES_SECONDS = 10, 5
_DEAD_SECONDS = 3.0
"""How long a killed operator may take to be dead."""


def exit_at_once(error: LeaseLost) -> None:
    """Ends the process immediately, like programs that use client-go: another operator may be at work, so nothing may
    continue here. The fork server notices the end of this process and kills what it started."""
    log.error("stopped leading; this process ends at once", reason=str(error))
    sys.stderr.flush()
    os._exit(1)


def log_started_leading(leadership: Leadership) -> None:
    log.info("started leading", lease_transitions=leadership.transitions, resumed=leadership.resumed)


@contextlib.asynccontextmanager
async def running_operator(
    access: Access,
    settings: Settings,
    redactor: Redactor,
    *,
    on_stopped_leading: Callable[[LeaseLost], None] = exit_at_once,
) -> AsyncIterator[Operator]:
    """An operator at work; leaving the block stops it. Raises `RemitError` when it cannot start."""
    private_directory(settings.state_dir)
    check_state_format(settings.state_dir)
    async with contextlib.AsyncExitStack() as stack:
        metrics, checks = Metrics(__version__), Checks()
        # Entered first, because at its exit it may wait for a collector, while the next operator may already have the
        # state directory.
        tracer = await stack.enter_async_context(otlp.exporting(metrics, redactor, __version__))
        if not settings.leader_election:
            await locked_in_time(stack, settings.state_dir, _DEAD_SECONDS)
        await _check_artifact_store(settings)
        kube = await stack.enter_async_context(Kube(access, before_write=fence.check, metrics=metrics))
        health = HealthServer(
            metrics,
            checks,
            host=settings.health_host,
            port=settings.health_port,
            token_file=settings.metrics_token_file,
        )
        await stack.enter_async_context(health)  # a candidate that waits for the lease serves health checks too
        checks.ready["startup"] = lambda: "waiting for the API server and Remit's CRDs"
        known = reflectors(settings.namespaces, settings.operator_namespace)
        await _wait_for_kinds(kube, known, next(iter(settings.namespaces), None))
        settings = replace(settings, backends=await backends(kube, settings))
        lease = (settings.operator_namespace, settings.lease_name)
        elector = leadership = None
        if settings.leader_election:
            elector = await _elector(stack, access, settings, metrics, on_stopped_leading)
            probe_host()
            load_drivers()
            checks.ready.clear()  # a candidate that waits for the lease is ready to take over
            leadership = await stack.enter_async_context(elector.leading())
            # The previous operator may still be ending: it released the lease, or did not renew it in time.
            await locked_in_time(stack, settings.state_dir, settings.lease_duration)
        checks.ready["startup"] = lambda: "starting"
        write_down(settings.state_dir, settings.artifact_store)
        jobs = await _jobs(stack, access, settings, metrics)
        operator = Operator.build(kube, known, settings, redactor, metrics, checks, health, leadership, jobs, tracer)
        stack.callback(audithead.tell, operator.audit, "stop")
        stack.callback(operator.audit.close)
        if elector is not None:
            elector.annotations = partial(audithead.noted, operator.audit)
        else:
            stack.push_async_callback(audithead.note, kube, *lease, operator.audit)
        await operator.start()
        del checks.ready["startup"]
        metrics.leader.set(1)
        try:
            if elector is None:
                noting = audithead.keep_noting(kube, *lease, operator.audit)
                operator.spawn(noting, "audit head on the lease")
            yield operator
        finally:
            await operator.stop()


async def _check_artifact_store(settings: Settings) -> None:
    """Raises `RemitError` if the configuration must be changed. A store that is temporarily unavailable is accepted."""
    if settings.artifact_store is None:
        return
    try:
        await asyncio.to_thread(check, settings.state_dir, settings.artifact_store)
    except StoreUnavailable as error:
        if error.lasting:
            raise RemitError(f"artifacts cannot be kept in {error}") from None
        log.warning("artifacts cannot be kept now; the operator starts all the same", reason=str(error))


async def _jobs(
    stack: contextlib.AsyncExitStack, access: Access, settings: Settings, metrics: Metrics
) -> KubernetesBackend | None:
    """Raises `RemitError` where a part of it is missing."""
    if "kubernetes" not in settings.backends:
        return None
    launcher = Launcher.load(settings.launchers)
    kube = await stack.enter_async_context(Kube(access, before_write=fence.check, connections=0, metrics=metrics))
    backend = KubernetesBackend(
        kube,
        launcher,
        namespaces=settings.namespaces,
        accept_unenforced_network=settings.accept_unenforced_network,
        storage_class=settings.storage_class,
        remit_image=settings.remit_image,
        spool=settings.state_dir / "collecting",
    )
    stack.push_async_callback(backend.close)
    return backend


async def _elector(
    stack: contextlib.AsyncExitStack,
    access: Access,
    settings: Settings,
    metrics: Metrics,
    on_stopped_leading: Callable[[LeaseLost], None],
) -> LeaderElector:
    return LeaderElector(
        await stack.enter_async_context(Kube(access, metrics=metrics)),
        settings.operator_namespace,
        stack.enter_context(holder_identity(settings.state_dir)),
        fence,
        extend_deadline,
        end_work,
        settings.kill_grace,
        lease_duration=settings.lease_duration,
        renew_deadline=settings.renew_deadline,
        retry_period=settings.retry_period,
        name=settings.lease_name,
        sole_replica=settings.replicas == 1,
        on_started_leading=log_started_leading,
        on_stopped_leading=on_stopped_leading,
        metrics=metrics,
    )


@dataclass
class Operator:
    """The parts. `failed` is done when one of them broke down for good."""

    settings: Settings
    kube: Kube
    controllers: tuple[Controller, ...]
    watcher: Watcher
    intake: Intake
    runner: Runner
    tasks: TaskReconciler
    deployments: DeploymentReconciler
    audit: AuditLog
    events: Recorder
    metrics: Metrics
    health: HealthServer
    checks: Checks
    notifier: Notifier | None
    jobs: KubernetesBackend | None
    failed: asyncio.Future[None]
    _background: list[asyncio.Task[Any]]

    @classmethod
    def build(
        cls,
        kube: Kube,
        known: Mapping[Resource, Reflector],
        settings: Settings,
        redactor: Redactor,
        metrics: Metrics,
        checks: Checks,
        health: HealthServer,
        leadership: Leadership | None = None,
        jobs: KubernetesBackend | None = None,
        tracer: Tracer | None = None,
    ) -> Operator:
        host = probe_host()
        events = Recorder(kube, metrics)
        audit = AuditLog(
            settings.state_dir / "audit" / "audit.jsonl",
            redactor=redactor,
            observer=audithead.Publishing(metrics),
        )
        queue, releases = WorkQueue("executiontask", metrics), WorkQueue("deployment", metrics)
        engine = None if settings.docker_host == OFF else DockerEngine(settings.docker_host)
        readable = [str(path) for path in settings.read_only_paths]
        operation_executors = executors(settings.state_dir, host, read_only_paths=readable, engine=engine)
        process_allowed = "process" in settings.backends
        listeners = EgressListeners()
        protected = [str(settings.state_dir), str(default_state_dir())]
        protected += [settings.docker_host.removeprefix("unix://")] if engine else []
        process = ProcessBackend(host, read_only_paths=readable, listeners=listeners, protected=protected)
        offered: dict[str, Backend] = {"process": process} if process_allowed else {}
        if engine and "docker" in settings.backends:
            identities = (host.bubblewrap and host.bubblewrap.identities) or NOBODY
            staging = Staging(settings.state_dir / "mounts", protected, identities)
            staging.clear()
            usage_store = UsageStore(settings.state_dir / "egress")
            offered["docker"] = DockerBackend(engine, listeners, usage_store, staging=staging)
        if jobs is not None:
            offered["kubernetes"] = jobs
            jobs.workspaces.notify = lambda task, *told: events.record(_object(task), *told)
        runner = Runner(
            backends=offered,
            store=RunStore(settings.state_dir / "runs"),
            redactor=redactor,
            on_ended=queue.add,
            on_made=queue.add,
            executors=operation_executors,
            folders=Folders(
                open_store(settings.state_dir, settings.artifact_store),
                WorkspaceStore(settings.state_dir / "workspaces"),
                lambda namespace, name, revision: places.find_release(namespace, name, revision),
            ),
        )
        turns = Queue(settings.max_concurrent, wake=queue.add_after, memory=host.memory.total)
        policies = Policies(
            kube,
            known[POLICIES],
            known[TASKS],
            WorkQueue("commandpolicy", metrics),
            metrics,
            events,
            settings.operator_namespace,
            settings.namespaces,
            tuple(name for name in settings.backends if name in offered),
        )
        admission = Admission(
            settings.search_path,
            readable,
            default_limits(host),
            frozenset(operation_executors) - (frozenset() if process_allowed else BESIDE_THE_OPERATOR),
            frozenset(offered),
            memory=host.memory,
            host_paths=not settings.in_pod,
            installation=Installation(
                backend=settings.backends[0],
                image=settings.image,
                for_images=next((name for name in settings.backends if name in offered and name in WITH_IMAGES), None),
                remit_image=settings.remit_image,
            ),
        )
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
            reflector=known[TASKS],
            runner=runner,
            turns=turns,
            policies=policies,
            admission=admission,
            audit=audit,
            metrics=metrics,
            events=events,
            requester=requester,
            leadership=leadership,
            finished_task_ttl=settings.finished_task_ttl,
            anomalies=settings.anomalies,
            tracer=tracer,
        )
        deployments = DeploymentReconciler(
            kube,
            known[DEPLOYMENTS],
            known[TASKS],
            metrics,
            events,
            places,
            judge.problem,
            audit,
            redactor,
            requester,
            reports,
            tracer,
        )
        table = controllers(policies, tasks, queue, deployments, releases, workers=settings.workers)
        intake = Intake(kube, known, table, settings.resync_seconds)
        # Ceiling policies are in the operator's own namespace, so it is watched even if its tasks are not served.
        namespaces = tuple(sorted({*settings.namespaces, settings.operator_namespace})) if settings.namespaces else ()
        watcher = Watcher(kube.access, tuple(known), intake.event, intake.listed, namespaces=namespaces)
        operator = cls(
            settings=settings,
            kube=kube,
            controllers=table,
            watcher=watcher,
            intake=intake,
            runner=runner,
            tasks=tasks,
            deployments=deployments,
            audit=audit,
            events=events,
            metrics=metrics,
            health=health,
            checks=checks,
            notifier=notifying.notifier(settings, kube, known, events, checks, metrics, redactor),
            jobs=jobs,
            failed=asyncio.get_running_loop().create_future(),
            _background=[],
        )
        operator._expose()
        return operator

    def _expose(self) -> None:
        """Makes metrics and health checks read the operator's state."""
        checks, audit = self.checks, self.audit
        gauges.expose(self.metrics, self.intake.reflectors, self.tasks, self.runner, audit)
        checks.ready["watching"] = lambda: None if self.watcher.ready.is_set() else "the watches are not up"
        checks.ready["audit"] = audit.check
        checks.live["audit"] = audit.check_writer

    async def start(self) -> None:
        """Know the world first, then watch it, then work."""
        audithead.tell(self.audit, "start")
        self.spawn(audithead.keep_telling(self.audit), "audit head")
        self.spawn(gauges.keep_measuring_disk(self.metrics, self.settings.state_dir), "free space")
        await self.intake.resync()
        await self.tasks.restore()
        self.watcher.start()
        for controller in self.controllers:
            self.spawn(controller.run(self.metrics), controller.kind)
        self.spawn(self.intake.keep_resyncing(), "resync")
        self.spawn(self.intake.keep_closing_gaps(), "lists after gaps")
        if self.notifier is not None:
            self.spawn(self.notifier.run(), "notifications")
        if (folders := self.runner.folders) is not None:
            pruner = Pruner(self.settings.state_dir, self.settings.retention, folders.artifacts, self.audit)
            self.spawn(keep_pruning(folders, pruner), "retention")
        if self.jobs is not None:
            tasks = self.tasks.reflector.objects
            pruning = keep_pruning_claims(self.jobs.workspaces, tasks, self.settings.namespaces)
            self.spawn(pruning, "claims of workspaces")

    async def stop(self) -> None:
        """Accepts no new work, ends what runs, and writes its outcome."""
        self.tasks.stopping = True
        await self.watcher.stop()
        for controller in self.controllers:
            if controller.shut_down is not None:
                await controller.shut_down()
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(_DRAIN_SECONDS):
                        await controller.queue.drain()
        for controller in self.controllers:
            controller.queue.shut_down()
        for task in (going := list(self._background)):
            task.cancel()
        await asyncio.gather(*going, return_exceptions=True)
        for controller in reversed(self.controllers):
            await controller.close()
        with contextlib.suppress(TimeoutError):  # the API server may not answer
            async with asyncio.timeout(_LAST_WRITES_SECONDS):
                await self.events.drain()

    def spawn(self, work: Coroutine[Any, Any, None], name: str) -> None:
        """Run `work` beside the rest; if it ever ends before `stop`, the operator has failed."""
        task = asyncio.create_task(work, name=name)
        task.add_done_callback(self._on_background_end)
        self._background.append(task)

    def _on_background_end(self, task: asyncio.Task[Any]) -> None:
        self._background.remove(task)
        error = None if task.cancelled() else task.exception()
        if not self.tasks.stopping and not self.failed.done():
            log.error("the operator cannot go on", part=task.get_name(), error=str(error or "it ended"))
            self.failed.set_exception(error or RemitError(f"{task.get_name()} ended"))


def _object(task: TaskReference) -> Object:
    """The object of an Event about the task."""
    metadata = {"namespace": task.namespace, "name": task.name, "uid": task.uid, "resourceVersion": ""}
    return {"apiVersion": API_VERSION, "kind": "ExecutionTask", "metadata": metadata}


async def _wait_for_kinds(kube: Kube, kinds: Iterable[Resource], namespace: str | None) -> None:
    """Wait until the server answers, and serves our kinds: their CRDs may be applied at this very moment. An operator
    that serves some namespaces may list only there."""
    told, missing = "", 0
    while missing < _LOOKS_FOR_KINDS:
        try:
            for resource in kinds:
                await kube.request("GET", resource.path(namespace), params={"limit": "1"})
        except ApiError as error:
            absent = error.status == _NOT_FOUND
            if not (absent or error.retryable) or error.reason == "CertificateNotTrusted":
                raise
            missing += absent
            if told != (waits_for := "Remit's CRDs" if absent else "the API server"):
                log.warning(f"waiting for {waits_for}", reason=str(error))
                told = waits_for
            await asyncio.sleep(_LOOK_SECONDS)
        else:
            return
    raise RemitError("Remit's CRDs are not installed; apply them with 'remit crds | kubectl apply -f -'")
