"""What a release remembers between two looks at the world. It lives in the Deployment's status.

Whatever can be seen in the world is not remembered here: memory may be one step behind, when the operator was killed.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace

from remit.api.deploymentstatus import (
    STAGES,
    HookTask,
    LiveSide,
    Outcome,
    ReleaseFailure,
    RequestAnswer,
    Slot,
    StageName,
    StageStatus,
    StrategyType,
)
from remit.release.model import HookKey, HookView, Problem


@dataclass(frozen=True, slots=True)
class Release:
    """One revision on its way to be live, or what is known of it once it ended."""

    revision: int
    slot: Slot
    key: str
    """What the spec declared when it began."""
    spec_hash: str
    artifact: str
    replicas: int
    """How many instances the new side should have."""
    strategy: StrategyType
    started_at: datetime.datetime
    clock: datetime.datetime
    """The last progress: the deadline counts from here."""
    rollback: bool = False
    """It returns to an earlier revision: no hooks, no gate, no bake, everything switched at once."""
    pins: bool = False
    """It was asked for by a request: its revision holds until the spec changes."""
    stages: tuple[StageStatus, ...] = tuple(StageStatus(name=name, state="Waiting") for name in STAGES)
    best: int = 0
    """The most instances that were ever healthy at once: only more than that is progress, so flapping is none."""
    held: bool = False
    """It waits for somebody, or for a time to come: the deadline does not count."""
    go_ahead: bool = False
    """A promotion was asked for."""
    full: bool = False
    """All pauses are to be skipped."""
    step: int = 0
    """Canary: the step that it is at."""
    step_at: datetime.datetime | None = None
    """Since when it waits at a gate, or at a canary step."""
    promoted_at: datetime.datetime | None = None
    """When all requests were seen to go to it."""
    incarnations: Mapping[str, str] = field(default_factory=dict)
    """Of each new instance that has been healthy, the incarnation that was healthy first: any other one means that the
    instance crashed since."""
    hooks: tuple[HookTask, ...] = ()
    """The tasks of the hooks that it has run so far."""
    failure: ReleaseFailure | None = None
    outcome: Outcome | None = None
    """None while it goes on."""
    reason: str = ""
    """Why it ended so: a stable CamelCase word, and a sentence."""
    message: str = ""
    finished_at: datetime.datetime | None = None

    @property
    def stage(self) -> StageName | None:
        """The stage that it is in, or would enter next; None once all are behind it."""
        return next((record.name for record in self.stages if record.state in {"Waiting", "Running"}), None)

    def with_stage(self, name: StageName, **changes: object) -> Release:
        """A copy in which one stage's record is changed."""
        records = tuple(replace(r, **changes) if r.name == name else r for r in self.stages)  # type: ignore[arg-type]
        return replace(self, stages=records)

    @property
    def hook_uids(self) -> dict[HookKey, str]:
        """The uids of the tasks of its hooks."""
        return {HookKey(self.revision, record.stage, record.name): record.uid for record in self.hooks}

    def with_hooks(self, views: Mapping[HookKey, HookView]) -> Release:
        """A copy that remembers the tasks of the hooks that were seen."""
        seen = {key: view.uid for key, view in views.items() if view.uid and key.revision == self.revision}
        uids = self.hook_uids | seen
        hooks = tuple(HookTask(stage=key.stage, name=key.name, uid=uid) for key, uid in uids.items())
        return self if hooks == self.hooks else replace(self, hooks=hooks)

    def stage_record(self, name: StageName) -> StageStatus:
        return next(record for record in self.stages if record.name == name)


@dataclass(frozen=True, slots=True)
class Record:
    """One revision in the history."""

    revision: int
    artifact: str
    spec_hash: str
    replicas: int
    """How many instances it last had: a rollback brings these back, too."""
    deployed_at: datetime.datetime
    digest: str = ""
    """Of what it was made from, once that is known."""
    outcome: Outcome | None = None
    promoted_at: datetime.datetime | None = None
    duration_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class Memory:
    """All that is remembered of a Deployment."""

    live: LiveSide | None = None
    release: Release | None = None
    """The release that goes on, or else the last one."""
    history: tuple[Record, ...] = ()
    """The newest first."""
    latest: int = 0
    """The highest number ever given to a revision."""
    key: str = ""
    """What the spec declared when it was last looked at."""
    settled: bool = False
    """What the spec declares has come to its end, good or bad: nothing begins until it changes."""
    replicas: int | None = None
    """`spec.replicas` when it was last looked at."""
    pin: int | None = None
    """The revision that a request returned to; it holds until the spec changes."""
    rollback_to: int | None = None
    """A rollback that was asked for and has not begun."""
    paused: bool = False
    """A request paused it."""
    idle_since: datetime.datetime | None = None
    """Since when the old side is kept for a fast way back."""
    drain_since: datetime.datetime | None = None
    answer: RequestAnswer | None = None
    """What became of the last request."""

    @property
    def releasing(self) -> Release | None:
        """The release that goes on."""
        return self.release if self.release is not None and self.release.outcome is None else None

    def may_contact(self, problem: Problem | None) -> bool:
        """Whether the target may be contacted: policy allows what the spec declares, or has allowed a release before.

        The kind of a target, its engine and its namespace never change, so what was allowed then is there still.
        """
        return self.latest > 0 or problem is None

    @property
    def pinning(self) -> bool:
        """A request returned to a revision that holds, or is about to."""
        release = self.releasing
        return self.pin is not None or self.rollback_to is not None or (release is not None and release.pins)

    def record(self, revision: int) -> Record | None:
        return next((record for record in self.history if record.revision == revision), None)
