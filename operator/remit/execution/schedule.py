"""When a scheduled task is due, and what to do about it. Pure: the caller has the clock and the children.

A tick is the minute for which a run is due. Its child is named after it, so that no tick runs twice whoever looks.
"""

from __future__ import annotations

import datetime
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from remit.api.controllerref import is_controlled_by
from remit.api.executiontask import ExecutionTask, Schedule
from remit.api.phases import Phase
from remit.errors import InvalidInput
from remit.execution import cron
from remit.execution.lifecycle import Finish

_MAX_NAME: Final = 240
"""Limit of the parent's name in a child's name, which also has the minute or a random suffix."""
_DIGEST: Final = 10
_MAX_LABEL: Final = 63
PARENT_LABEL: Final = "remit.dev/schedule"
REQUESTED_BY: Final = "remit.dev/requested-by"
TICK_ANNOTATION: Final = "remit.dev/scheduled-at"
CANCELLED: Final = Finish(Phase.CANCELLED, "Cancelled", "Cancelled", "cancelled as spec.cancel asked; no further runs")
_CLOCK_SKEW: Final = datetime.timedelta(minutes=1)
"""How far clocks may differ: that of the API server, or that of the operator before."""
_NOT_OF_A_CHILD: Final = frozenset({"schedule", "cancel", "ttlSecondsAfterFinished"})


@dataclass(frozen=True, slots=True)
class Start:
    """Create the child for `tick`."""

    tick: datetime.datetime


@dataclass(frozen=True, slots=True)
class Skip:
    """The run for `tick` is not started, now or later; `why` is for people."""

    tick: datetime.datetime
    why: str


@dataclass(frozen=True, slots=True)
class Replace:
    """Cancel these children first; `tick` is started when they have ended."""

    tick: datetime.datetime
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Wait:
    """Nothing is due."""


Action = Start | Skip | Replace | Wait


@dataclass(frozen=True, slots=True)
class Turn:
    """The decision what to do now, and when to look again (None: not by the clock)."""

    action: Action
    next_tick: datetime.datetime | None
    set_back: str = ""
    """Told where the clock was set back since the last run: later ticks are counted from now."""


def turn(task: ExecutionTask, active: Sequence[str], now: datetime.datetime) -> Turn:
    """Decide what the schedule of `task` needs now, while the children named `active` have not ended.

    However many ticks were missed, only the latest is made up for, and only within the starting deadline.
    """
    schedule, created = task.spec.schedule, task.metadata.creation_timestamp or now
    assert schedule is not None  # noqa: S101  # by the caller's choice
    upcoming = cron.following(schedule, now)
    if schedule.suspend:
        return Turn(Wait(), None)
    last, set_back = task.status.last_schedule_time, ""
    if last is not None and last > now + _CLOCK_SKEW:
        set_back = (
            f"the clock was set back: it is {now:%FT%TZ}, and the last run was at {last:%FT%TZ}; the next runs are"
            " counted from now"
        )
        last = now
    # If the creation time is in the future by this clock, only the tick of the current minute counts.
    since = max(filter(None, (last, min(created, now - _CLOCK_SKEW) if created > now + _CLOCK_SKEW else created)))
    return Turn(_due(schedule, since, active, now), upcoming, set_back)


def _due(schedule: Schedule, since: datetime.datetime, active: Sequence[str], now: datetime.datetime) -> Action:
    tick = cron.latest(schedule, now, since)
    if tick is None:
        return Wait()
    late = (now - tick).total_seconds()
    limit = schedule.starting_deadline_seconds
    if limit is not None and late > limit:
        return Skip(tick, f"the run for {tick:%FT%TZ} could not start within {limit} s of its time")
    if active and schedule.concurrency_policy == "Forbid":
        return Skip(tick, f"the run for {tick:%FT%TZ} was skipped: {active[0]} has not ended")
    if active and schedule.concurrency_policy == "Replace":
        return Replace(tick, tuple(active))
    return Start(tick)


