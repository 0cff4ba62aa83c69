"""The input of the pipeline: the desired state, and the state that was observed. Data only.

A Deployment has two sides, the slots blue and green. One of them is live: requests go there. The other one is idle:
empty, a preview of what comes next, or what was live before and is kept for a fast way back.
"""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Literal

from remit.api.deployment import DeploymentSpec
from remit.api.deploymentstatus import HookTask, PipelineState, Release, RequestKind, StageName
from remit.api.slots import Slot


@dataclass(frozen=True, slots=True)
class SourceVersion:
    """The version of a ConfigMap or Secret with which a revision was made, never its values."""

    kind: Literal["ConfigMap", "Secret"]
    name: str
    version: str
    """A digest of its data, of a Secret's under a key; empty where it was optional and not there."""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Everything that a rollback restores, but for the values of secrets: those are kept under `spec_hash`."""

    artifact: str
    """What it is, for people, such as `shop:v2`."""
    spec: DeploymentSpec
    """The spec as it was."""
    spec_hash: str
    """Digest of what makes a revision: artifact, target, ports, configuration, resources and health check, and the
    versions. Replicas, strategy, stages, `paused` and `rollbackTo` are not in it."""
    versions: tuple[SourceVersion, ...] = ()
    former_hash: str = ""
    """`spec_hash` as version 0.1 computed it; empty where it is not known."""


@dataclass(frozen=True, slots=True)
class Revision:
    """A snapshot with its number, counted from 1 and never used twice in one Deployment."""

    number: int
    snapshot: Snapshot


@dataclass(frozen=True, slots=True)
class ReleaseRequest:
    """Something that was asked for by hand. It is consumed once, known by its id, and answered in status."""

    id: str
    kind: RequestKind
    revision: int | None = None
    """For rollback: where to; None is the last good revision before the live one. For promote and abort: that which is
    meant; None is whichever is on its way."""
    full: bool = False
    """For promote: whether to skip all remaining pauses, not only this one."""


@dataclass(frozen=True, slots=True)
class MalformedRequest:
    """A request with a mistake in it: it is refused with this message."""

    id: str
    message: str


@dataclass(frozen=True, slots=True)
class SpecProblem:
    """Why what is desired cannot be released as it is, such as a Secret that is missing."""

    reason: str
    """A stable CamelCase word."""
    message: str
    retryable: bool = True
    """Whether it may pass without an edit of the spec."""


@dataclass(frozen=True, slots=True)
class Desired:
    """The state that the user wants."""

    snapshot: Snapshot
    """What the spec asks for now."""
    revisions: Mapping[int, Revision] = field(default_factory=dict)
    """The revisions that are kept and can be returned to, by number."""
    request: ReleaseRequest | MalformedRequest | None = None
    problem: SpecProblem | None = None
    obstacles: Mapping[int, SpecProblem] = field(default_factory=dict)
    """Why kept revisions cannot be returned to, such as an artifact that is gone. Of those that are asked for alone."""
    deleted: bool = False
    """The Deployment is being deleted."""
    abandon_at: datetime.datetime | None = None
    """When a deletion gives up on a target that is out of reach; None: never."""

    @property
    def spec(self) -> DeploymentSpec:
        return self.snapshot.spec

    @property
    def replicas(self) -> int:
        return self.snapshot.spec.replicas

    @property
    def key(self) -> str:
        """The key of what the spec declares to be live: another key is another release."""
        back = self.spec.rollback_to
        return self.snapshot.spec_hash if back is None else f"revision-{back.revision}"


@dataclass(frozen=True, slots=True)
class InstanceView:
    """One instance of a side, as it was observed."""

    incarnation: str = ""
    """Identifies this run of it, and changes each time that it is started again; empty while it does not run."""
    healthy: bool = False
    """It passes its health check now, thresholds applied."""
    restarts: int = 0
    """How often it was started again."""


@dataclass(frozen=True, slots=True)
class SlotView:
    """One side, as it was observed."""

    revision: int | None = None
    """What was provisioned on it; None: nothing is left of anything."""
    wanted: int = 0
    """How many instances it was last told to have."""
    started: int = 0
    """Number of instances that exist, in any state."""
    healthy: int = 0
    """How many pass their health check now, thresholds applied."""
    failed: int = 0
    """How many are down, or fail their health check beyond its threshold, now."""
    restarts: int = 0
    """How often instances were started again since it was provisioned."""
    hopeless: str = ""
    """Why its instances will never start, where waiting cannot help, such as an image that does not exist."""
    draining: bool = False
    """It gets no new requests and finishes those it has."""
    connections: int = 0
    """Requests in flight, or connections open, where the target can tell."""
    requests: int | None = None
    """How many requests it got since the target counts, where it can tell."""
    failed_requests: int = 0
    """How many of them failed, as a client sees it."""
    message: str = ""
    """What is wrong with its instances, in one sentence, such as the last line of one that crashed."""
    instances: Mapping[str, InstanceView] = field(default_factory=dict)
    """Instances by name, without those that were removed on purpose, by scaling down or by their node."""


@dataclass(frozen=True, slots=True)
class StepError:
    """How the last step failed, where it did."""

    reason: str
    """A stable CamelCase word, such as `ImageNotFound` or `PortTaken`."""
    message: str
    retryable: bool
    revision: int | None = None
    """The revision that the step was about."""


@dataclass(frozen=True, slots=True)
class HookKey:
    """Identifies a run of a hook, which runs once for a revision in each stage that lists it."""

    revision: int
    stage: StageName
    name: str


@dataclass(frozen=True, slots=True)
class HookView:
    """The observed state of a hook's task. Only `Succeeded` lets a release continue; any other end is `Failed`."""

    state: Literal["Running", "Succeeded", "Failed"]
    message: str = ""
    uid: str = ""
    """The uid of the task, which the release remembers. Empty where hooks are not objects of an API server."""


