"""What Remit says of a Deployment."""

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
"""Part of the pipeline's state that has a place of its own in status, and is written only there."""


@dataclass(frozen=True, slots=True, kw_only=True)
class StageStatus(StatusRecord):
    """One stage of the current release."""

    name: StageName
    """Which stage."""
    state: StageState
    """How far it is."""
    started_at: Time | None = None
    """When it started."""
    finished_at: Time | None = None
    """When it ended."""
    message: str = ""
    """What happened, in one sentence."""


class SlotStatus(StatusModel):
    """One of the two sides that holds something."""

    name: Slot
    """Which side."""
    revision: int
    """What is on it."""
    replicas: int = 0
    """How many instances it was told to have."""
    ready_replicas: int = 0
    """Those of them that are healthy."""
    restarts: int = 0
    """How often its instances were started again."""
    draining: bool = False
    """It gets no new requests and finishes those it has."""
    message: str = ""
    """What is wrong with its instances, in one sentence."""


class ReleaseReport(StatusModel):
    """What a release took."""

    revision: int = 0
    """What was released."""
    started_at: Time | None = None
    """When that began."""
    stage_seconds: dict[str, float] = {}
    """Duration of each stage, in seconds."""
    switch_milliseconds: float | None = None
    """How long the switch took, from the command until the target was seen to have carried it out, in milliseconds; the
    slowest one, where there were several."""
    requests_during_switch: int = 0
    """How many requests the probe made through the switch."""
    failed_during_switch: int = 0
    """How many of them failed."""
    requests_in_bake: int | None = None
    """How many requests the proxy gave to the new side from the switch to the end of the bake, where it can tell."""
    failed_in_bake: int | None = None
    """How many of them failed."""
    restarts: int = 0
    """How often replicas of the new side were started again."""
    missing: list[str] = []
    """What is not known of it, and why, in one sentence each."""
    ref: str = ""
    """Where the whole report is, on the operator's host."""


