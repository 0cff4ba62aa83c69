"""All that is known, by kind: what came last of each object, what happened since, and what cannot be seen. Pure.

`now` is seconds of a clock that never goes back."""

from __future__ import annotations

import datetime
from collections import Counter
from collections.abc import Callable, Collection
from dataclasses import dataclass, field
from typing import Any, Final, Literal, NamedTuple

from remit.cli.top.rates import Rates
from remit.cli.top.rows import Row, ScheduleRow, TaskRow, policy_row, release_row, task_row
from remit.cli.top.views import POLICIES, RELEASES, SCHEDULES, TASKS, View

Kind = Literal["tasks", "releases", "policies"]
KINDS: Final[tuple[Kind, ...]] = ("tasks", "releases", "policies")
MOST: Final = 20_000
"""Tasks that are kept; beyond them, those that ended first are left out."""


class Sight(NamedTuple):
    """Whether a kind is seen. `since`: from when on it is not."""

    state: Literal["looking", "live", "lost", "refused"]
    why: str = ""
    since: float = 0.0


@dataclass
class Board:
    """`most`: see `MOST`. `changed` is called whenever anything that is shown may be another."""

    now: float
    most: int = MOST
    changed: Callable[[], None] = lambda: None
    rows: dict[Kind, dict[str, Row]] = field(default_factory=lambda: {kind: {} for kind in KINDS})
    """By uid; of tasks also those with a schedule, those that changed last at the end."""
    sights: dict[Kind, Sight] = field(default_factory=lambda: dict.fromkeys(KINDS, Sight("looking")))
    left_out: int = 0
    """Tasks that were too many."""

    def __post_init__(self) -> None:
        self.rates = Rates(self.now)
        self.versions: dict[View, int] = dict.fromkeys((TASKS, RELEASES, SCHEDULES, POLICIES), 0)
        """Another number whenever a table may be another."""
        self._listed = False
        self._newest: datetime.datetime | None = None
        """When the newest task was created that is known: no older one is news."""

    def put(self, kind: Kind, obj: dict[str, Any], now: float) -> None:
        """An object as it is now."""
        if kind == "tasks":
            self._put_task(task_row(obj), now)
        else:
            row = release_row(obj) if kind == "releases" else policy_row(obj)
            self.rows[kind][row.uid] = row
            self._touch(RELEASES if kind == "releases" else POLICIES)

    def remove(self, kind: Kind, uid: str) -> None:
        row = self.rows[kind].pop(uid, None)
        if row is not None:
            self._touch(_view_of(kind, row))
        elif kind == "tasks":
            self.left_out = max(0, self.left_out - 1)

    def keep_only(self, kind: Kind, uids: Collection[str]) -> None:
        """A whole list came: what it does not have is gone."""
        for uid in [uid for uid in self.rows[kind] if uid not in uids]:
            self.remove(kind, uid)
        if kind == "tasks":
            self._listed = True
            self.left_out = max(0, len(uids) - len(self.rows["tasks"]))

    def see(self, kind: Kind, sight: Sight) -> None:
        if self.sights[kind][:2] != sight[:2]:
            self.sights[kind] = sight
            self.changed()

    def of(self, view: View) -> list[Row]:
        """All rows of a table, in no order."""
        if view in {RELEASES, POLICIES}:
            return list(self.rows["releases" if view is RELEASES else "policies"].values())
        wanted = TaskRow if view is TASKS else ScheduleRow
        return [row for row in self.rows["tasks"].values() if isinstance(row, wanted)]

    def find(self, uid: str) -> Row | None:
        return next((found for kind in KINDS if (found := self.rows[kind].get(uid)) is not None), None)

    def phases(self) -> Counter[str]:
        """How many tasks without a schedule are in each phase."""
        return Counter(row.phase for row in self.rows["tasks"].values() if isinstance(row, TaskRow))

    def _put_task(self, row: TaskRow | ScheduleRow, now: float) -> None:
        tasks = self.rows["tasks"]
        before = tasks.pop(row.uid, None)
        tasks[row.uid] = row
        if before is None and len(tasks) > self.most:
            del tasks[
                next((uid for uid, each in tasks.items() if isinstance(each, TaskRow) and each.over), next(iter(tasks)))
            ]
            self.left_out += 1
        if isinstance(row, TaskRow):
            self._count(before if isinstance(before, TaskRow) else None, row, now)
        if row.created is not None and (self._newest is None or row.created > self._newest):
            self._newest = row.created
        self._touch(_view_of("tasks", row))

    def _count(self, before: TaskRow | None, row: TaskRow, now: float) -> None:
        """What a task has done since it was seen last; all of it, where it is new."""
        if before is None and (not self._listed or (self._newest and row.created and row.created < self._newest)):
            return
        if row.started is not None and (before is None or before.started is None):
            self.rates.started.count(now)
        if row.over and (before is None or not before.over):
            self.rates.finished.count(now)
            if row.failed:
                self.rates.failed.count(now)

    def _touch(self, view: View) -> None:
        self.versions[view] += 1
        self.changed()


def _view_of(kind: Kind, row: Row) -> View:
    if kind == "tasks":
        return SCHEDULES if isinstance(row, ScheduleRow) else TASKS
    return RELEASES if kind == "releases" else POLICIES
