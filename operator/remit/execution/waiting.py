"""Tasks that wait: for their turn, for what they refer to, for the audit trail. Status says what for, not too often."""

from __future__ import annotations

import datetime
from collections.abc import Callable
from dataclasses import dataclass, field

from remit.api.phases import Phase
from remit.execution import progress
from remit.execution.lifecycle import waits_since
from remit.execution.queue import Place
from remit.execution.taskstore import StoredTask, TaskStore

QUEUED_IS_WORTH_A_WRITE = 10.0
"""Seconds that a task waits for its turn before status says so. The write would only make a burst's queue longer; past
that, whoever waits wants to know what for."""
PLACE_IS_FRESH = 30.0
"""Seconds between writes of a waiting task's place."""
AUDIT_RETRY = 5.0
"""Seconds until a task that waits for the audit trail is looked at again."""


@dataclass
class Waiting:
    """Each method tells that a task waits, where that is news. Gives the seconds until it is to be looked at again."""

    store: TaskStore
    now: Callable[[], datetime.datetime]
    _told: dict[str, datetime.datetime] = field(default_factory=dict)
    """When a waiting task's status last told its place."""

    def over(self, key: str) -> None:
        """It waits no more, or is no more."""
        self._told.pop(key, None)

    async def for_turn(self, stored: StoredTask, place: Place) -> float:
        now, task = self.now(), stored.task
        told = self._told.get(task.key)
        told_at = told + datetime.timedelta(seconds=PLACE_IS_FRESH) if told else None
        due = told_at or waits_since(task, now) + datetime.timedelta(seconds=QUEUED_IS_WORTH_A_WRITE)
        if now < due:
            return (due - now).total_seconds()
        status = progress.queued(task, place, now)
        if task.status.phase is not Phase.QUEUED or task.status.queue != status.queue:
            await self.store.write_status(stored, status)
        self._told[task.key] = now
        return PLACE_IS_FRESH

    async def for_reference(self, stored: StoredTask, why: str) -> float:
        await self._say(stored, "WaitingForReference", why)
        since = stored.task.status.queued_at or self.now()
        # The delay grows with the time that the task has waited.
        return min(60.0, max(0.5, (self.now() - since).total_seconds()))

    async def for_audit(self, stored: StoredTask, why: str) -> float:
        """Report that the task waits for the audit trail, and return the seconds until the next try. What cannot be
        recorded must not happen: neither a run nor a denial."""
        await self._say(stored, "AuditUnavailable", f"waits until its decision can be recorded: {why}")
        return AUDIT_RETRY

    async def _say(self, stored: StoredTask, reason: str, why: str) -> None:
        if stored.task.status.message != why:
            status = progress.waiting(stored.task, Phase.PENDING, reason, why, self.now())
            await self.store.write_status(stored, status)
            self.store.record_event(stored, "Warning", reason, why)
