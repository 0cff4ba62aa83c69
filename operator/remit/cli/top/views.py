"""The four tables: their columns, what stands in each cell, in which order, and what a filter takes. Pure."""

from __future__ import annotations

import datetime
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from remit.cli.top.cells import Cell, Column, size
from remit.cli.top.rows import PolicyRow, ReleaseRow, Row, ScheduleRow, TaskRow
from remit.describe.ages import age, short
from remit.execution.durations import human_duration

_STYLES: Final = {
    **dict.fromkeys(("Running", "Progressing"), "cyan"),
    **dict.fromkeys(("Succeeded", "Healthy", "True"), "green"),
    **dict.fromkeys(
        ("Pending", "Queued", "Backoff", "Paused", "AwaitingPromotion", "RollingBack", "Pinned", "Terminating"),
        "yellow",
    ),
    **dict.fromkeys(("Failed", "TimedOut", "Denied", "Degraded", "False", "Unknown"), "red"),
    **dict.fromkeys(("Cancelled",), "magenta"),
    **dict.fromkeys(("Scheduled",), "blue"),
}
_DIM: Final = "dim"
_ORDER: Final = {"Running": 0, "Backoff": 1, "Queued": 2, "Pending": 3}
_EPOCH: Final = datetime.datetime.fromtimestamp(0, datetime.UTC)


@dataclass(frozen=True, eq=False)
class View:
    """One table. `cells` gives as many cells as there are columns; the first column is the namespace, which is left out
    where only one is looked at."""

    title: str
    empty: str
    columns: Sequence[Column]
    cells: Callable[[Any, datetime.datetime], Sequence[Cell]]
    order: Callable[[Any], Any]
    words: Callable[[Any], str]
    """What a filter looks into."""

    def sorted(self, rows: Iterable[Row], filter_text: str = "") -> list[Row]:
        """The rows that have all words of the filter in them, in any case of letters."""
        wanted = filter_text.lower().split()
        if wanted:
            rows = [row for row in rows if all(word in self.words(row).lower() for word in wanted)]
        return sorted(rows, key=self.order)


def style_of(phase: str) -> str:
    return _STYLES.get(phase, "")


def _took(row: TaskRow, now: datetime.datetime) -> str:
    if row.started is None:
        return ""
    if row.ended is not None:
        return human_duration(row.ended - row.started)
    spent = now - row.started
    return human_duration(spent) if spent.total_seconds() >= 10 else f"{max(0, int(spent.total_seconds()))}s"


def task_why(row: TaskRow, now: datetime.datetime) -> str:
    """Tell what a task waits for, or why it ended."""
    if row.phase == "Queued":
        where = f"{row.place[0]} of {row.place[1]}" if row.place else ""
        policy = row.policy.removeprefix(f"{row.namespace}/")
        return "  ".join(part for part in (where, row.reason, policy) if part) or row.message
    if row.phase == "Backoff" and row.retry_at is not None:
        return f"again in {short((row.retry_at - now).total_seconds())}: {row.message}"
    if row.reason and not row.message.startswith(row.reason):
        return f"{row.reason}: {row.message}" if row.message else row.reason
    return row.message


def _task(row: TaskRow, now: datetime.datetime) -> Sequence[Cell]:
    faint = _DIM if row.phase in {"Succeeded", "Cancelled"} else ""
    waits = row.created if row.phase in {"Queued", "Pending"} else None
    return (
        Cell(row.namespace, _DIM),
        Cell(row.name, "" if faint else "bold"),
        Cell(row.operation, faint),
        Cell(row.phase, style_of(row.phase)),
        Cell(str(row.attempts) if row.attempts else "", faint),
        Cell(f"+{age(waits, now)}" if waits else _took(row, now), "yellow" if waits else faint),
        Cell(age(row.ended or row.created, now), faint),
        Cell(f"{row.cpu_seconds:.1f}s" if row.cpu_seconds is not None else "", faint),
        Cell(size(row.memory) if row.memory is not None else "", faint),
        Cell(task_why(row, now), style_of(row.phase) if row.failed else faint),
    )


def _task_order(row: TaskRow) -> Any:
    """What runs, the oldest first; what waits, as the queue has it; then what ended last."""
    if row.over:
        return 9, -(row.ended or _EPOCH).timestamp(), row.namespace, row.name
    begun = (row.started or row.queued_at or row.created or _EPOCH).timestamp()
    if row.phase == "Queued":
        return _ORDER["Queued"], row.namespace, row.place[0] if row.place else 0, str(begun), row.name
    return _ORDER.get(row.phase, 4), "", begun, row.namespace, row.name


TASKS: Final = View(
    "Tasks",
    "no tasks",
    (
        Column("NAMESPACE", 9, 20, 5, middle=True),
        Column("NAME", 8, 44, middle=True),
        Column("OP", 4, 9, 8),
        Column("PHASE", 9, 9),
        Column("TRY", 3, 3, 7, right=True),
        Column("TIME", 4, 7, 2, right=True),
        Column("AGE", 3, 4, 6, right=True),
        Column("CPU", 4, 7, 10, right=True),
        Column("MEM", 4, 5, 9, right=True),
        Column("WHY", 20, 60, 3),
    ),
    _task,
    _task_order,
    lambda row: f"{row.namespace}/{row.name} {row.operation} {row.phase} {row.reason} {row.policy} {row.message}",
)