@dataclass(frozen=True, slots=True, kw_only=True)
class LiveSide(StatusRecord):
    """The side to rely on: the last one whose release came to a good end. Every rollback returns to it."""

    slot: Slot
    """Which side."""
    revision: int
    """What is on it."""
    spec_hash: str = ""
    """Digest of that revision."""
    replicas: int = 0
    """How many instances it should have."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseFailure(StatusRecord):
    """Why a release went back, or goes back."""

    outcome: Outcome
    """How it ends, then."""
    reason: str
    """One stable CamelCase word."""
    message: str = ""
    """What happened, in one sentence."""
    at: Time
    """When it turned back."""
    asked: bool = False  # then it goes back even where `rollback.automatic` is false
    """Whether somebody, or a newer spec, wanted it."""


@dataclass(frozen=True, slots=True, kw_only=True)
class HookTask(StatusRecord):
    """The task that was created for a hook."""

    stage: StageName
    """The stage that the hook is part of."""
    name: str
    """Which hook."""
    uid: str
    """Of the task. No other task speaks for the hook, whatever its name and labels say."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestCount(StatusRecord):
    """What the proxy had counted of the new side at a moment."""

    at: Time
    """When."""
    requests: int
    """How many requests it had answered."""
    failed: int
    """How many of them had failed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Release(StatusRecord):
    """The release that goes on, or the last one."""

    revision: int
    """The revision on its way."""
    slot: Slot
    """The side it is brought to."""
    key: str = ""
    """What the spec declared when it began."""
    spec_hash: str = ""
    """Digest of the revision."""
    artifact: str = ""
    """What it puts live."""
    replicas: int = 0
    """How many instances the new side should have."""
    strategy: StrategyType = "BlueGreen"
    """How it takes over."""
    started_at: Time
    """When it began."""
    clock: Time
    """The last progress, from which the deadline counts."""
    rollback: bool = False
    """It returns to an earlier revision."""
    pins: bool = False
    """A request asked for that rollback."""
    best: int = 0
    """The most healthy instances that were seen on the new side."""
    held: bool = False
    """It waits on purpose; the deadline does not count."""
    go_ahead: bool = False
    """A promotion was asked for."""
    full: bool = False
    """All pauses are skipped."""
    step: int = 0
    """The canary step that it is at, counted from 0."""
    step_at: Time | None = None
    """Since when it waits at a gate or a canary step."""
    promoted_at: Time | None = None
    """When it went live."""
    requests_before: int | None = None
    """How many requests the proxy had given to the new side before it went live, where it can tell."""
    failed_before: int | None = None
    """How many of them had failed."""
    marks: tuple[RequestCount, ...] = ()
    """Counts of the last minutes of the bake, from which the share of requests that failed lately is computed."""
    requests: int | None = None
    """How many requests the new side got since it is live; known once the bake is over."""
    failed_requests: int | None = None
    """How many of them failed."""
    incarnations: Mapping[str, str] = field(default_factory=dict)
    """Which run of each new instance was healthy first: another one means that the instance crashed since."""
    hooks: tuple[HookTask, ...] = ()
    """The tasks of the hooks that it has run so far."""
    failure: ReleaseFailure | None = None
    """Why it goes back, if it does."""
    outcome: Outcome | None = None
    """How it ended."""
    reason: str = ""
    """Why it ended so, as one stable CamelCase word."""
    message: str = ""
    """Why it ended so, in one sentence."""
    finished_at: Time | None = None
    """When it ended."""
    stages: _Beside[tuple[StageStatus, ...]] = tuple(StageStatus(name=name, state="Waiting") for name in STAGES)
    """How far each stage is, in order: `status.stages`."""

    @property
    def stage(self) -> StageName | None:
        """The stage that it is in, or would enter next; None once all are behind it."""
        return next((stage.name for stage in self.stages if stage.state in {"Waiting", "Running"}), None)

    def stage_record(self, name: StageName) -> StageStatus:
        return next(stage for stage in self.stages if stage.name == name)

    def with_stage(self, name: StageName, **changes: object) -> Release:
        """A copy in which one stage's record is changed."""
        stages = tuple(replace(s, **changes) if s.name == name else s for s in self.stages)  # type: ignore[arg-type]
        return replace(self, stages=stages)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequestAnswer(StatusRecord):
    """What became of the last request by hand."""

    id: str
    """Which request."""
    kind: RequestKind | None = None
    """What was asked for; not set for a request that has a mistake in it."""
    accepted: bool
    """Whether it could be followed."""
    message: str = ""
    """What came of it, or why it was refused."""
    at: Time
    """When it was taken."""


@dataclass(frozen=True, slots=True, kw_only=True)
class RevisionStatus(StatusRecord):
    """A revision that was released, or was tried."""

    revision: int
    """Its number, counted from 1."""
    artifact: str
    """What it put live, such as `shop:v2`."""
    spec_hash: str = ""
    """Digest of the artifact and its whole configuration, ConfigMaps and Secrets included."""
    digest: str = ""
    """Digest of its artifact's content, where the operator keeps a copy. Only that content is returned to."""
    replicas: int = 0
    """How many instances it last had; a rollback brings these back, too."""
    deployed_at: Time | None = None
    """When its release started."""
    promoted_at: Time | None = None
    """When it went live."""
    outcome: Literal["InProgress", Outcome] = "InProgress"
    """How its release ended."""
    duration_seconds: float | None = None
    """How long its release took, in seconds."""
    report: ReleaseReport | None = None
    """What its release took."""


