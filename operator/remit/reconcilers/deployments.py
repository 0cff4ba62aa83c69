"""Deployments: one look at a Deployment, one idempotent step. What the step is, `remit.release.pipeline` decides."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import structlog

from remit.api.base import Condition
from remit.api.deploymentstatus import DeploymentPhase, DeploymentStatus
from remit.api.resource import Deployment
from remit.errors import ApiError, DeploymentError, InvalidInput, MissingReference, RemitError
from remit.reconcilers import hooks, requests
from remit.reconcilers.cache import Cache, key_of
from remit.reconcilers.events import Recorder
from remit.reconcilers.kube import DEPLOYMENTS, TASKS, Kube, Object
from remit.reconcilers.reporting import Reports
from remit.reconcilers.status import Outdated, StatusWriter
from remit.reconcilers.values import Source
from remit.release import (
    Decision,
    Desired,
    Finish,
    Material,
    Problem,
    Retire,
    RunHook,
    StepError,
    Switch,
    Wait,
    configuration,
    next_step,
    recording,
    remembered,
    status_after,
    step_error,
)
from remit.release.clock import next_look
from remit.release.places import Place, Places, carry_out, keep_only, look_ahead
from remit.release.report import reported
from remit.telemetry import AuditEvent, AuditLog, Metrics, Redactor

log = structlog.get_logger(__name__)

FINALIZER = "remit.dev/release"
_RETRY_SECONDS = 1.0


@dataclass
class DeploymentReconciler:
    """Takes Deployments where they are wanted."""

    kube: Kube
    cache: Cache
    metrics: Metrics
    events: Recorder
    places: Places
    problem: Callable[[Deployment, Material], Problem | None]
    """What keeps a Deployment from being released as it is."""
    wake_task: Callable[[str], None]
    audit: AuditLog
    redactor: Redactor
    """That of `audit`."""
    requester: Callable[[Object], str]
    reports: Reports
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    _writer: StatusWriter = field(init=False)
    _errors: dict[str, StepError] = field(default_factory=dict)
    """How the last step of a Deployment failed, where it did."""
    _recorded: dict[str, AuditEvent] = field(default_factory=dict)
    """What of a Deployment was recorded last."""

    def __post_init__(self) -> None:
        self._writer = StatusWriter(self.kube, self.cache, self.metrics, DEPLOYMENTS, "Deployment")

    async def reconcile(self, key: str) -> float | None:
        """One step for the Deployment `key`. Gives seconds until it wants to be looked at again, or None."""
        obj = self.cache.get(DEPLOYMENTS.plural, key)
        if obj is None:
            self._errors.pop(key, None)
            self._recorded.pop(key, None)
            await self.reports.forget(key)
            await self.places.forget(key)
            return None
        with structlog.contextvars.bound_contextvars(deployment=key):
            try:
                deployment = Deployment.parse(obj)
                await self.places.forget_other(deployment)
                place = self.places.of(deployment)
            except (InvalidInput, DeploymentError) as error:
                await self._refuse(obj, error)
                return None
            try:
                return await self._step(deployment, obj, place)
            except Outdated:
                return 0.0

    async def _step(self, deployment: Deployment, obj: Object, place: Place) -> float | None:
        metadata = deployment.metadata
        if FINALIZER not in metadata.finalizers:
            if metadata.deletion_timestamp is None:
                await self._finalize(obj, [*metadata.finalizers, FINALIZER])
                return 0.0
            return None
        now = self.now()
        desired, material = await self._desired(deployment, obj, place)
        before = remembered(deployment.status)
        world = replace(await place.target.observe(), error=self._errors.get(deployment.key))
        if before.releasing is not None:
            world = replace(world, hooks=hooks.observe(self.cache, deployment.key, before.releasing.started_at))
        desired = await look_ahead(place, desired, before, world)
        decision = next_step(desired, world, before, now)
        status = status_after(desired, world, decision, deployment.status, generation=metadata.generation, now=now)
        report = await self.reports.look(deployment, obj, place.target, world, before, decision.memory)
        if report is not None:
            status = reported(status, report)
        if isinstance(decision.step, Finish):
            await self._record(deployment, obj, decision, material)  # once status says that it is over, nobody would
        written = await self._writer.write(obj, status)
        await self._consumed(deployment, written, desired, decision)
        if isinstance(decision.step, Wait):
            return next_look(decision.step, world, now)
        await self.reports.before(deployment, desired, world, decision)
        return await self._perform(deployment, written, place, decision, material)

    async def _desired(self, deployment: Deployment, obj: Object, place: Place) -> tuple[Desired, Material]:
        """The wish; with a problem where it cannot be read, and then without a configuration of its own."""
        revisions, before = await place.revisions.all(), remembered(deployment.status)
        request = None
        try:
            request = requests.pending(obj)
        except InvalidInput as error:
            self.events.record(obj, "Warning", "InvalidRequest", str(error))
            await self._forget_request(obj)
        problem, material = None, Material()
        try:
            snapshot, material = await configuration.read(
                Source(self.kube, deployment.metadata.namespace), deployment.spec
            )
        except MissingReference as error:
            problem = Problem("WaitingForReference", str(error))
            snapshot = configuration.unread(deployment.spec, before.key, revisions.values())
        else:
            problem = self.problem(deployment, material)
            if before.pinning and not (request is not None and request.kind == "retry"):
                snapshot = configuration.pinned(snapshot, before.key, revisions.values())
        desired = Desired(
            snapshot=snapshot,
            revisions=revisions,
            request=request,
            problem=problem,
            deleted=deployment.metadata.deletion_timestamp is not None,
        )
        return desired, material

    async def _perform(
        self, deployment: Deployment, obj: Object, place: Place, decision: Decision, material: Material
    ) -> float | None:
        """Take the step. What fails is told to the next look, which decides what follows from it."""
        key, step = deployment.key, decision.step
        try:
            if not isinstance(step, Finish):
                await self._record(deployment, obj, decision, material)
            await self._do(deployment, obj, place, decision, material)
        except RemitError as error:
            before, told = self._errors.get(key), step_error(step, error)
            self._errors[key] = told
            if before is None or (before.reason, before.revision) != (told.reason, told.revision):  # else it is told
                self.events.record(obj, "Warning", told.reason, str(error))
                log.warning(
                    "a step of a release failed", step=type(step).__name__, reason=told.reason, error=str(error)
                )
            return _RETRY_SECONDS
        self._errors.pop(key, None)
        log.info("release step", step=type(step).__name__)
        return 0.0

    async def _record(self, deployment: Deployment, obj: Object, decision: Decision, material: Material) -> None:
        """What cannot be recorded must not happen. A step that is tried again is on record already."""
        key, release = deployment.key, decision.memory.release
        event = recording.step(deployment, self.requester(obj), decision.step, release.revision if release else None)
        tried_again = key in self._errors and self._recorded.get(key) == event
        if event is not None and not tried_again:
            with self.redactor.holding(material.secrets, deployment.metadata.namespace):
                await self.audit.append_async(event)
            self._recorded[key] = event

    async def _do(
        self, deployment: Deployment, obj: Object, place: Place, decision: Decision, material: Material
    ) -> None:
        step, release = decision.step, decision.memory.release
        if isinstance(step, Switch):
            self.reports.switching(deployment.key, step)
        await carry_out(place, step, material)
        match step:
            case Switch(live=live):
                self.events.record(obj, "Normal", "Switched", f"requests go to {live}")
            case RunHook() if release is not None:
                task, created = await hooks.run(self.kube, obj, step, release.started_at)
                self.cache.store(TASKS.plural, task)
                if created:
                    self.wake_task(key_of(task))  # the watch will bring nothing new
                    self.events.record(obj, "Normal", "HookStarted", f"created task {task['metadata']['name']}")
            case Finish(outcome="Deleted"):
                await self.places.remove(deployment)
                await self.reports.remove(deployment)
                rest = [name for name in deployment.metadata.finalizers if name != FINALIZER]
                await self._finalize(obj, rest)
            case Finish(outcome=outcome, reason=reason, message=message):
                self._tell(obj, outcome == "Promoted", str(outcome), f"{reason}: {message}")
                await hooks.cancel(self.kube, self.cache, deployment.key)
                await keep_only(place, decision.memory)
            case Retire() if decision.memory.releasing is None:
                await keep_only(place, decision.memory)

    async def _consumed(self, deployment: Deployment, obj: Object, desired: Desired, decision: Decision) -> None:
        """Remove the request once status has its answer."""
        answer, request = decision.memory.answer, desired.request
        if answer is not None and request is not None and answer.id == request.id:
            await self.audit.append_async(recording.answer(deployment, answer, requests.requester(obj)))
            self._tell(obj, answer.accepted, "Requested" if answer.accepted else "RequestRefused", answer.message)
            await self._forget_request(obj)

    def _tell(self, obj: Object, good: bool, reason: str, message: str) -> None:
        self.events.record(obj, "Normal" if good else "Warning", reason, message)

    async def _forget_request(self, obj: Object) -> None:
        """Raises Outdated where another one may have taken its place, which nobody has read yet."""
        version = obj["metadata"]["resourceVersion"]
        await self._patch(obj, {"annotations": {requests.ANNOTATION: None}, "resourceVersion": version})

    async def _finalize(self, obj: Object, finalizers: list[str]) -> None:
        await self._patch(obj, {"finalizers": finalizers, "resourceVersion": obj["metadata"]["resourceVersion"]})

    async def _patch(self, obj: Object, metadata: dict[str, object]) -> None:
        where = obj["metadata"]
        try:
            written = await self.kube.patch(DEPLOYMENTS, where["namespace"], where["name"], {"metadata": metadata})
        except ApiError as error:
            if error.status == 404:
                return
            if error.status == 409:
                raise Outdated from error
            raise
        self.metrics.api_writes.labels("patch", "Deployment").inc()
        self.cache.store(DEPLOYMENTS.plural, written)

    async def _refuse(self, obj: Object, error: InvalidInput | DeploymentError) -> None:
        """Say once that nothing will be done about it, which ends the wait of kubectl, Helm and GitOps tools."""
        if (obj.get("status") or {}).get("observedGeneration") == obj["metadata"]["generation"]:
            return
        reason = error.reason if isinstance(error, DeploymentError) else "Invalid"
        await self._writer.write(obj, _refused(obj, reason, str(error), self.now()))
        self.events.record(obj, "Warning", reason, str(error))


def _refused(obj: Object, reason: str, message: str, now: datetime.datetime) -> DeploymentStatus:
    generation = obj["metadata"]["generation"]
    return DeploymentStatus(
        observed_generation=generation,
        phase=DeploymentPhase.FAILED,
        message=message,
        conditions=[
            Condition(
                type=type_,
                status=status,
                reason=reason,
                message=message,
                last_transition_time=now.replace(microsecond=0),
                observed_generation=generation,
            )
            for type_, status in (("Reconciling", "False"), ("Stalled", "True"))
        ],
    )
