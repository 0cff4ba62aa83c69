"""Status of a Deployment: what is live, how the current release proceeds, and the state of the pipeline."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Annotated, Literal, TypeVar, get_args

from pydantic import Field, ValidationInfo, field_validator
from pydantic.json_schema import SkipJsonSchema

from remit.api.base import Conditions, StatusModel, StatusRecord, Time, map_by
from remit.api.phases import DeploymentPhase
from remit.api.slots import Slot

StageName = Literal[
    "Validate", "Prepare", "Provision", "Health", "PrePromotion", "Promote", "PostPromotion", "Bake", "Retire"
]
STAGES: tuple[StageName, ...] = get_args(StageName)
StageState = Literal["Waiting", "Running", "Done", "Failed", "Skipped"]
StrategyType = Literal["BlueGreen", "Canary", "Rolling", "Recreate"]
Outcome = Literal["Promoted", "Aborted", "Failed", "Superseded", "RolledBack"]
"""How a release ended."""
RequestKind = Literal["promote", "abort", "rollback", "retry", "pause", "resume"]

_Part = TypeVar("_Part")
_Beside = Annotated[SkipJsonSchema[_Part], Field(exclude=True)]
"""A field of the pipeline's state that is a field of the status itself and is serialized only there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus(StatusRecord):
    """One stage of the current release."""

    name: StageName
    """Name of the stage."""
    state: StageState
    """State of the stage."""
    started_at: Time | None = None
    """When the stage started."""
    finished_at: Time | None = None
    """When the stage ended."""
    message: str = ""
    """What happened in the stage, in one sentence."""


class SlotStatus(StatusModel):
    """One of the two sides, if it has instances or a revision."""

    name: Slot
    """Name of the side."""
    revision: int
    """The revision on the side."""
    replicas: int = 0
    """Number of instances that the side should have."""
    ready_replicas: int = 0
    """Number of its instances that are healthy."""
    restarts: int = 0
    """How often its instances were restarted."""
    draining: bool = False
    """Whether the side gets no new requests and only finishes those it has."""
    message: str = ""
    """What is wrong with its instances, in one sentence."""