@dataclass(frozen=True, slots=True, kw_only=True)
class PipelineState(StatusRecord):
    """All that the pipeline remembers between two steps. For the operator; nothing in here is API.

    What can be observed is not remembered: when the operator was killed, the state may be one step behind the target.
    """

    live: LiveSide | None = None
    """The side to return to."""
    release: Release | None = None
    """The release that goes on, or the last one."""
    latest: int = 0
    """The highest revision number ever given."""
    key: str = ""
    """What the spec declares."""
    settled: bool = False
    """What the spec declares has come to its end, good or bad."""
    replicas: int | None = None
    """`spec.replicas` as last seen."""
    rollback_to: int | None = None
    """A rollback that was asked for and has not begun."""
    paused: bool = False
    """A request paused it."""
    idle_since: Time | None = None
    """Since when the old side is kept for a fast rollback."""
    drain_since: Time | None = None
    """Since when the idle side is drained."""
    history: _Beside[tuple[RevisionStatus, ...]] = ()
    """The revisions, the newest first: `status.history`."""
    pin: _Beside[int | None] = None
    """The revision that a request returned to, until the spec changes: `status.pinnedRevision`."""
    answer: _Beside[RequestAnswer | None] = None
    """What became of the last request: `status.request`."""

    @property
    def releasing(self) -> Release | None:
        """The release that goes on."""
        return self.release if self.release is not None and self.release.outcome is None else None

    @property
    def pinning(self) -> bool:
        """A request returned to a revision that holds, or is about to."""
        release = self.releasing
        return self.pin is not None or self.rollback_to is not None or (release is not None and release.pins)

    def record(self, revision: int) -> RevisionStatus | None:
        """What the history says of this revision."""
        return next((record for record in self.history if record.revision == revision), None)


class DeploymentStatus(StatusModel):
    """What is live, and how the current release goes."""

    observed_generation: int = -1
    """The `metadata.generation` that this status speaks of."""
    phase: DeploymentPhase | None = None
    """Where the release stands, for people. Machines read the conditions."""
    stage: str = ""
    """The stage that the release is in, or in which it failed while it goes back."""
    active: str = ""
    """What is live, for the table: the artifact and its revision."""
    preview: str = ""
    """What is about to go live, for the table."""
    ready: str = ""
    """Healthy instances that requests go to, and how many there should be, such as `2/2`."""
    message: str = ""
    """The last thing that happened, in one sentence."""
    active_slot: Slot | None = None
    """The side that is live."""
    active_revision: int | None = None
    """The revision that is live."""
    preview_revision: int | None = None
    """The revision that is about to go live."""
    pinned_revision: int | None = None
    """The revision that a rollback returned to; it holds until `spec` changes."""
    replicas: int = 0
    """Replicas of the active side."""
    ready_replicas: int = 0
    """Those of them that are healthy."""
    conditions: Conditions = []
    """Available, Progressing, Healthy, Reconciling and Stalled. Wait for Healthy: it is True only where what the spec
    declares is live. Available is about what serves, whichever revision that is."""
    slots: Annotated[list[SlotStatus], Field(json_schema_extra=map_by("name"))] = []
    """The sides that hold something, as they were last seen."""
    stages: Annotated[tuple[StageStatus, ...], Field(json_schema_extra=map_by("name"))] = ()
    """The stages of the current release, in order."""
    history: Annotated[tuple[RevisionStatus, ...], Field(json_schema_extra=map_by("revision"))] = ()
    """The revisions, the newest first."""
    report: ReleaseReport | None = None
    """What the last release took."""
    request: RequestAnswer | None = None
    """What became of the last request by hand."""
    pipeline: Annotated[PipelineState, Field(validate_default=True)] = PipelineState()
    """What the pipeline remembers. For the operator; nothing in here is API."""

    @field_validator("pipeline")
    @classmethod
    def _with_what_is_beside(cls, pipeline: PipelineState, info: ValidationInfo) -> PipelineState:
        """The whole state: what users read of it is written above, and only there."""
        above = info.data
        if not above.keys() >= {"stages", "history", "pinned_revision", "request"}:
            return pipeline  # one of them is invalid, which is reported
        release = replace(pipeline.release, stages=above["stages"]) if pipeline.release else None
        return replace(
            pipeline,
            release=release,
            history=above["history"],
            pin=above["pinned_revision"],
            answer=above["request"],
        )
