"""The rows that the page keeps of tasks: enough for lists, counts and plots, a tenth of the object. Pure.

Whoever may write status writes anything into it, so nothing here trusts its types.
"""

from __future__ import annotations

import datetime
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from remit.api.controllerref import controller_of
from remit.api.group import API_VERSION
from remit.api.operationnames import OPERATIONS
from remit.api.phases import FAILED_PHASES, Phase

Object = dict[str, Any]

RUNNING: Final = "Running"
WAITING: Final = ("Pending", "Queued", "Backoff")
FAILED: Final = tuple(str(phase) for phase in Phase if phase in FAILED_PHASES)
ENDED: Final = tuple(str(phase) for phase in Phase if phase.final)
SCHEDULED: Final = "Scheduled"
PHASES: Final = (RUNNING, *WAITING, *FAILED, "Cancelled", "Succeeded", SCHEDULED)
_MOST_MESSAGE: Final = 240
_MOST_AMOUNT: Final = 1e18
_GENERATED: Final = re.compile(r"(?=[a-z]*[0-9])[a-z0-9]+")
"""The end of a name that was counted or drawn, after a dash: `42`, `x7f2k`."""


@dataclass(frozen=True, slots=True)
class TaskRow:
    """Times are in seconds since 1970."""

    namespace: str
    name: str
    uid: str
    phase: str
    operation: str
    backend: str
    reason: str
    """Why it ended as it did, or what it waits for: one CamelCase word."""
    message: str
    policy: str
    schedule: str
    """The name of the schedule whose run it is."""
    attempts: int
    exit_code: int | None
    created: float
    queued: float | None
    started: float | None
    ended: float | None
    next_time: float | None
    """When the next attempt or scheduled run is due."""
    cron: str = ""
    """The cron expression of a schedule, as are `zone` and `suspended`."""
    zone: str = ""
    suspended: bool = False
    cpu_seconds: float | None = None
    """What the last attempt used, as is `max_memory_bytes`."""
    max_memory_bytes: float | None = None

    @property
    def is_schedule(self) -> bool:
        return bool(self.cron)

    @property
    def seconds(self) -> float | None:
        """The seconds from the start of the first attempt to the end of the last one; None for a task that has not
        ended."""
        return None if self.started is None or self.ended is None else max(0.0, self.ended - self.started)

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def path(self) -> str:
        return f"/tasks/{self.namespace}/{self.name}"

    @property
    def changed(self) -> float:
        """When something last happened."""
        return self.ended or self.started or self.queued or self.created

    @property
    def family(self) -> str:
        """The name of what it is one of many of: a schedule's runs, or tasks whose names differ in what was
        generated."""
        if self.schedule:
            return self.schedule
        name = self.name
        while (cut := name.rpartition("-"))[1] and _GENERATED.fullmatch(cut[2]):
            name = cut[0]
        return name


def slim(obj: Object) -> Object:
    """A task as it is kept: the metadata by which it is known, and its row."""
    metadata = obj["metadata"]
    kept = ("uid", "namespace", "name", "resourceVersion", "creationTimestamp")
    return {"metadata": {name: metadata[name] for name in kept if name in metadata}, "row": task_row(obj)}


def task_row(obj: Object) -> TaskRow:
    metadata, spec, status = obj["metadata"], _mapping(obj, "spec"), _mapping(obj, "status")
    scheduled, plan = "schedule" in spec, _mapping(spec, "schedule")
    phase = _text(status.get("phase")) or (SCHEDULED if scheduled else "Pending")
    queue, error, usage = _mapping(status, "queue"), _mapping(status, "error"), _last_usage(status)
    return TaskRow(
        namespace=sys.intern(str(metadata.get("namespace", ""))),
        name=str(metadata["name"]),
        uid=str(metadata["uid"]),
        phase=sys.intern(phase if phase in PHASES else "Pending"),
        operation=sys.intern(_text(status.get("operation")) or _operation(spec)),
        backend=sys.intern(_text(status.get("backend"))),
        reason=sys.intern(_text(error.get("reason")) or _text(queue.get("reason")) or _finished(status)),
        message=_text(status.get("message"))[:_MOST_MESSAGE],
        policy=sys.intern(
            (_text(_mapping(status, "policy").get("name")) or _text(queue.get("policy"))).removeprefix(
                f"{metadata.get('namespace', '')}/"
            )
        ),
        schedule=sys.intern(controller_of(obj, API_VERSION, "ExecutionTask") or ""),
        attempts=_whole(status.get("attemptCount")) or 0,
        exit_code=_whole(status.get("exitCode")),
        created=moment(metadata.get("creationTimestamp")) or 0.0,
        queued=moment(status.get("queuedAt")),
        started=moment(status.get("startTime")),
        ended=moment(status.get("completionTime")),
        next_time=moment(status.get("nextScheduleTime" if scheduled else "nextRetryTime")),
        cron=_text(plan.get("cron")),
        zone=_text(plan.get("timeZone")) or ("UTC" if scheduled else ""),
        suspended=plan.get("suspend") is True,
        cpu_seconds=_amount(usage.get("cpuSeconds")),
        max_memory_bytes=_amount(usage.get("maxMemoryBytes")),
    )


def moment(text: object) -> float | None:
    """Seconds since 1970; None for what is no time."""
    try:
        time = datetime.datetime.fromisoformat(text) if isinstance(text, str) else None
    except ValueError:
        return None
    # Times at the limits cannot be converted to other time zones.
    if time is None or time.tzinfo is None or not 1 < time.year < datetime.MAXYEAR:
        return None
    return time.timestamp()


def _operation(spec: Mapping[str, Any]) -> str:
    return next((name for name in OPERATIONS if name in spec), "")


def _finished(status: Mapping[str, Any]) -> str:
    conditions = status.get("conditions")
    for each in conditions if isinstance(conditions, list) else ():
        if isinstance(each, dict) and each.get("type") == "Finished":
            return _text(each.get("reason"))
    return ""


def _mapping(value: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = value.get(name)
    return found if isinstance(found, dict) else {}


def _last_usage(status: Mapping[str, Any]) -> Mapping[str, Any]:
    attempts = status.get("attempts")
    last = attempts[-1] if isinstance(attempts, list) and attempts else None
    return _mapping(last, "usage") if isinstance(last, dict) else {}


def _amount(value: object) -> float | None:
    """The amount of something that is used; None for what is no amount."""
    number = isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < _MOST_AMOUNT
    return float(value) if number and isinstance(value, int | float) else None


def _text(value: object) -> str:
    return value if isinstance(value, str) else ""


def _whole(value: object) -> int | None:
    return value if isinstance(value, int) and not isinstance(value, bool) else None