def _side(row: ReleaseRow, slot: str) -> Cell:
    found = row.sides.get(slot)
    if found is None:
        return Cell("–", _DIM)
    revision, side = found
    marks = [*side.marks, *([f"{row.share}%"] if row.share is not None and "live" not in side.marks else [])]
    text = " ".join([f"r{revision}", f"{side.ready}/{side.wanted}", *marks])
    if "live" in side.marks:
        return Cell(f"▶ {text}", "bold green" if side.whole else "bold yellow")
    return Cell(f"  {text}", "" if side.whole else "yellow")


def release_waits(row: ReleaseRow) -> Cell:
    """What can be done now, before what happened last."""
    if row.waits:
        return Cell(f"waits for promotion: p promotes, a aborts. {row.message}", "bold yellow")
    side = next((side.message for _, side in row.sides.values() if side.message), "")
    return Cell(" · ".join(part for part in (row.message, side) if part), "red" if style_of(row.phase) == "red" else "")


def _release(row: ReleaseRow, now: datetime.datetime) -> Sequence[Cell]:
    return (
        Cell(row.namespace, _DIM),
        Cell(row.name, "bold"),
        Cell(row.phase, style_of(row.phase)),
        Cell(row.stage),
        _side(row, "blue"),
        _side(row, "green"),
        Cell(age(row.created, now), _DIM),
        release_waits(row),
    )


RELEASES: Final = View(
    "Releases",
    "no Deployments",
    (
        Column("NAMESPACE", 9, 20, 5, middle=True),
        Column("NAME", 8, 32, middle=True),
        Column("PHASE", 9, 17),
        Column("STAGE", 9, 17, 4),
        Column("  BLUE", 10, 24, 1),
        Column("  GREEN", 10, 24, 1),
        Column("AGE", 3, 4, 6, right=True),
        Column("MESSAGE", 20, 80, 3),
    ),
    _release,
    lambda row: (not row.waits, style_of(row.phase) == "green", row.namespace, row.name),
    lambda row: f"{row.namespace}/{row.name} {row.phase} {row.stage} {row.message}",
)


def _next_run(row: ScheduleRow, now: datetime.datetime) -> Cell:
    if row.suspended:
        return Cell("suspended", "yellow")
    if row.upcoming is None:
        return Cell("unknown", _DIM)
    left = (row.upcoming - now).total_seconds()
    return Cell(f"in {short(left)}" if left > 0 else "due", "bold")


def _schedule(row: ScheduleRow, now: datetime.datetime) -> Sequence[Cell]:
    return (
        Cell(row.namespace, _DIM),
        Cell(row.name, "bold"),
        Cell(row.cron),
        Cell(row.time_zone, _DIM),
        _next_run(row, now),
        Cell(f"{row.upcoming:%m-%d %H:%MZ}" if row.upcoming and not row.suspended else ""),
        Cell(f"{age(row.last, now)} ago" if row.last else "never", "" if row.last else _DIM),
        Cell(f"{row.active} running" if row.active else "–", "cyan" if row.active else _DIM),
        Cell(row.message, "red" if style_of(row.phase) == "red" else _DIM),
    )


SCHEDULES: Final = View(
    "Schedules",
    "no scheduled tasks",
    (
        Column("NAMESPACE", 9, 20, 5, middle=True),
        Column("NAME", 8, 36, middle=True),
        Column("CRON", 9, 20),
        Column("ZONE", 4, 20, 7),
        Column("NEXT", 6, 10),
        Column("AT", 12, 12, 3),
        Column("LAST", 8, 9, 2),
        Column("ACTIVE", 6, 11, 4),
        Column("MESSAGE", 12, 60, 6),
    ),
    _schedule,
    lambda row: (row.suspended, row.upcoming is None, (row.upcoming or _EPOCH).timestamp(), row.namespace, row.name),
    lambda row: f"{row.namespace}/{row.name} {row.cron} {row.time_zone} {row.message}",
)


def _policy(row: PolicyRow, now: datetime.datetime) -> Sequence[Cell]:
    last = f"{age(row.last_denied_at, now)} ago {row.last_denied}" if row.last_denied else ""
    return (
        Cell(row.namespace, _DIM),
        Cell(row.name, "bold"),
        Cell({"True": "ready", "False": "not ready"}.get(row.phase, "unknown"), style_of(row.phase)),
        Cell(row.enforcement, "yellow" if row.enforcement == "Audit" else ""),
        Cell(str(row.tasks)),
        Cell(str(row.allowed), "green" if row.allowed else _DIM),
        Cell(str(row.denied), "red" if row.denied else _DIM),
        Cell(age(row.created, now), _DIM),
        Cell(row.message or last, "red" if row.message else ""),
    )


POLICIES: Final = View(
    "Policies",
    "no policies: nothing may run",
    (
        Column("NAMESPACE", 9, 20, 5, middle=True),
        Column("NAME", 8, 40, middle=True),
        Column("READY", 5, 9),
        Column("MODE", 5, 7, 4),
        Column("TASKS", 5, 6, 6, right=True),
        Column("ALLOWED", 7, 9, 0, right=True),
        Column("DENIED", 6, 9, 0, right=True),
        Column("AGE", 3, 4, 7, right=True),
        Column("LAST DENIED", 20, 60, 3),
    ),
    _policy,
    lambda row: (row.phase == "True", row.namespace, row.name),
    lambda row: f"{row.namespace}/{row.name} {row.enforcement} {row.last_denied} {row.message}",
)

VIEWS: Final = (TASKS, RELEASES, SCHEDULES, POLICIES)