def hook_uids(release: Release) -> dict[HookKey, str]:
    """The uids of the tasks of its hooks."""
    return {HookKey(release.revision, task.stage, task.name): task.uid for task in release.hooks}


def with_hooks(release: Release, views: Mapping[HookKey, HookView]) -> Release:
    """A copy that remembers the tasks of the hooks that were seen."""
    seen = {key: view.uid for key, view in views.items() if view.uid and key.revision == release.revision}
    uids = hook_uids(release) | seen
    hooks = tuple(HookTask(stage=key.stage, name=key.name, uid=uid) for key, uid in uids.items())
    return release if hooks == release.hooks else replace(release, hooks=hooks)


def may_contact(state: PipelineState, problem: SpecProblem | None) -> bool:
    """Whether the target may be contacted: policy allows what the spec declares, or has allowed a release before.

    The kind of a target, its engine and its namespace never change, so what was allowed then is there still.
    """
    return state.latest > 0 or problem is None


@dataclass(frozen=True, slots=True)
class ObservedState:
    """The observed state. A target fills in all but `hooks` and `error`."""

    blue: SlotView = SlotView()
    green: SlotView = SlotView()
    live: Slot | None = None
    """The side that gets requests; None: none yet."""
    share: int = 0
    """Percent of the requests that go to the other side all the same."""
    failover: bool = False
    """Whether requests that cannot be brought to `live` go to the other side."""
    converged: bool = True
    """Whether the data plane was seen to do what `live` and `share` say."""
    preview: Slot | None = None
    """The side to which the preview endpoint leads."""
    address: str = "127.0.0.1"
    """The host of published ports, as in a URL; empty if there is none yet."""
    prepared: frozenset[int] = frozenset()
    """Revisions whose artifact is at hand on the target."""
    digests: Mapping[int, str] = field(default_factory=dict)
    """The digest of each revision's source, if the target knows it."""
    unreachable: str = ""
    """Why the target could not be observed. All other fields are then meaningless."""
    watched: bool = False
    """Whether the target tells by itself when anything of this changes."""
    hooks: Mapping[HookKey, HookView] = field(default_factory=dict)
    error: StepError | None = None

    def slot(self, slot: Slot) -> SlotView:
        return self.blue if slot == "blue" else self.green

    def without(self, slot: Slot) -> ObservedState:
        """The state once `slot` is empty."""
        return replace(self, blue=SlotView()) if slot == "blue" else replace(self, green=SlotView())

    def holding(self, revision: int, slot: Slot) -> bool:
        """Whether `slot` has this revision, and is not on its way out."""
        view = self.slot(slot)
        return view.revision == revision and not view.draining

    def ready(self, revision: int, slot: Slot, replicas: int) -> bool:
        """Whether `slot` could take all requests with this revision."""
        view = self.slot(slot)
        return self.holding(revision, slot) and view.wanted >= replicas and view.healthy >= replicas