class ReleaseReport(StatusModel):
    """Measurements of a release."""

    revision: int = 0
    """The revision that was released."""
    started_at: Time | None = None
    """When the release began."""
    stage_seconds: dict[str, float] = {}
    """Duration of each stage, in seconds."""
    switch_milliseconds: float | None = None
    """Duration of the switch, from the command until the target was observed to have carried it out, in milliseconds.
    If there were several switches, this is the slowest one."""
    requests_during_switch: int = 0
    """Number of requests that the probe made during the switch."""
    failed_during_switch: int = 0
    """Number of these requests that failed."""
    requests_in_bake: int | None = None
    """Number of requests that the proxy forwarded to the new side from the switch to the end of the bake, if it counts
    them."""
    failed_in_bake: int | None = None
    """Number of these requests that failed."""
    restarts: int = 0
    """How often replicas of the new side were restarted."""
    missing: list[str] = []
    """Measurements that are not known, and why, in one sentence each."""
    ref: str = ""
    """Path of the whole report on the operator's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSide(StatusRecord):
    """The side whose release was the last to succeed. Every rollback returns to it."""

    slot: Slot
    """Name of the side."""
    revision: int
    """The revision on the side."""
    spec_hash: str = ""
    """Digest of that revision."""
    replicas: int = 0
    """Number of instances that the side should have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFailure(StatusRecord):
    """Why a release is rolled back, or was."""

    outcome: Outcome
    """The outcome of the release once the rollback has ended."""
    reason: str
    """The reason, as one stable CamelCase word."""
    message: str = ""
    """What happened, in one sentence."""
    at: Time
    """When the rollback began."""
    asked: bool = False  # if True, the release is rolled back even if `rollback.automatic` is false
    """Whether a user or a newer spec requested the rollback."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookTask(StatusRecord):
    """The task that was created for a hook."""

    stage: StageName
    """The stage that the hook is part of."""
    name: str
    """Name of the hook."""
    uid: str
    """The uid of the task. The result of another task is not used for the hook, even if its name and labels match."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCount(StatusRecord):
    """The proxy's counters of the new side at one point in time."""

    at: Time
    """When the counters were read."""
    requests: int
    """Number of requests that the side had answered."""
    failed: int
    """Number of these requests that had failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(StatusRecord):
    """The current release, or the last one."""

    revision: int
    """The revision that is released."""
    slot: Slot
    """The side that the revision is released to."""
    key: str = ""
    """What the spec declared when the release began: its digest, or `revision-N` for a rollback."""
    spec_hash: str = ""
    """Digest of the revision."""
    artifact: str = ""
    """The artifact of the revision."""
    replicas: int = 0
    """Number of instances that the new side should have."""
    strategy: StrategyType = "BlueGreen"
    """How the new side takes over."""
    started_at: Time
    """When the release began."""
    clock: Time
    """When the release last made progress. The progress deadline counts from here."""
    rollback: bool = False
    """Whether the release returns to an earlier revision."""
    pins: bool = False
    """Whether a request asked for that rollback. The revision is then pinned."""
    best: int = 0
    """The highest number of healthy instances that was observed on the new side."""
    held: bool = False
    """Whether the release waits on purpose. The progress deadline does not count then."""
    go_ahead: bool = False
    """Whether a promotion was requested."""
    full: bool = False
    """Whether all pauses are skipped."""
    step: int = 0
    """The current canary step, counted from 0."""
    step_at: Time | None = None
    """Since when the release waits at a gate or a canary step."""
    promoted_at: Time | None = None
    """When the new side went live."""
    requests_before: int | None = None
    """Number of requests that the proxy had forwarded to the new side before it went live, if it counts them."""
    failed_before: int | None = None
    """Number of these requests that had failed."""
    marks: tuple[RequestCount, ...] = ()
    """Counters of the last minutes of the bake, from which the recent share of failed requests is computed."""
    requests: int | None = None
    """Number of requests to the new side since it went live. Set when the bake has ended."""
    failed_requests: int | None = None
    """Number of these requests that failed."""
    incarnations: Mapping[str, str] = field(default_factory=dict)
    """The run of each new instance that was healthy first, by instance. A different run means that the instance crashed
    since then."""
    hooks: tuple[HookTask, ...] = ()
    """The tasks of the hooks that have run so far."""
    failure: ReleaseFailure | None = None
    """Why the release is rolled back, if it is."""
    outcome: Outcome | None = None
    """How the release ended."""
    reason: str = ""
    """The reason of the outcome, as one stable CamelCase word."""
    message: str = ""
    """The reason of the outcome, in one sentence."""
    finished_at: Time | None = None
    """When the release ended."""
    stages: _Beside[tuple[StageStatus, ...]] = tuple(StageStatus(name=name, state="Waiting") for name in STAGES)
    """The state of each stage, in order; serialized as `status.stages`."""

    @property
    def stage(self) -> StageName | None:
        """The current or next stage. None if all stages have ended."""
        return next((stage.name for stage in self.stages if stage.state in {"Waiting", "Running"}), None)

    def stage_record(self, name: StageName) -> StageStatus:
        return next(stage for stage in self.stages if stage.name == name)

    def with_stage(self, name: StageName, **changes: object) -> Release:
        """Returns a copy with changes to the record of one stage."""
        stages = tuple(replace(s, **changes) if s.name == name else s for s in self.stages)  # type: ignore[arg-type]
        return replace(self, stages=stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAnswer(StatusRecord):
    """The answer to a user's last request, such as a promotion."""

    id: str
    """The id of the request."""
    kind: RequestKind | None = None
    """What was requested. Not set if the request is invalid."""
    accepted: bool
    """Whether the request was accepted."""
    message: str = ""
    """The effect of the request, or why it was refused."""
    at: Time
    """When the operator processed the request."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionStatus(StatusRecord):
    """A revision with a release, whether the release succeeded or not."""

    revision: int
    """Number of the revision, counted from 1."""
    artifact: str
    """The artifact of the revision, such as `shop:v2`."""
    spec_hash: str = ""
    """Digest of the artifact and its whole configuration, including ConfigMaps and Secrets."""
    digest: str = ""
    """Digest of the artifact's content, if the operator keeps a copy. A rollback uses only content with this digest."""
    replicas: int = 0
    """Number of instances that the revision last had. A rollback restores it."""
    deployed_at: Time | None = None
    """When the release of the revision started."""
    promoted_at: Time | None = None
    """When the revision went live."""
    outcome: Literal["InProgress", Outcome] = "InProgress"
    """How the release of the revision ended."""
    duration_seconds: float | None = None
    """Duration of the release, in seconds."""
    report: ReleaseReport | None = None
    """Measurements of the release."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineState(StatusRecord):
    """The pipeline's state between two steps. It is internal to the operator and not part of the API.

    It does not contain what can be observed. After the operator was killed, the state may be one step behind the
    target.
    """

    live: LiveSide | None = None
    """The side that a rollback returns to."""
    release: Release | None = None
    """The current release, or the last one."""
    latest: int = 0
    """The highest revision number that was assigned so far."""
    key: str = ""
    """What the spec declares: its digest, or `revision-N` for a rollback."""
    settled: bool = False
    """Whether the release of what the spec declares has ended, successfully or not."""
    replicas: int | None = None
    """The last observed value of `spec.replicas`."""
    rollback_to: int | None = None
    """The revision of a rollback that was requested and has not begun."""
    paused: bool = False
    """Whether a request paused the release."""
    idle_since: Time | None = None
    """Since when the old side is kept for a fast rollback."""
    drain_since: Time | None = None
    """Since when the idle side is drained."""
    history: _Beside[tuple[RevisionStatus, ...]] = ()
    """The revisions, newest first; serialized as `status.history`."""
    pin: _Beside[int | None] = None
    """The revision that a request returned to, until the spec changes; serialized as `status.pinnedRevision`."""
    answer: _Beside[RequestAnswer | None] = None
    """The answer to the last request; serialized as `status.request`."""

    @property
    def releasing(self) -> Release | None:
        """The current release. None if no release is in progress."""
        return self.release if self.release is not None and self.release.outcome is None else None

    @property
    def pinning(self) -> bool:
        """Whether a request returned to a revision that is still pinned, or is about to."""
        release = self.releasing
        return self.pin is not None or self.rollback_to is not None or (release is not None and release.pins)

    def record(self, revision: int) -> RevisionStatus | None:
        """Returns the history's record of a revision, or None."""
        return next((record for record in self.history if record.revision == revision), None)


