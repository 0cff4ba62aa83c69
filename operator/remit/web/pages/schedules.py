"""Schedules: when they run, and how their runs ended."""

from __future__ import annotations

import time
from typing import Final

from aiohttp import web

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
    listed = [
        {
            "row": row,
            "day": calendar.day(row.key, row.cron, row.zone, now) if not row.suspended else "",
            "runs": sorted(runs.get((row.namespace, row.name), ()), key=lambda each: each.created)[-_LAST:],
        }
        for row in found[:_MOST]
    ]
    context = {"listed": listed, "left_out": max(0, len(found) - _MOST)}
    return View("schedules.html", "Schedules", "schedules", context, ("rows",))