def child_name(parent: str, tick: datetime.datetime) -> str:
    """The name of the child for a tick: the parent's name and the minute since 1970, as a CronJob counts it."""
    return f"{stem(parent)}-{int(tick.timestamp()) // 60}"


def stem(parent: str) -> str:
    """The name, or of one that leaves no room for more its beginning and a digest, so that no other has the same."""
    if len(parent) <= _MAX_NAME:
        return parent
    digest = hashlib.sha256(parent.encode()).hexdigest()[:_DIGEST]
    return f"{parent[: _MAX_NAME - _DIGEST - 1].rstrip('-.')}-{digest}"


def child(parent: Mapping[str, Any], tick: datetime.datetime | None) -> dict[str, Any]:
    """The child task to create for `tick`, or by hand (None). `parent` is the object as the server has it."""
    metadata = parent["metadata"]
    name = metadata["name"]
    labels = dict(metadata.get("labels") or {})
    if len(name) <= _MAX_LABEL:
        labels[PARENT_LABEL] = name
    owner = {
        "apiVersion": parent["apiVersion"],
        "kind": parent["kind"],
        "name": name,
        "uid": metadata["uid"],
        "controller": True,
        "blockOwnerDeletion": True,
    }
    # Whoever requested the schedule also requested its runs.
    inherited = {key: value for key, value in (metadata.get("annotations") or {}).items() if key == REQUESTED_BY}
    named = (
        {"name": child_name(name, tick), "annotations": {**inherited, TICK_ANNOTATION: f"{tick:%FT%TZ}"}}
        if tick
        else {"generateName": f"{stem(name)}-manual-"}
    )
    spec = {key: value for key, value in parent["spec"].items() if key not in _NOT_OF_A_CHILD}
    return {
        "apiVersion": parent["apiVersion"],
        "kind": parent["kind"],
        "metadata": {**named, "namespace": metadata["namespace"], "labels": labels, "ownerReferences": [owner]},
        "spec": spec,
    }


def mismatch(existing: Mapping[str, Any], parent: Mapping[str, Any], tick: datetime.datetime) -> str:
    """Why `existing`, a task with the name of the child for `tick`, is not that child; empty where it is.

    An operator that was killed may have created the child without noting it. Whoever may create tasks can create one of
    that name, too: it is the child only if it is the same in all that says what runs, for whom and when.
    """
    wanted = child(parent, tick)
    found, expected = existing["metadata"], wanted["metadata"]
    if not is_controlled_by(existing, parent):
        return "it is not controlled by the schedule"
    if (found.get("labels") or {}) != expected["labels"]:
        return "its labels differ"
    annotations = found.get("annotations") or {}
    if any(annotations.get(name) != expected["annotations"].get(name) for name in (TICK_ANNOTATION, REQUESTED_BY)):
        return "its annotations differ"
    try:
        task = ExecutionTask.parse(dict(existing))
    except InvalidInput as error:
        return f"it cannot be read: {error}"
    changeable = {"cancel": False, "ttl_seconds_after_finished": None}
    if task.spec.model_copy(update=changeable) != ExecutionTask.parse(wanted).spec:
        return "its spec differs"
    created = task.metadata.creation_timestamp
    return "it was created before its time" if created is None or created < tick - _CLOCK_SKEW else ""


def surplus(children: Sequence[ExecutionTask], schedule: Schedule) -> list[ExecutionTask]:
    """The ended children that the history limits do not keep, oldest first."""
    ended = [child for child in children if child.status.phase is not None and child.status.phase.final]
    ended.sort(key=lambda child: child.status.completion_time or datetime.datetime.min.replace(tzinfo=datetime.UTC))
    good = [child for child in ended if child.status.phase is Phase.SUCCEEDED]
    bad = [child for child in ended if child.status.phase is not Phase.SUCCEEDED]
    return [
        *good[: max(0, len(good) - schedule.successful_runs_history_limit)],
        *bad[: max(0, len(bad) - schedule.failed_runs_history_limit)],
    ]
