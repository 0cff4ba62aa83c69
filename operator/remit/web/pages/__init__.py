"""The views, and what their forms do.

A view's module is imported when somebody first looks at it. Together the modules need most of Remit, which took more
than half of the time from the start of the page's process until the overview was shown.
"""

from __future__ import annotations

import asyncio
import contextlib
import importlib
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

from aiohttp import web

from remit.web.live import Events
from remit.web.sessions import Session

Act = Callable[[web.Request, Session], Awaitable[str]]
"""Does what a form asks for, and says at which view to go on. Raises `RemitError`."""
Download = Callable[[web.Request, Session], Awaitable[web.StreamResponse]]

_TASK: Final = "/tasks/{namespace}/{name}"
_RELEASE: Final = "/releases/{namespace}/{name}"

VIEWS: Final[Sequence[tuple[str, str, str | None]]] = (
    ("/", "overview.overview", None),
    ("/tasks", "tasks.tasks", None),
    (_TASK, "task.task", "task.task_output"),
    (f"{_TASK}/why", "task.why", None),
    ("/releases", "releases.releases", None),
    (_RELEASE, "releases.release", "releases.release_output"),
    (f"{_RELEASE}/reports/{{revision}}", "reports.report", None),
    ("/schedules", "schedules.schedules", None),
    ("/policies", "policies.policies", None),
    ("/policies/{namespace}/{name}", "policies.policy", None),
    ("/audit", "audit.audit", None),
)
"""The path, what is shown there, and what its live stream tells besides the regions. Functions are named by their
module in this package and their name in it."""
ACTIONS: Final[Sequence[tuple[str, str]]] = (
    (f"{_TASK}/cancel", "task.cancel"),
    (f"{_TASK}/rerun", "task.rerun"),
    (f"{_RELEASE}/{{verb}}", "releases.act"),
    ("/audit/check", "audit.check"),
)
DOWNLOADS: Final[Sequence[tuple[str, str]]] = (
    (f"{_TASK}/output/{{attempt}}/{{stream}}", "task.download"),
    (f"{_RELEASE}/report/{{revision}}", "reports.download"),
)
FORMS: Final[Sequence[tuple[str, str]]] = (("/policies/try", "policies.try_it"),)
"""Forms that change nothing, whose answer is a page: what is in them must not be in an address."""


_functions: dict[str, Any] = {}
"""Those that were imported already, by name: live pages call them twice a second."""


async def imported(name: str) -> Any:
    """Give a function that is named as in `VIEWS`. Its module is imported in a thread, and other requests are answered
    meanwhile."""
    if name not in _functions:
        module, _, function = name.partition(".")
        found = await asyncio.to_thread(importlib.import_module, f"{__name__}.{module}")
        _functions[name] = getattr(found, function)
    return _functions[name]


async def import_all() -> None:
    """Import the modules of all views, one after the other."""
    for _, show, _ in VIEWS:
        await imported(show)


def handler_of(name: str) -> Callable[[web.Request, Session], Awaitable[Any]]:
    async def handle(request: web.Request, session: Session) -> Any:
        return await (await imported(name))(request, session)

    return handle


def events_of(name: str) -> Callable[[web.Request, Session], Events]:
    async def events(request: web.Request, session: Session) -> Events:
        async with contextlib.aclosing((await imported(name))(request, session)) as found:
            async for event in found:
                yield event

    return events
