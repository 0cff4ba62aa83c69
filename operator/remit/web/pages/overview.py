"""The first view."""

from __future__ import annotations

import time

from aiohttp import web

from remit.web import sparkline
from remit.web.overview import policies_needing_attention, releases_needing_attention, summarize
from remit.web.pages.releasecard import card
from remit.web.rendering import View
from remit.web.sessions import Session


async def overview(request: web.Request, session: Session) -> View:
    viewer, now = session.viewer, time.time()
    found = summarize(viewer.tasks(), now)
    deployments, policies = viewer.deployments(), viewer.policies()
    ended = [sum(pair) for pair in zip(found.succeeded, found.failed, strict=True)]
    context = {
        "found": found,
        "ended": sum(ended),
        "failed": sum(found.failed),
        "plots": {
            "running": sparkline.line(_told("running tasks", found.busy), found.busy, "run"),
            "waiting": sparkline.line(_told("waiting tasks", found.queued), found.queued, "wait"),
            "ended": sparkline.columns(
                f"tasks that ended in the last hour: {sum(found.succeeded)} succeeded, {sum(found.failed)} failed",
                (found.succeeded, found.failed),
                ("ok", "bad"),
            ),
        },
        "peaks": {"running": max(found.busy), "waiting": max(found.queued), "ended": max(ended)},
        "attention": releases_needing_attention(deployments) + policies_needing_attention(policies) + found.failures,
        "releases": [card(obj) for obj in deployments],
        "policies": len(policies),
        "namespace_of_ceilings": viewer.operator_namespace,
    }
    return View(
        "overview.html", "Overview", "overview", context, ("numbers", "attention", "waiting", "running", "releases")
    )


def _told(what: str, values: list[int]) -> str:
    return f"{what} in each minute of the last hour: now {values[-1]}, at most {max(values)}"
