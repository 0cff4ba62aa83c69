"""What Remit says of a Deployment."""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Literal

from pydantic import Field

from remit.api.base import Conditions, StatusModel, Time, map_by

Slot = Literal["blue", "green"]
StageName = Literal[
    "Validate", "Prepare", "Provision", "Health", "PrePromotion", "Promote", "PostPromotion", "Bake", "Retire"
]


class DeploymentPhase(StrEnum):
    """Where a release stands, for people. Machines read the conditions."""

    PENDING = "Pending"
    PROGRESSING = "Progressing"
    AWAITING_PROMOTION = "AwaitingPromotion"
    PAUSED = "Paused"
    ROLLING_BACK = "RollingBack"
    HEALTHY = "Healthy"
    DEGRADED = "Degraded"
    FAILED = "Failed"


class StageStatus(StatusModel):
    """One stage of the current release."""

    name: StageName
    """Which stage."""
    state: Literal["Waiting", "Running", "Done", "Failed", "Skipped"]
    """How far it is."""
    started_at: Time | None = None
    """When it started."""
    finished_at: Time | None = None
    """When it ended."""
    message: str = ""
    """What happened, in one sentence."""


class ReleaseReport(StatusModel):
    """What a release took."""

    stage_seconds: dict[str, float] = {}
    """Duration of each stage, in seconds."""
    switch_milliseconds: float | None = None
    """How long the switch took, from the command to the last answer of the old side, in milliseconds."""
    requests_during_switch: int = 0
    """How many requests the probe made through the switch."""
    failed_during_switch: int = 0
    """How many of them failed."""
    restarts: int = 0
    """How often replicas of the new side were started again."""
    ref: str = ""
    """Where the whole report is."""


class RevisionStatus(StatusModel):
    """A revision that was released, or was tried."""

    revision: int
    """Its number, counted from 1."""
    artifact: str
    """What it put live, such as `shop:v2`."""
    spec_hash: str = ""
    """Digest of the artifact and its whole configuration, ConfigMaps and Secrets included."""
    deployed_at: Time | None = None
    """When its release started."""
    promoted_at: Time | None = None
    """When it went live."""
    outcome: Literal["InProgress", "Promoted", "Aborted", "Failed", "Superseded", "RolledBack"] = "InProgress"
    """How its release ended."""
    duration_seconds: float | None = None
    """How long its release took, in seconds."""
    report: ReleaseReport | None = None
    """What its release took."""


class DeploymentStatus(StatusModel):
    """What is live, and how the current release goes."""

    observed_generation: int = -1
    """The `metadata.generation` that this status speaks of."""
    phase: DeploymentPhase | None = None
    """Where the release stands, for people. Machines read the conditions."""
    stage: str = ""
    """The stage that the release is in."""
    active: str = ""
    """What is live, for the table: the artifact and its revision."""
    preview: str = ""
    """What is about to go live, for the table."""
    ready: str = ""
    """Healthy and wanted replicas of the active side, such as `2/2`."""
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
    """Available, Progressing, Healthy, Reconciling and Stalled."""
    stages: Annotated[list[StageStatus], Field(json_schema_extra=map_by("name"))] = []
    """The stages of the current release, in order."""
    history: Annotated[list[RevisionStatus], Field(json_schema_extra=map_by("revision"))] = []
    """The revisions, the newest first."""
    report: ReleaseReport | None = None
    """What the last release took."""
