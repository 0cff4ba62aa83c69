"""The driver of releases: one step of one Deployment. It looks, decides, writes status, records, and acts.

The operator runs it over an API server, and the Python API over a folder: what differs between them is their store's.
"""

from __future__ import annotations

import datetime
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import Final, Literal, Protocol

import structlog

from remit.api.deployment import Deployment
from remit.api.deploymentstatus import DeploymentStatus, PipelineState, Release, ReleaseReport, RequestAnswer
from remit.errors import DeploymentError, MissingReference, RemitError
from remit.execution.taskclock import TaskClock
from remit.release import configuration, recording
from remit.release.clock import next_look
from remit.release.model import (
    Desired,
    HookKey,
    HookView,
    MalformedRequest,
    ObservedState,
    ReleaseRequest,
    Revision,
    Snapshot,
    SpecProblem,
    StepError,
    may_contact,
)
from remit.release.pipeline import next_step
from remit.release.places import Place, Places, carry_out, keep_only, keeping_state, look_ahead
from remit.release.report import reported
from remit.release.status import status_after
from remit.release.steps import Decision, Finish, Retire, RunHook, Step, Switch, Wait, step_error
from remit.release.target import Material, Target
from remit.sandbox.fencing import now as boot_time
from remit.telemetry.audit import AuditLog
from remit.telemetry.chain import AuditEvent
from remit.telemetry.redact import Redactor

log = structlog.get_logger(__name__)

_RETRY_SECONDS: Final = 1.0


class Store(Protocol):
    """The place in which one Deployment is declared and its status is kept.

    A method that raises `RemitError` ends the step, which is taken again later on what there is then.
    """

    @property
    def deployment(self) -> Deployment:
        """The declared Deployment, with the status that was written last."""

    @property
    def declared_by(self) -> str:
        """Who declared it, for the audit trail."""

    @property
    def requested_by(self) -> str:
        """Who wrote the pending request, for the audit trail."""

    @property
    def request(self) -> ReleaseRequest | MalformedRequest | None:
        """The pending request of a user."""

    async def configuration(self) -> tuple[Snapshot, Material]:
        """The configuration that the spec asks for now, with its ConfigMaps and Secrets. Raises `MissingReference`."""

    async def write_status(self, status: DeploymentStatus) -> None:
        """Keep it, unless it is kept already."""

    async def remove_request(self, answer: RequestAnswer) -> None:
        """The pending request is answered in status and on the audit trail."""

    async def forget(self) -> None:
        """Nothing of it is left on the target, or nothing more will be done about it: let it go."""

    def record_event(self, type_: Literal["Normal", "Warning"], reason: str, message: str) -> None:
        """Tell users what happened. Losing it does no harm."""

    def observe_hooks(self, release: Release) -> Mapping[HookKey, HookView]:
        """Returns the states of the hooks that the release has run so far. A lost hook is omitted."""

    async def run_hook(self, release: Release, step: RunHook) -> None:
        """Start the hook, unless it has been started."""

    async def clean_up_hooks(self, over: Release | None) -> None:
        """Called at every step without a release in progress; `over` is the last one. Cancels its hooks that still run,
        and deletes the hooks of revisions that are not kept any more."""

    async def report(
        self, target: Target, observed: ObservedState, before: PipelineState, after: PipelineState
    ) -> ReleaseReport | None:
        """Note what is observed for the report of the release. Gives the report that is due for status, if one is."""

    async def before_step(self, target: Target, desired: Desired, observed: ObservedState, decision: Decision) -> None:
        """The step is about to be taken, and on the audit trail."""

    def step_failed(self, error: RemitError) -> None:
        """Called when a step failed. The pipeline gets the error and decides what follows."""


