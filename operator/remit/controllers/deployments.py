"""Deployments: `remit.release.driver` over an API server."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Literal

import structlog

from remit.api.deployment import Deployment
from remit.api.deploymentstatus import DeploymentStatus, PipelineState, Release, ReleaseReport, RequestAnswer
from remit.api.phases import DeploymentPhase
from remit.controllers import hooks, releasemetrics, releasetraces, unreadable
from remit.controllers.reporting import Reports
from remit.controllers.values import Source
from remit.errors import ApiError, DeploymentError, InvalidInput, RemitError
from remit.kube.client import DEPLOYMENTS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.reflector import Reflector
from remit.kube.status import Outdated, StatusWriter
from remit.policy.verdict import HELPED_BY_A_RULE
from remit.release import configuration, requestannotation
from remit.release.driver import ReleaseDriver
from remit.release.model import (
    Desired,
    HookKey,
    HookView,
    MalformedRequest,
    ObservedState,
    ReleaseRequest,
    Snapshot,
    SpecProblem,
    hook_uids,
)
from remit.release.places import Places
from remit.release.status import NOT_READ
from remit.release.steps import Decision, RunHook, Switch
from remit.release.target import Material, Target
from remit.sandbox.fencing import now as boot_time
from remit.telemetry.audit import AuditLog
from remit.telemetry.metrics import Metrics
from remit.telemetry.redact import Redactor
from remit.telemetry.tracecontext import TRACEPARENT

if TYPE_CHECKING:
    from remit.telemetry.otlptraces import Tracer

log = structlog.get_logger(__name__)

FINALIZER = "remit.dev/release"


@dataclass
class ApiStore:
    """One Deployment on an API server: its spec, status, annotations and finalizer, and the tasks of its hooks."""

    reconciler: DeploymentReconciler
    obj: Object
    """The object as it was last read or written."""
    deployment: Deployment
    _created: dict[HookKey, str] = field(default_factory=dict)
    """The uids of the tasks that were created for hooks of the current release, until status has them."""
    denied: SpecProblem | None = None
    """The last denial, which is counted once and not at every look."""

    @property
    def declared_by(self) -> str:
        return self.reconciler.requester(self.obj)

    @property
    def requested_by(self) -> str:
        return requestannotation.requester(self.obj)

    @property
    def request(self) -> ReleaseRequest | MalformedRequest | None:
        return requestannotation.pending(self.obj)

    async def configuration(self) -> tuple[Snapshot, Material]:
        source = Source(self.reconciler.kube, self.deployment.metadata.namespace)
        return await configuration.read(source, self.deployment.spec)

    async def write_status(self, status: DeploymentStatus) -> None:
        """Raises Outdated where the object is not the newest."""
        self.obj = await self.reconciler.writer.write(self.obj, status)
        releasemetrics.count(self.reconciler.metrics, self.deployment.status, status)
        ended = releasemetrics.ended(self.deployment.status, status)
        if ended is not None and (tracer := self.reconciler.tracer) is not None:
            tracer.export(releasetraces.spans_of(self.deployment, ended))

    async def remove_request(self, answer: RequestAnswer) -> None:
        """Removes the request. Raises Outdated if another request, which was not read yet, may have replaced it."""
        await self.patch_metadata({"annotations": {requestannotation.ANNOTATION: None}})

    async def forget(self) -> None:
        await self.reconciler.reports.remove(self.deployment)
        rest = [name for name in self.deployment.metadata.finalizers if name != FINALIZER]
        await self.patch_metadata({"finalizers": rest})

    async def patch_metadata(self, changes: dict[str, object]) -> None:
        """Raises Outdated where the object is not the newest."""
        metadata, reconciler = self.obj["metadata"], self.reconciler
        body = {"metadata": {**changes, "resourceVersion": metadata["resourceVersion"]}}
        try:
            written = await reconciler.kube.patch(DEPLOYMENTS, metadata["namespace"], metadata["name"], body)
        except ApiError as error:
            if error.status == 404:
                return
            if error.status == 409:
                raise Outdated from error
            raise
        reconciler.metrics.api_writes.labels("patch", "Deployment").inc()
        reconciler.reflector.observe(written)

    def record_event(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        self.reconciler.events.record(self.obj, type_, reason, message)

    def observe_hooks(self, release: Release) -> Mapping[HookKey, HookView]:
        return hooks.observe(self.reconciler.tasks, hook_uids(release) | self._created)

    async def run_hook(self, release: Release, step: RunHook) -> None:
        """Creates the hook's task. Raises DeploymentError."""
        reconciler, uid = self.reconciler, self._created.get(step.key, hook_uids(release).get(step.key))
        hook = await hooks.run(reconciler.kube, self.obj, step, uid, self._trace(release, step))
        metadata = hook.task["metadata"]
        self._created[step.key] = metadata["uid"]
        reconciler.tasks.observe(hook.task)
        if hook.replaced:
            message = f"deleted the task {metadata['name']} that was there, because this release did not create it"
            self.record_event("Warning", "HookReplaced", message)
        if hook.created:
            self.record_event("Normal", "HookStarted", f"created task {metadata['name']}")

    def _trace(self, release: Release, step: RunHook) -> dict[str, str]:
        """The annotation that has a hook's task continue the trace of its release."""
        if (tracer := self.reconciler.tracer) is None:
            return {}
        stage = releasetraces.stage_of(self.deployment.metadata, release, step.key.stage)
        return {TRACEPARENT: str(tracer.sampled(stage, releasetraces.NAME))}

    async def clean_up_hooks(self, over: Release | None) -> None:
        self._created.clear()
        if over is None:
            return
        kube, tasks = self.reconciler.kube, self.reconciler.tasks
        kept = {record.revision for record in self.deployment.status.pipeline.history} | {over.revision}
        try:
            await hooks.cancel(kube, tasks, self.obj)
            await hooks.prune(kube, tasks, self.obj, kept)
        except ApiError as error:
            log.warning("a hook could not be cancelled or deleted; the next look tries again", error=str(error))

    async def report(
        self, target: Target, observed: ObservedState, before: PipelineState, after: PipelineState
    ) -> ReleaseReport | None:
        return await self.reconciler.reports.look(self.deployment, self.obj, target, observed, before, after)

    async def before_step(self, target: Target, desired: Desired, observed: ObservedState, decision: Decision) -> None:
        """Starts a probe where the step touches what is live, and the clock where it is a switch."""
        reports = self.reconciler.reports
        await reports.before(self.deployment, target, desired, observed, decision)
        if isinstance(decision.step, Switch):
            reports.switching(self.deployment.key, decision.step, observed)

    def step_failed(self, error: RemitError) -> None:
        """Status and an Event tell of it."""


