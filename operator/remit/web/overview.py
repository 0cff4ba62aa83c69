"""Summarizes tasks for the first view: how much runs and waits, why, what failed lately, and the last hour as numbers.
Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from remit.web.rows import ENDED, FAILED, RUNNING, SCHEDULED, WAITING, TaskRow

Object = dict[str, Any]

MINUTES: Final = 60
LISTED: Final = 12
_LATELY_SECONDS: Final = 24 * 3600.0
_GOOD_PHASES: Final = frozenset({"Healthy", "Progressing", "Pending", "Terminating", "Pinned"})
_STEPS: Final = {
    "Degraded": "some instances are not healthy",
    "Failed": "the release failed",
    "AwaitingPromotion": "waits for a promotion",
    "Paused": "is paused",
    "RollingBack": "goes back",
}


@dataclass(frozen=True, slots=True)
class Attention:
    """One thing that somebody should look at."""

    what: str
    why: str
    path: str
    grave: bool = True
    count: int = 1
    at: float | None = None


@dataclass(frozen=True)
class Group:
    """Waiting tasks with the same reason."""

    reason: str
    policy: str
    count: int
    oldest: TaskRow


@dataclass
class Summary:
    """Each list of numbers has one for each of the last `MINUTES` minutes, the oldest first."""

    running: int = 0
    waiting: int = 0
    schedules: int = 0
    total: int = 0
    succeeded: list[int] = field(default_factory=lambda: [0] * MINUTES)
    failed: list[int] = field(default_factory=lambda: [0] * MINUTES)
    cancelled: int = 0
    busy: list[int] = field(default_factory=list)
    """Tasks that ran in that minute, on average or for a moment."""
    queued: list[int] = field(default_factory=list)
    runs: list[TaskRow] = field(default_factory=list)
    """The tasks that have run longest."""
    waits: list[Group] = field(default_factory=list)
    failures: list[Attention] = field(default_factory=list)


def summarize(rows: Iterable[TaskRow], now: float) -> Summary:
    found = Summary()
    begin = now - MINUTES * 60
    busy, queued = [0] * (MINUTES + 1), [0] * (MINUTES + 1)
    runs: list[TaskRow] = []
    waits: dict[tuple[str, str], list[TaskRow]] = {}
    failures: dict[tuple[str, str, str], list[TaskRow]] = {}

    def spread(marks: list[int], start: float, end: float) -> None:
        if end >= begin and start <= now:
            marks[_minute(start, begin)] += 1
            marks[_minute(end, begin) + 1] -= 1

    for row in rows:
        found.total += 1
        phase = row.phase
        if phase == SCHEDULED:
            found.schedules += 1
            continue
        if phase == RUNNING:
            found.running += 1
            runs.append(row)
        elif phase in WAITING:
            found.waiting += 1
            waits.setdefault((row.reason or phase, row.policy), []).append(row)
        if row.ended is not None and row.ended >= begin and phase in ENDED:
            minute = _minute(row.ended, begin)
            if phase == "Succeeded":
                found.succeeded[minute] += 1
            elif phase in FAILED:
                found.failed[minute] += 1
            else:
                found.cancelled += 1
        if phase in FAILED and row.changed >= now - _LATELY_SECONDS:
            failures.setdefault((row.namespace, row.family, row.reason or phase), []).append(row)
        over = row.ended if row.ended is not None else now
        if row.started is not None:
            spread(busy, row.started, over)
        if phase in WAITING or row.started is not None:
            spread(queued, row.queued or row.created, row.started if row.started is not None else over)
    found.busy, found.queued = _sums(busy), _sums(queued)
    found.runs = sorted(runs, key=lambda row: row.started or row.created)[:LISTED]
    groups = [
        Group(reason, policy, len(each), min(each, key=lambda row: row.created))
        for (reason, policy), each in waits.items()
    ]
    found.waits = sorted(groups, key=lambda group: -group.count)[:LISTED]
    found.failures = sorted(map(_failure, failures.values()), key=lambda each: -(each.at or 0))[:LISTED]
    return found


def _minute(at: float, begin: float) -> int:
    return max(0, min(MINUTES - 1, int((at - begin) // 60)))


def _sums(marks: Sequence[int]) -> list[int]:
    sums, total = [], 0
    for mark in marks[:MINUTES]:
        total += mark
        sums.append(total)
    return sums


def _failure(rows: Sequence[TaskRow]) -> Attention:
    last = max(rows, key=lambda row: row.changed)
    what = f"{last.namespace}/{last.family if len(rows) > 1 else last.name}"
    return Attention(what, f"{last.reason or last.phase}: {last.message}", last.path, True, len(rows), last.changed)


def releases_needing_attention(deployments: Iterable[Object]) -> list[Attention]:
    found = []
    for obj in deployments:
        status = obj.get("status") or {}
        phase = str(status.get("phase") or "Pending")
        if phase not in _GOOD_PHASES:
            path = f"/releases/{obj['metadata']['namespace']}/{obj['metadata']['name']}"
            what = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
            why = str(status.get("message") or _STEPS.get(phase, phase))
            found.append(Attention(what, f"{phase}: {why}", path, phase in {"Degraded", "Failed"}))
    return found


def policies_needing_attention(policies: Iterable[Object]) -> list[Attention]:
    found = []
    for obj in policies:
        conditions = (obj.get("status") or {}).get("conditions") or []
        ready: Mapping[str, Any] = next((each for each in conditions if each.get("type") == "Ready"), {})
        if ready.get("status") == "False":
            key = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
            found.append(Attention(key, f"not ready: {ready.get('message', '')}", f"/policies/{key}"))
    return found