@dataclass
class ReleaseDriver:
    """Takes one Deployment where it is wanted, step by step.

    What it knows besides status is lost when the process ends, and nothing depends on it.
    """

    store: Store
    places: Places
    problem: Callable[[Deployment, Material], SpecProblem | None]
    """What keeps a Deployment from being released as it is."""
    audit: AuditLog
    redactor: Redactor
    """The redactor of `audit`."""
    now: Callable[[], datetime.datetime] = lambda: datetime.datetime.now(datetime.UTC)
    """The time of day. What is due is compared with `_clock`."""
    boot: Callable[[], float] = boot_time
    _clock: TaskClock = field(init=False)
    _error: StepError | None = None
    """How the last step failed, where it did."""
    _recorded: AuditEvent | None = None
    """What was recorded last."""
    _unreachable_since: datetime.datetime | None = None
    """Since when a deletion finds the target out of reach."""

    def __post_init__(self) -> None:
        self._clock = TaskClock(lambda: self.now(), self.boot)

    def _now(self) -> datetime.datetime:
        return self._clock.now(self.store.deployment.metadata.uid)

    async def step(self) -> float:
        """One look, one decision and one idempotent step. Gives seconds until the next look.

        Raises what the store raises, `AuditUnavailable`, and `DeploymentError` for a target that this host has not.
        """
        deployment, now = self.store.deployment, self._now()
        place, before = self.places.of(deployment), deployment.status.pipeline
        desired, material, observed = await self._look(place, before)
        decision = next_step(desired, observed, before, now)
        generation = deployment.metadata.generation
        status = status_after(desired, observed, decision, deployment.status, generation=generation, now=now)
        report = await self.store.report(place.target, observed, before, decision.state)
        if report is not None:
            status = reported(status, report)
        if isinstance(decision.step, Finish):
            # Recorded before status says that the release is over, because later steps would not record it.
            await self._record(decision, material)
        await self.store.write_status(status)
        await self._answer(desired.request, decision.state.answer)
        if isinstance(decision.step, Wait):
            if decision.step.reason == "Settled":
                self._clock.restart(deployment.metadata.uid)
            return next_look(decision.step, observed, now)
        return await self._perform(place, desired, observed, decision, material)

    async def _look(self, place: Place, before: PipelineState) -> tuple[Desired, Material, ObservedState]:
        """Read what is desired, its configuration, and what is on the target. Where the spec refers to what is missing,
        it has no configuration; where the target must not be contacted, nothing is observed."""
        deployment, request = self.store.deployment, self.store.request
        snapshot, material, problem = None, Material(), None
        try:
            snapshot, material = await self.store.configuration()
            problem = self.problem(deployment, material)
        except MissingReference as error:
            problem = SpecProblem("WaitingForReference", str(error))
        revisions: Mapping[int, Revision] = {}
        observed = ObservedState()
        if may_contact(before, problem):
            revisions, observed = await _observe(place)
            revisions = configuration.with_recorded_hashes(revisions, before)
        if snapshot is None:
            snapshot = configuration.snapshot_with_missing_references(deployment.spec, before.key, revisions.values())
        elif before.pinning and not (isinstance(request, ReleaseRequest) and request.kind == "retry"):
            snapshot = configuration.keep_pin(snapshot, before.key, revisions.values())
        deleted = deployment.metadata.deletion_timestamp is not None
        desired = Desired(
            snapshot=snapshot,
            revisions=revisions,
            request=request,
            problem=problem,
            deleted=deleted,
            abandon_at=self._abandon_at(observed) if deleted else None,
        )
        observed = replace(observed, hooks=await self._hooks(before), error=self._error)
        return await look_ahead(place, desired, before, observed), material, observed

    async def _hooks(self, before: PipelineState) -> Mapping[HookKey, HookView]:
        if before.releasing is not None:
            return self.store.observe_hooks(before.releasing)
        await self.store.clean_up_hooks(before.release)
        return {}

    def _abandon_at(self, observed: ObservedState) -> datetime.datetime | None:
        """A deletion waits for a target that is out of reach as long as a release may go without progress. The time
        counts from when this process first found it so: an operator that was away has not tried."""
        if not observed.unreachable:
            self._unreachable_since = None
            return None
        limit = datetime.timedelta(seconds=self.store.deployment.spec.progress_deadline_seconds)
        if self._unreachable_since is None:
            self._unreachable_since = self._now().replace(microsecond=0)
            why = f"the target cannot be reached: {observed.unreachable}; it is tried for {limit}"
            self.store.record_event("Warning", "TargetUnreachable", f"is being deleted, and {why}")
        return self._unreachable_since + limit

    async def _answer(self, request: ReleaseRequest | MalformedRequest | None, answer: RequestAnswer | None) -> None:
        """Remove the request once status has its answer."""
        if answer is None or request is None or answer.id != request.id:
            return
        await self.audit.append_async(recording.answer(self.store.deployment, answer, self.store.requested_by))
        if answer.accepted:
            self.store.record_event("Normal", "Requested", answer.message)
        else:
            self.store.record_event("Warning", "RequestRefused" if answer.kind else "InvalidRequest", answer.message)
        await self.store.remove_request(answer)

    async def _perform(
        self, place: Place, desired: Desired, observed: ObservedState, decision: Decision, material: Material
    ) -> float:
        """Carries out the step. The next observation includes a failure, and the pipeline decides what follows."""
        step = decision.step
        try:
            if not isinstance(step, Finish):
                await self._record(decision, material)
            await self.store.before_step(place.target, desired, observed, decision)
            with keeping_state():
                await self._take(place, decision, material)
        except RemitError as error:
            self._fail(step, error)
            return _RETRY_SECONDS
        self._error = None
        log.info("release step", step=type(step).__name__)
        return 0.0

    def _fail(self, step: Step, error: RemitError) -> None:
        before, failed = self._error, step_error(step, error)
        self._error = failed
        self.store.step_failed(error)
        # Otherwise it was reported already.
        if before is None or (before.reason, before.revision) != (failed.reason, failed.revision):
            self.store.record_event("Warning", failed.reason, str(error))
            log.warning("a step of a release failed", step=type(step).__name__, reason=failed.reason, error=str(error))

    async def _record(self, decision: Decision, material: Material) -> None:
        """Record the step on the audit trail. What cannot be recorded must not happen. A step that is tried again is on
        record already."""
        deployment, release = self.store.deployment, decision.state.release
        revision = release.revision if release else None
        event = recording.step(deployment, self.store.declared_by, decision.step, revision)
        tried_again = self._error is not None and self._recorded == event
        if event is not None and not tried_again:
            with self.redactor.holding(material.secrets, deployment.metadata.namespace):
                await self.audit.append_async(event)
            self._recorded = event

    async def _take(self, place: Place, decision: Decision, material: Material) -> None:
        step, release = decision.step, decision.state.release
        await carry_out(place, step, material)
        match step:
            case Switch(live=live):
                self.store.record_event("Normal", "Switched", f"requests go to {live}")
            case RunHook() if release is not None:
                await self.store.run_hook(release, step)
            case Finish(outcome="Deleted", reason=reason, message=message):
                await self._let_go(place, reason, message)
            case Finish(outcome=outcome, reason=reason, message=message):
                good = outcome == "Promoted"
                self.store.record_event("Normal" if good else "Warning", str(outcome), f"{reason}: {message}")
                await keep_only(place, decision.state)
            case Retire() if decision.state.releasing is None:
                await keep_only(place, decision.state)

    async def _let_go(self, place: Place, reason: str, message: str) -> None:
        deployment = self.store.deployment
        if reason == "Abandoned":
            self.store.record_event("Warning", reason, f"{message}: {place.target.leftovers}")
        if reason == "Deleted":
            await self.places.remove(deployment)
        else:
            await self.places.abandon(deployment)
        await self.store.forget()


async def _observe(place: Place) -> tuple[Mapping[int, Revision], ObservedState]:
    """The revisions that are kept, and what is on the target, which is out of reach where they cannot be read."""
    revisions: Mapping[int, Revision] = {}
    unreadable = ""
    try:
        revisions = await place.revisions.all()
    except DeploymentError as error:
        unreadable = str(error)
    observed = await place.target.observe()
    return revisions, observed if observed.unreachable or not unreadable else ObservedState(unreachable=unreadable)
