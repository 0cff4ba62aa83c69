"""The report of a release: as a view, and as the files that the operator wrote."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final, get_args

from aiohttp import web
from markupsafe import Markup

from remit.api.deployment import Deployment
from remit.kube.client import DEPLOYMENTS
from remit.release.report import folder
from remit.release.report.page import fragment
from remit.web.pages.place import place
from remit.web.rendering import View
from remit.web.sessions import Session
from remit.web.viewer import Viewer

_POLICY: Final = "default-src 'none'; style-src 'unsafe-inline'; frame-ancestors 'none'; sandbox"
"""The content security policy of a report's own page, which has its style inline."""
_TYPES: Final[dict[folder.Form, str]] = {"html": "text/html", "md": "text/markdown", "json": "application/json"}


async def revisions(viewer: Viewer, deployment: Deployment) -> set[int]:
    """List the revisions whose whole report is on this machine."""
    return set(await asyncio.to_thread(_folders, viewer, deployment))


def _folders(viewer: Viewer, deployment: Deployment) -> dict[int, Path]:
    metadata = deployment.metadata
    found: dict[int, Path] = {}
    for each in deployment.status.history:
        if each.report is not None:
            for state_dir in viewer.state_dirs:
                where = folder.of(state_dir, metadata.namespace, metadata.name)
                if folder.belongs(where, each.revision, metadata.uid, each.report.started_at):
                    found[each.revision] = where
    return found


async def report(request: web.Request, session: Session) -> View:
    """The report of one release within the page."""
    namespace, name = place(request)
    revision, folders = await _find(request, session)
    try:
        found = await asyncio.to_thread(folder.read, folders[revision], revision)
    except OSError:
        raise web.HTTPNotFound from None
    except ValueError:  # a version of Remit wrote it whose reports have other fields
        found = None
    context = {
        "path": f"/releases/{namespace}/{name}",
        "name": f"{namespace}/{name}",
        "revision": revision,
        "report": found,
        "body": Markup(fragment(found)) if found is not None else None,  # noqa: S704  # it escapes all text
        "revisions": sorted(folders, reverse=True),
        "forms": get_args(folder.Form),
    }
    return View("report.html", f"{namespace}/{name}, revision {revision}", "releases", context)


async def download(request: web.Request, session: Session) -> web.StreamResponse:
    """One of the files that the operator wrote of a release."""
    _, name = place(request)
    form = request.query.get("form", "html")
    if form not in _TYPES:
        raise web.HTTPNotFound
    revision, folders = await _find(request, session)
    file = folder.file(folders[revision], revision, form)
    try:
        text = await asyncio.to_thread(file.read_text)
    except OSError:
        raise web.HTTPNotFound from None
    headers = {"Content-Security-Policy": _POLICY}
    if "form" in request.query:
        headers["Content-Disposition"] = f'attachment; filename="{name}-{file.name}"'
    return web.Response(text=text, content_type=_TYPES[form], headers=headers)


async def _find(request: web.Request, session: Session) -> tuple[int, dict[int, Path]]:
    """Give the revision that is asked for, and the folders with reports by their revisions, of which it is one. Raises
    HTTPNotFound."""
    deployment = Deployment.parse(await session.viewer.fetch(DEPLOYMENTS, *place(request)))
    folders = await asyncio.to_thread(_folders, session.viewer, deployment)
    number = request.match_info["revision"]
    revision = next((each for each in folders if str(each) == number), None)
    if revision is None:
        raise web.HTTPNotFound
    return revision, folders
