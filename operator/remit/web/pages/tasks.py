"""The list of tasks."""

from __future__ import annotations

from aiohttp import web

from remit.web.rendering import View
from remit.web.rows import PHASES
from remit.web.sessions import Session
from remit.web.tasklist import ORDERS, Asked, listing


async def tasks(request: web.Request, session: Session) -> View:
    asked = Asked.read(request.query)
    found = listing(session.viewer.tasks(), asked)
    context = {"asked": asked, "found": found, "phases": PHASES, "orders": ORDERS}
    return View("tasks.html", "Tasks", "tasks", context, ("counts", "rows"))
