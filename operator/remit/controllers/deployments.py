"""Deployments: one look at a Deployment, one idempotent step. What the step is, `remit.release.pipeline` decides."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

import structlog

from remit.api.base import Condition
from remit.api.deploymentstatus import DeploymentPhase, DeploymentStatus
from remit.api.resource import Deployment
from remit.controllers import hooks
from remit.controllers.reporting import Reports
from remit.controllers.values import Source
from remit.errors import ApiError, DeploymentError, InvalidInput, MissingReference, RemitError
from remit.kube.client import DEPLOYMENTS, Kube, Object
from remit.kube.events import Recorder
from remit.kube.indexer import key_of
from remit.kube.reflector import Reflector
from remit.kube.status import Outdated, StatusWriter
from remit.release import (
    Decision,
    Desired,
    Finish,
    HookKey,
    Material,
    Memory,
    Problem,
    Request,
    Retire,
    Revision,
    RunHook,
    StepError,
    Switch,
    Wait,
    World,
    configuration,
    next_step,
    recording,
    remembered,
    status_after,
    step_error,
)
from remit.release import requestannotation as requests
from remit.release.clock import next_look
from remit.release.places import Place, Places, carry_out, keep_only, look_ahead
from remit.release.report import reported
from remit.telemetry import AuditEvent, AuditLog, Metrics, Redactor

log = structlog.get_logger(__name__)

FINALIZER = "remit.dev/release"
_RETRY_SECONDS = 1.0


@dataclass
class _Tracked:
    """What this process knows of a Deployment besides its status. A restart loses it, and nothing depends on it."""

    uid: str
    error: StepError | None = None
    """How its last step failed, where it did."""
    recorded: AuditEvent | None = None
    """What was recorded of it last."""
    created: dict[HookKey, str] = field(default_factory=dict)
    """The uids of the tasks that were created for hooks of the release that goes on, until status has them."""
    unreachable_since: datetime.datetime | None = None
    """Since when its deletion finds the target out of reach."""


@dataclass
class DeploymentReconciler:
    """Takes Deployments where they are wanted."""

    kube: Kube
    reflector: Reflector
    tasks: Reflector
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
    _tracked: dict[str, _Tracked] = field(default_factory=dict)
    """By the key of the Deployment."""

    def __post_init__(self) -> None:
        self._writer = StatusWriter(self.kube, self.reflector, self.metrics, "Deployment")

    async def reconcile(self, key: str) -> float | None:
        """One step for the Deployment `key`. Gives seconds until it wants to be looked at again, or None."""
        obj = self.reflector.objects.get(key)
        if obj is None:
            self._tracked.pop(key, None)
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

    async def close(self) -> None:
        """Let go of what is open: the probes of reports, and connections to targets."""
        await self.reports.close()
        await self.places.close()

    def _track(self, deployment: Deployment) -> _Tracked:
        """Of this very object: one of the same name that was there before left nothing."""
        tracked = self._tracked.get(deployment.key)
        if tracked is None or tracked.uid != deployment.metadata.uid:
            tracked = self._tracked[deployment.key] = _Tracked(deployment.metadata.uid)
        return tracked

    async def _step(self, deployment: Deployment, obj: Object, place: Place) -> float | None:
        metadata = deployment.metadata
        if FINALIZER not in metadata.finalizers:
            if metadata.deletion_timestamp is None:
                await self._finalize(obj, [*metadata.finalizers, FINALIZER])
                return 0.0
            return None
        now, before, tracked = self.now(), remembered(deployment.status), self._track(deployment)
        desired, material, unreadable = await self._desired(deployment, obj, place, before)
        world = replace(await self._observe(place, desired, before, unreadable), error=tracked.error)
        desired = self._with_deadline(deployment, obj, desired, world)
        if before.releasing is not None:
            uids = before.releasing.hook_uids | tracked.created
            world = replace(world, hooks=hooks.observe(self.tasks, uids))
        else:
            tracked.created.clear()
            if before.release is not None:
                await self._cancel_hooks(obj)
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

    async def _desired(
        self, deployment: Deployment, obj: Object, place: Place, before: Memory
    ) -> tuple[Desired, Material, str]:
        """What the spec asks for, with its configuration, and why its revisions cannot be read, if so.

        Where the spec refers to what is not there, that is its problem, and it has no configuration.
        """
        snapshot, material, problem = None, Material(), None
        try:
            source = Source(self.kube, deployment.metadata.namespace)
            snapshot, material = await configuration.read(source, deployment.spec)
            problem = self.problem(deployment, material)
        except MissingReference as error:
            problem = Problem("WaitingForReference", str(error))
        revisions: Mapping[int, Revision] = {}
        unreachable = ""
        if before.may_contact(problem):
            try:
                revisions = await place.revisions.all()
            except DeploymentError as error:
                unreachable = str(error)
        request = requests.pending(obj)
        if snapshot is None:
            snapshot = configuration.unread(deployment.spec, before.key, revisions.values())
        elif before.pinning and not (isinstance(request, Request) and request.kind == "retry"):
            snapshot = configuration.pinned(snapshot, before.key, revisions.values())
        desired = Desired(
            snapshot=snapshot,
            revisions=revisions,
            request=request,
            problem=problem,
            deleted=deployment.metadata.deletion_timestamp is not None,
        )
        return desired, material, unreachable

    async def _observe(self, place: Place, desired: Desired, before: Memory, unreadable: str) -> World:
        """What is on the target; nothing where it must not be contacted."""
        if not before.may_contact(desired.problem):
            return World()
        world = await place.target.observe()
        return world if world.unreachable or not unreadable else World(unreachable=unreadable)

    def _with_deadline(self, deployment: Deployment, obj: Object, desired: Desired, world: World) -> Desired:
        """A deletion waits for a target that is out of reach as long as a release may go without progress. The time
        counts from when this process first found it so: an operator that was away has not tried."""
        tracked, now = self._track(deployment), self.now().replace(microsecond=0)
        if not (desired.deleted and world.unreachable):
            tracked.unreachable_since = None
            return desired
        limit = datetime.timedelta(seconds=deployment.spec.progress_deadline_seconds)
        if tracked.unreachable_since is None:
            tracked.unreachable_since = now
            message = (
                f"is being deleted, and the target cannot be reached: {world.unreachable}; it is tried for {limit}"
            )
            self.events.record(obj, "Warning", "TargetUnreachable", message)
        return replace(desired, abandon_at=tracked.unreachable_since + limit)

    async def _perform(
        self, deployment: Deployment, obj: Object, place: Place, decision: Decision, material: Material
    ) -> float | None:
        """Take the step. What fails is told to the next look, which decides what follows from it."""
        tracked, step = self._track(deployment), decision.step
        try:
            if not isinstance(step, Finish):
                await self._record(deployment, obj, decision, material)
            await self._do(deployment, obj, place, decision, material)
        except RemitError as error:
            before, told = tracked.error, step_error(step, error)
            tracked.error = told
            if before is None or (before.reason, before.revision) != (told.reason, told.revision):  # else it is told
                self.events.record(obj, "Warning", told.reason, str(error))
                log.warning(
                    "a step of a release failed", step=type(step).__name__, reason=told.reason, error=str(error)
                )
            return _RETRY_SECONDS
        tracked.error = None
        log.info("release step", step=type(step).__name__)
        return 0.0

    async def _record(self, deployment: Deployment, obj: Object, decision: Decision, material: Material) -> None:
        """What cannot be recorded must not happen. A step that is tried again is on record already."""
        tracked, release = self._track(deployment), decision.memory.release
        event = recording.step(deployment, self.requester(obj), decision.step, release.revision if release else None)
        tried_again = tracked.error is not None and tracked.recorded == event
        if event is not None and not tried_again:
            with self.redactor.holding(material.secrets, deployment.metadata.namespace):
                await self.audit.append_async(event)
            tracked.recorded = event

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
            case RunHook(key=hook) if release is not None:
                await self._run_hook(deployment, obj, step, release.hook_uids.get(hook))
            case Finish(outcome="Deleted", reason=reason, message=message):
                if reason == "Abandoned":
                    self._tell(obj, False, reason, f"{message}: {place.target.leftovers}")
                if reason == "Deleted":
                    await self.places.remove(deployment)
                else:
                    await self.places.abandon(deployment)
                await self.reports.remove(deployment)
                rest = [name for name in deployment.metadata.finalizers if name != FINALIZER]
                await self._finalize(obj, rest)
            case Finish(outcome=outcome, reason=reason, message=message):
                self._tell(obj, outcome == "Promoted", str(outcome), f"{reason}: {message}")
                await keep_only(place, decision.memory)
            case Retire() if decision.memory.releasing is None:
                await keep_only(place, decision.memory)

    async def _run_hook(self, deployment: Deployment, obj: Object, step: RunHook, uid: str | None) -> None:
        tracked = self._track(deployment)
        hook = await hooks.run(self.kube, obj, step, tracked.created.get(step.key, uid))
        metadata = hook.task["metadata"]
        tracked.created[step.key] = metadata["uid"]
        self.tasks.observe(hook.task)
        if hook.replaced:
            message = f"deleted the task {metadata['name']} that was there, because this release did not create it"
            self.events.record(obj, "Warning", "HookReplaced", message)
        if hook.created:
            self.wake_task(key_of(hook.task))  # the watch will bring nothing new
            self.events.record(obj, "Normal", "HookStarted", f"created task {metadata['name']}")

    async def _cancel_hooks(self, obj: Object) -> None:
        """Cancel what still runs of a release that is over."""
        try:
            await hooks.cancel(self.kube, self.tasks, obj)
        except ApiError as error:
            log.warning("a hook could not be cancelled; the next look tries again", error=str(error))

    async def _consumed(self, deployment: Deployment, obj: Object, desired: Desired, decision: Decision) -> None:
        """Remove the request once status has its answer."""
        answer, request = decision.memory.answer, desired.request
        if answer is not None and request is not None and answer.id == request.id:
            await self.audit.append_async(recording.answer(deployment, answer, requests.requester(obj)))
            refused = "RequestRefused" if answer.kind else "InvalidRequest"
            self._tell(obj, answer.accepted, "Requested" if answer.accepted else refused, answer.message)
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
        self.reflector.observe(written)

    async def _refuse(self, obj: Object, error: InvalidInput | DeploymentError) -> None:
        """Say once that nothing will be done about it, which ends the wait of kubectl, Helm and GitOps tools."""
        if (obj.get("status") or {}).get("observedGeneration") == obj["metadata"]["generation"]:
            return
        reason = error.reason if isinstance(error, DeploymentError) else "Invalid"
        message, metadata = str(error), obj["metadata"]
        if metadata.get("deletionTimestamp") and FINALIZER in metadata.get("finalizers", ()):
            patch = '{"metadata":{"finalizers":null}}'
            message += (
                "; so what it made cannot be removed. Run the version of Remit that made it, or leave it there:"
                f" kubectl patch deployments.remit.dev/{metadata['name']} --type=merge -p '{patch}'"
            )
        await self._writer.write(obj, _refused(obj, reason, message, self.now()))
        self.events.record(obj, "Warning", reason, message)


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
