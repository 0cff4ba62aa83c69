"""The parts of each object that are kept for its row: few, because there may be ten thousand. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from remit.api.commandpolicy import CommandPolicy
from remit.api.deployment import Deployment
from remit.api.operationnames import OPERATIONS
from remit.api.phases import FAILED_PHASES, FINAL_PHASES, DeploymentPhase
from remit.describe.releasetree import SideSummary, release_tree
from remit.errors import InvalidInput

Object = dict[str, Any]
_LONGEST: Final = 400
"""Characters of a message that are kept."""
_NO_MATTER_WHEN: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)
"""Durations in a tree are not shown in a row."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """The parts that all kinds have."""

    uid: str
    version: str
    namespace: str
    name: str
    created: datetime.datetime | None
    phase: str
    message: str

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"


@dataclass(frozen=True, slots=True, kw_only=True)
class TaskRow(Row):
    """A task that has no schedule."""

    operation: str
    attempts: int
    queued_at: datetime.datetime | None
    started: datetime.datetime | None
    ended: datetime.datetime | None
    retry_at: datetime.datetime | None
    cpu_seconds: float | None
    """CPU time of the last attempt whose usage is in status."""
    memory: int | None
    """At its highest, in bytes."""
    reason: str
    place: tuple[int, int] | None = None
    """In the queue: the position and how many wait, of which status says no more than once in half a minute."""
    policy: str = ""
    """The policy whose limit the task waits for, as `namespace/name`."""

    @property
    def over(self) -> bool:
        return self.phase in FINAL_PHASES

    @property
    def failed(self) -> bool:
        return self.phase in FAILED_PHASES


@dataclass(frozen=True, slots=True, kw_only=True)
class ScheduleRow(Row):
    cron: str
    time_zone: str
    suspended: bool
    upcoming: datetime.datetime | None
    last: datetime.datetime | None
    active: int


@dataclass(frozen=True, slots=True, kw_only=True)
class ReleaseRow(Row):
    stage: str
    """The stage of the release, such as `Health 4/9`."""
    sides: Mapping[str, tuple[int, SideSummary]]
    """The revision on blue and on green, and how it stands."""
    share: int | None
    """The percentage of requests that a canary gets."""
    revision: int | None
    """The revision that is being released."""
    target: str
    verbs: Mapping[str, str]
    """What can be asked for now, and what it comes to."""

    @property
    def waits(self) -> bool:
        """Whether the release waits to be promoted."""
        return self.phase == DeploymentPhase.AWAITING_PROMOTION


@dataclass(frozen=True, slots=True, kw_only=True)
class PolicyRow(Row):
    """`phase` is whether it is ready: True, False or Unknown."""

    enforcement: str
    tasks: int
    allowed: int
    denied: int
    last_denied: str
    last_denied_at: datetime.datetime | None


def task_row(obj: Object) -> TaskRow | ScheduleRow:
    """Whoever may write status writes anything, so what is not as it should be counts as not there."""
    spec, status = _map(obj.get("spec")), _map(obj.get("status"))
    if isinstance(schedule := spec.get("schedule"), Mapping):
        return ScheduleRow(
            **_common(obj),
            phase=_text(status.get("phase")) or "Pending",
            message=_text(status.get("message")),
            cron=_text(schedule.get("cron")),
            time_zone=_text(schedule.get("timeZone")) or "Etc/UTC",
            suspended=schedule.get("suspend") is True,
            upcoming=_time(status.get("nextScheduleTime")),
            last=_time(status.get("lastScheduleTime")),
            active=len(_list(status.get("active"))),
        )
    usages = [_map(_map(each).get("usage")) for each in _list(status.get("attempts"))]
    usage: Mapping[str, Any] = next((each for each in reversed(usages) if each), {})
    queue = _map(status.get("queue"))
    place = _number(queue.get("position")), _number(queue.get("waiting"))
    cpu, memory = usage.get("cpuSeconds"), usage.get("maxMemoryBytes")
    return TaskRow(
        **_common(obj),
        phase=_text(status.get("phase")) or "Pending",
        message=_text(status.get("message")),
        operation=_text(status.get("operation")) or next((name for name in OPERATIONS if name in spec), ""),
        attempts=_number(status.get("attemptCount")) or 0,
        queued_at=_time(status.get("queuedAt")),
        started=_time(status.get("startTime")),
        ended=_time(status.get("completionTime")),
        retry_at=_time(status.get("nextRetryTime")),
        cpu_seconds=float(cpu) if isinstance(cpu, int | float) else None,
        memory=_number(memory),
        reason=_text(queue.get("reason")) or _text(_map(status.get("error")).get("reason")),
        place=(place[0], place[1]) if place[0] is not None and place[1] is not None else None,
        policy=_text(queue.get("policy")),
    )


def release_row(obj: Object) -> ReleaseRow:
    try:
        deployment = Deployment.parse(obj)
    except InvalidInput as error:
        return ReleaseRow(
            **_common(obj), phase="Unknown", message=f"it cannot be read: {error}"[:_LONGEST], stage="", sides={},
            share=None, revision=None, target="", verbs={},
        )  # fmt: skip
    tree, status = release_tree(deployment, {}, _NO_MATTER_WHEN), deployment.status
    going, canary = status.pipeline.releasing, deployment.spec.strategy.canary
    share = None
    if going is not None and canary is not None and going.step_at is not None and going.promoted_at is None:
        share = canary.steps[going.step].weight if going.step < len(canary.steps) else None
    return ReleaseRow(
        **_common(obj),
        phase=tree.phase,
        message=tree.message[:_LONGEST],
        stage=f"{tree.stage.name} {tree.stage.number}/{tree.stage.of}" if tree.stage else status.stage,
        sides={side.slot: (branch.number, side) for branch in tree.revisions for side in branch.sides},
        share=share,
        revision=going.revision if going is not None else None,
        target=tree.target,
        verbs=dict(tree.verbs),
    )


def policy_row(obj: Object) -> PolicyRow:
    try:
        policy = CommandPolicy.parse(obj)
    except InvalidInput as error:
        return PolicyRow(
            **_common(obj), phase="Unknown", message=f"it cannot be read: {error}"[:_LONGEST], enforcement="", tasks=0,
            allowed=0, denied=0, last_denied="", last_denied_at=None,
        )  # fmt: skip
    status = policy.status
    ready = status.ready
    denial = status.last_denied
    return PolicyRow(
        **_common(obj),
        phase=ready.status if ready else "Unknown",
        message=(ready.message if ready and ready.status != "True" else "")[:_LONGEST],
        enforcement=policy.spec.enforcement,
        tasks=status.matched_tasks,
        allowed=status.allowed,
        denied=status.denied,
        last_denied=f"{denial.task}: {denial.reason}"[:_LONGEST] if denial else "",
        last_denied_at=denial.time if denial else None,
    )


def _common(obj: Object) -> dict[str, Any]:
    metadata = obj["metadata"]
    return {
        "uid": _text(metadata.get("uid")),
        "version": _text(metadata.get("resourceVersion")),
        "namespace": _text(metadata.get("namespace")),
        "name": _text(metadata.get("name")),
        "created": _time(metadata.get("creationTimestamp")),
    }


def _text(value: object) -> str:
    return value[:_LONGEST] if isinstance(value, str) else ""


def _map(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, Mapping) else {}


def _list(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _number(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None


def _time(value: object) -> datetime.datetime | None:
    if not isinstance(value, str):
        return None
    try:
        found = datetime.datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=datetime.UTC)
