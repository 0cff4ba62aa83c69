"""The steps that a release is made of. Each is idempotent: done twice, it is as done once.

The driver writes `Decision.state` first, if it changed, and then takes the step: killed at any instant, it finds a
state that is at most one step behind the target.
"""

from __future__ import annotations

import datetime
from dataclasses import dataclass, replace
from typing import Literal

from remit.api.deployment import Hook
from remit.api.deploymentstatus import Outcome, PipelineState, StageName
from remit.api.slots import Slot
from remit.errors import RemitError
from remit.release.model import HookKey, Revision, StepError
from remit.telemetry.logs import escape


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing, until desired or observed state changes, or until `until`."""

    reason: str
    """A stable CamelCase word: what it waits for."""
    why: str
    """The reason in one sentence, for status."""
    until: datetime.datetime | None = None
    held: bool = False
    """It waits on purpose, for a person or for the time: the progress deadline does not count."""


@dataclass(frozen=True, slots=True)
class Prepare:
    """Keep the revision for later rollbacks, and bring its artifact to the target."""

    revision: Revision


@dataclass(frozen=True, slots=True)
class Provision:
    """Make `slot` hold `revision`, with so many instances. The slot is empty, or holds it already; a drain ends."""

    slot: Slot
    revision: Revision
    replicas: int


@dataclass(frozen=True, slots=True)
class Scale:
    """Give `slot`, which holds a revision, another number of instances; 0 keeps the revision on it."""

    slot: Slot
    replicas: int


@dataclass(frozen=True, slots=True)
class Switch:
    """Send requests to `live`, but for `share` percent, which go to the other side. Atomic.

    With `failover`, those that cannot be brought to `live` go to the other side, where the target can do that.
    """

    live: Slot
    share: int = 0
    failover: bool = False


@dataclass(frozen=True, slots=True)
class Preview:
    """Route the preview endpoint to `slot`. None: it leads nowhere."""

    slot: Slot | None


@dataclass(frozen=True, slots=True)
class RunHook:
    """Create the hook's task unless it is there."""

    key: HookKey
    hook: Hook

    @property
    def stage(self) -> StageName:
        return self.key.stage


@dataclass(frozen=True, slots=True)
class Drain:
    """Give `slot` no new requests, and let it finish those it has."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Retire:
    """Stop all instances on `slot`, and leave it empty."""

    slot: Slot


@dataclass(frozen=True, slots=True)
class Finish:
    """The release ended (already so in the state): tell of it, cancel hooks that still run. Its report follows.

    `Deleted` is the end of the Deployment itself: its finalizer can go. With the reason `Deleted`, too, nothing of it
    is left on the target; with any other one, the target is not contacted.
    """

    outcome: Outcome | Literal["Deleted"]
    reason: str
    message: str


def step_error(step: Step, error: RemitError) -> StepError:
    """Returns the record of a failed step for the next observation."""
    revision = None
    if isinstance(step, Prepare | Provision):
        revision = step.revision.number
    elif isinstance(step, RunHook):
        revision = step.key.revision
    return StepError(error.code, escape(str(error)), error.retryable, revision)


def sentence(step: Step) -> str:
    """Describe what is being done, for status."""
    match step:
        case Wait(why=why):
            return why
        case Prepare(revision=revision):
            return f"fetches what revision {revision.number} runs"
        case Provision(slot=slot, revision=revision, replicas=replicas):
            return f"starts revision {revision.number} on {slot}, with {_instances(replicas)}"
        case Scale(slot=slot, replicas=replicas):
            return f"gives {slot} {_instances(replicas)}"
        case Switch(live=live, share=0):
            return f"sends all requests to {live}"
        case Switch(live=live, share=share):
            return f"sends {share} % of the requests past {live}"
        case Preview(slot=slot):
            return f"lets the preview lead to {slot or 'nothing'}"
        case RunHook(key=key):
            return f"starts the hook {key.name}"
        case Drain(slot=slot):
            return f"lets {slot} finish the requests it has"
        case Retire(slot=slot):
            return f"stops what is on {slot}"
        case Finish(message=message):
            return message


def _instances(count: int) -> str:
    return f"{count} instance{'s' * (count != 1)}"


def due(step: Step, deadline: datetime.datetime | None) -> Step:
    """The step; where it is a wait with no time of its own, it ends at the deadline."""
    return replace(step, until=deadline) if isinstance(step, Wait) and step.until is None else step


Step = Wait | Prepare | Provision | Scale | Switch | Preview | RunHook | Drain | Retire | Finish


@dataclass(frozen=True, slots=True)
class Decision:
    """The next step, and what to remember before it is taken."""

    step: Step
    state: PipelineState
    blocked: Wait | None = None
    """Why what the spec declares cannot begin, where it cannot."""
