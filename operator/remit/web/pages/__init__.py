"""The views, and what their forms do."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from typing import Final

from aiohttp import web

from remit.web.live import Events, Show
from remit.web.pages import audit, policies, releases, schedules, task
from remit.web.pages.overview import overview
from remit.web.pages.tasks import tasks
from remit.web.sessions import Session

_TASK: Final = "/tasks/{namespace}/{name}"
_RELEASE: Final = "/releases/{namespace}/{name}"

VIEWS: Final[Sequence[tuple[str, Show, Callable[[web.Request, Session], Events] | None]]] = (
    ("/", overview, None),
    ("/tasks", tasks, None),
    (_TASK, task.task, task.task_output),
    (f"{_TASK}/why", task.why, None),
    ("/releases", releases.releases, None),
    (_RELEASE, releases.release, releases.release_output),
    ("/schedules", schedules.schedules, None),
    ("/policies", policies.policies, None),
    ("/policies/{namespace}/{name}", policies.policy, None),
    ("/audit", audit.audit, None),
)
"""The path, what is shown there, and what its live stream tells besides the regions."""
ACTIONS: Final[Sequence[tuple[str, Callable[[web.Request, Session], Awaitable[str]]]]] = (
    (f"{_TASK}/cancel", task.cancel),
    (f"{_TASK}/rerun", task.rerun),
    (f"{_RELEASE}/{{verb}}", releases.act),
    ("/audit/check", audit.check),
)
DOWNLOADS: Final[Sequence[tuple[str, Callable[[web.Request, Session], Awaitable[web.StreamResponse]]]]] = (
    (f"{_TASK}/output/{{attempt}}/{{stream}}", task.download),
    (f"{_RELEASE}/report/{{revision}}", releases.report),
)
FORMS: Final[Sequence[tuple[str, Show]]] = (("/policies/try", policies.try_it),)
"""Forms that change nothing, whose answer is a page: what is in them must not be in an address."""