@dataclass
class DeploymentReconciler:
    """Keeps a driver for each known Deployment."""

    kube: Kube
    reflector: Reflector
    tasks: Reflector
    metrics: Metrics
    events: Recorder
    places: Places
    problem: Callable[[Deployment, Material], SpecProblem | None]
    """What keeps a Deployment from being released as it is."""
    audit: AuditLog
    redactor: Redactor
    """The redactor of `audit`."""
    requester: Callable[[Object], str]
    reports: Reports
    tracer: Tracer | None = None
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    boot: Callable[[], float] = boot_time
    writer: StatusWriter = field(init=False)
    _driven: dict[str, tuple[ApiStore, ReleaseDriver]] = field(default_factory=dict)
    """Stores and drivers by the key of the Deployment."""

    def __post_init__(self) -> None:
        self.writer = StatusWriter(self.kube, self.reflector, self.metrics, "Deployment")

    async def reconcile(self, key: str) -> float | None:
        """Takes one step for the Deployment `key`. Returns the seconds until its next reconciliation, or None."""
        obj = self.reflector.objects.get(key)
        if obj is None:
            self._driven.pop(key, None)
            await self.reports.forget(key)
            await self.places.forget(key)
            return None
        with structlog.contextvars.bound_contextvars(deployment=key):
            try:
                deployment = Deployment.parse(obj)
                await self.places.forget_other(deployment)
                self.places.of(deployment)
            except (InvalidInput, DeploymentError) as error:
                await self._refuse(obj, error)
                return None
            try:
                return await self._step(deployment, obj)
            except Outdated:
                return 0.0

    async def close(self) -> None:
        """Closes the probes of reports and the connections to targets."""
        await self.reports.close()
        await self.places.close()

    async def _step(self, deployment: Deployment, obj: Object) -> float | None:
        metadata = deployment.metadata
        store, driver = self._driver(deployment, obj)
        if FINALIZER in metadata.finalizers:
            return await driver.step()
        if metadata.deletion_timestamp is not None:
            return None
        await store.patch_metadata({"finalizers": [*metadata.finalizers, FINALIZER]})
        return 0.0

    def _driver(self, deployment: Deployment, obj: Object) -> tuple[ApiStore, ReleaseDriver]:
        """The driver of this very object. Nothing of an earlier object of the same name is reused."""
        key = deployment.key
        driven = self._driven.get(key)
        if driven is None or driven[0].deployment.metadata.uid != deployment.metadata.uid:
            store = ApiStore(self, obj, deployment)
            driver = ReleaseDriver(store, self.places, self._problem, self.audit, self.redactor, self.now, self.boot)
            driven = self._driven[key] = store, driver
        driven[0].obj, driven[0].deployment = obj, deployment
        return driven

    def _problem(self, deployment: Deployment, material: Material) -> SpecProblem | None:
        """The problem, with the command that prints a policy which would help, if one would."""
        found, metadata = self.problem(deployment, material), deployment.metadata
        store = self._driven[deployment.key][0]
        denied = found if found is not None and found.reason in releasemetrics.DENIALS else None
        if denied is not None and denied != store.denied:
            self.metrics.policy_decisions.labels("Denied", "Deployment", "release").inc()
        store.denied = denied
        if found is None or found.reason not in HELPED_BY_A_RULE:
            return found
        advice = f"a policy that allows it: remit policy suggest -n {metadata.namespace} --task deploy/{metadata.name}"
        return replace(found, message=f"{found.message}; {advice}")

    async def _refuse(self, obj: Object, error: InvalidInput | DeploymentError) -> None:
        """Reports once that the Deployment is refused. The live side continues to run."""
        reason = error.reason if isinstance(error, DeploymentError) else "Invalid"
        message, metadata, live = str(error), obj["metadata"], (obj.get("status") or {}).get("activeRevision")
        if live is not None:
            message += f"; revision {live} goes on, and nothing is done about it until this is mended"
        if metadata.get("deletionTimestamp") and FINALIZER in metadata.get("finalizers", ()):
            patch = '{"metadata":{"finalizers":null}}'
            message += (
                "; so what it made cannot be removed. Run the version of Remit that made it, or leave it there:"
                f" kubectl patch deployments.remit.dev/{metadata['name']} --type=merge -p '{patch}'"
            )
        phase = DeploymentPhase.FAILED if live is None else DeploymentPhase.DEGRADED
        await unreadable.tell(self.writer, self.events, obj, str(phase), reason, message, NOT_READ, self.now())