class DeploymentStatus(StatusModel):
    """What is live, and the progress of the current release."""

    observed_generation: int = -1
    """The `metadata.generation` that this status describes."""
    phase: DeploymentPhase | None = None
    """State of the release for people. Programs should read the conditions."""
    stage: str = ""
    """The current stage of the release. During a rollback, the stage that failed."""
    active: str = ""
    """The live artifact and its revision, for the table of `kubectl get`."""
    preview: str = ""
    """The artifact that is about to go live and its revision, for the table of `kubectl get`."""
    ready: str = ""
    """Healthy instances that get requests, and their desired number, such as `2/2`."""
    message: str = ""
    """The last event, in one sentence."""
    active_slot: Slot | None = None
    """The side that is live."""
    active_revision: int | None = None
    """The revision that is live."""
    preview_revision: int | None = None
    """The revision that is about to go live."""
    pinned_revision: int | None = None
    """The revision that a rollback returned to. It stays live until `spec` changes."""
    replicas: int = 0
    """Number of replicas of the active side."""
    ready_replicas: int = 0
    """Number of these replicas that are healthy."""
    conditions: Conditions = []
    """Available, Progressing, Healthy, Reconciling and Stalled. Wait for Healthy: it is True only if what the spec
    declares is live. Available describes the live side, whichever revision it has."""
    slots: Annotated[list[SlotStatus], Field(json_schema_extra=map_by("name"))] = []
    """The sides that have instances or a revision, as last observed."""
    stages: Annotated[tuple[StageStatus, ...], Field(json_schema_extra=map_by("name"))] = ()
    """The stages of the current release, in order."""
    history: Annotated[tuple[RevisionStatus, ...], Field(json_schema_extra=map_by("revision"))] = ()
    """The revisions, newest first."""
    report: ReleaseReport | None = None
    """Measurements of the last release."""
    request: RequestAnswer | None = None
    """The answer to the last request of a user."""
    pipeline: Annotated[PipelineState, Field(validate_default=True)] = PipelineState()
    """The pipeline's state. It is internal to the operator and not part of the API."""

    @field_validator("pipeline")
    @classmethod
    def _with_what_is_beside(cls, pipeline: PipelineState, info: ValidationInfo) -> PipelineState:
        """Completes the state with the parts that are fields of the status and are serialized only there."""
        above = info.data
        if not above.keys() >= {"stages", "history", "pinned_revision", "request"}:
            return pipeline  # one of these fields is invalid, which pydantic reports
        release = replace(pipeline.release, stages=above["stages"]) if pipeline.release else None
        return replace(
            pipeline,
            release=release,
            history=above["history"],
            pin=above["pinned_revision"],
            answer=above["request"],
        )
