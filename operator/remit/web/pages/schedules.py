"""Schedules: when they run, and how their runs ended."""

from __future__ import annotations

import asyncio
import datetime
import time
from collections.abc import Sequence
from typing import Any, Final

from aiohttp import web
from markupsafe import Markup

from remit.web import calendar, week
from remit.web.rendering import View
from remit.web.rows import SCHEDULED, TaskRow
from remit.web.sessions import Session

_LAST: Final = 12
_MOST: Final = 300


async def schedules(request: web.Request, session: Session) -> View:
    """The next 24 hours of each schedule; with `week`, a date, the week that has it."""
    now, rows = time.time(), session.viewer.tasks()
    runs: dict[tuple[str, str], list[TaskRow]] = {}
    for row in rows:
        if row.schedule:
            runs.setdefault((row.namespace, row.schedule), []).append(row)
    found = sorted((row for row in rows if row.phase == SCHEDULED or row.cron), key=lambda row: row.key)
    shown = [(row, runs.get((row.namespace, row.name), [])) for row in found[:_MOST]]
    context: dict[str, Any] = {"left_out": max(0, len(found) - _MOST)}
    if "week" in request.query:
        context |= await asyncio.to_thread(_week, shown, week.monday_of(request.query["week"], now), now)
        return View("week.html", "Schedules", "schedules", context, ("rows",))
    days = await asyncio.to_thread(_days, [row for row, _ in shown if not row.suspended], now)
    context["listed"] = [
        {
            "row": row,
            "day": days.get(row.key, ""),
            "runs": sorted(own, key=lambda each: each.created)[-_LAST:],
        }
        for row, own in shown
    ]
    return View("schedules.html", "Schedules", "schedules", context, ("rows",))


def _days(rows: Sequence[TaskRow], now: float) -> dict[str, Markup]:
    """The next day of each, by its key. Many that run each minute take seconds."""
    return {row.key: calendar.day(row.key, row.cron, row.zone, now) for row in rows}


def _week(shown: Sequence[tuple[TaskRow, Sequence[TaskRow]]], monday: datetime.date, now: float) -> dict[str, Any]:
    days = week.days_of(monday, now)
    return {
        "days": days,
        "listed": [(row, week.cells_of(row, own, days, now)) for row, own in shown],
        "before": monday - datetime.timedelta(days=week.DAYS),
        "after": monday + datetime.timedelta(days=week.DAYS),
    }
