"""Schedules: when they run, and how their runs ended."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Final

from aiohttp import web
from markupsafe import Markup

from remit.web import calendar
from remit.web.rendering import View
from remit.web.rows import SCHEDULED, TaskRow
from remit.web.sessions import Session

_LAST: Final = 12
_MOST: Final = 300


async def schedules(request: web.Request, session: Session) -> View:
    now, rows = time.time(), session.viewer.tasks()
    runs: dict[tuple[str, str], list[TaskRow]] = {}
    for row in rows:
        if row.schedule:
            runs.setdefault((row.namespace, row.schedule), []).append(row)
    found = sorted((row for row in rows if row.phase == SCHEDULED or row.cron), key=lambda row: row.key)
    shown = found[:_MOST]
    days = await asyncio.to_thread(_days, [row for row in shown if not row.suspended], now)
    listed = [
        {
            "row": row,
            "day": days.get(row.key, ""),
            "runs": sorted(runs.get((row.namespace, row.name), ()), key=lambda each: each.created)[-_LAST:],
        }
        for row in shown
    ]
    context = {"listed": listed, "left_out": max(0, len(found) - _MOST)}
    return View("schedules.html", "Schedules", "schedules", context, ("rows",))


def _days(rows: Sequence[TaskRow], now: float) -> dict[str, Markup]:
    """The next day of each, by its key. Many that run each minute take seconds."""
    return {row.key: calendar.day(row.key, row.cron, row.zone, now) for row in rows}
