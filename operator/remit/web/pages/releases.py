"""Releases: all of them, and one with both sides, its traffic, its history, and what can be asked of it."""

from __future__ import annotations

import contextlib
import datetime
import re
import time
from typing import Any, Final

from aiohttp import web

from remit.agent.podlogs import identity_of
from remit.api.deployment import Deployment
from remit.controllers import hooks
from remit.describe.releasetree import earlier, release_tree
from remit.errors import ApiError, DeploymentError, RemitError
from remit.kube.client import DEPLOYMENTS, EVENTS, PODS, TASKS, Object
from remit.release.asking import ask
from remit.web import instances, sparkline
from remit.web.live import Events
from remit.web.pages import reports
from remit.web.pages.events import event_row
from remit.web.pages.place import place
from remit.web.pages.releasecard import card
from remit.web.rendering import View
from remit.web.requests import SECONDS
from remit.web.sessions import Notice, Session
from remit.web.viewer import Viewer

_PATIENCE: Final = 10.0
"""How long to wait until an operator answers a request. The request remains if none does."""
_METERED_SECONDS: Final = 1.0
"""Between two looks at the traffic."""
_REVISION: Final = re.compile("[0-9]{1,9}")
VERBS: Final = ("promote", "abort", "rollback", "retry", "pause", "resume")


async def releases(request: web.Request, session: Session) -> View:
    cards = [card(obj) for obj in session.viewer.deployments()]
    context = {"releases": cards, "sees_all": session.viewer.sees_all(DEPLOYMENTS)}
    return View("releases.html", "Releases", "releases", context, ("cards",))


async def release(request: web.Request, session: Session) -> View:
    namespace, name = place(request)
    viewer = session.viewer
    obj = await viewer.fetch(DEPLOYMENTS, namespace, name)
    deployment, shown = Deployment.parse(obj), card(obj)
    now = datetime.datetime.now(datetime.UTC)
    found = await viewer.few(TASKS, namespace, labels=hooks.selector(name))
    tree = release_tree(deployment, hooks.hook_tasks(obj, found), now)
    may = await viewer.may("patch", DEPLOYMENTS, namespace)
    published = {port.published or port.container_port for port in deployment.spec.ports}
    traffic = await viewer.traffic.look(f"{namespace}/{name}", published)
    plots = {
        slot: sparkline.line(
            f"requests a second to {slot}, now {each.rate:.0f}",
            each.history,
            slot,
            SECONDS,
        )
        for slot, each in traffic.items()
    }
    possible = dict(tree.verbs)
    status = deployment.status
    context = {
        "card": shown,
        "tree": tree,
        "status": status,
        "traffic": traffic,
        "plots": plots,
        "possible": possible if may else {},
        "may": may,
        "may_pause": may and str(status.phase) in {"Progressing", "AwaitingPromotion"} and "resume" not in possible,
        "earlier": earlier(status),
        "stages": _stages(deployment, time.time()),
        "reports": await reports.revisions(viewer, deployment),
        "health": deployment.spec.health_check,
        "instances": await _names(viewer, obj),
        "chosen": request.query.get("instance", ""),
        "reads_files": viewer.reads_files,
        "operator_namespace": viewer.operator_namespace,
        "may_events": await viewer.may("list", EVENTS, namespace),
        "events": [event_row(each) for each in await viewer.events_of(obj)][:12],
    }
    regions = ("head", "sides", "stages", "history", "told")
    every = _METERED_SECONDS if traffic else 5.0
    return View("release.html", f"{namespace}/{name}", "releases", context, regions, every=every)


def _stages(deployment: Deployment, now: float) -> list[dict[str, Any]]:
    told = []
    for stage in deployment.status.stages:
        start = stage.started_at.timestamp() if stage.started_at else None
        end = stage.finished_at.timestamp() if stage.finished_at else now if stage.state == "Running" else None
        seconds = end - start if start is not None and end is not None else None
        told.append({"name": stage.name, "state": stage.state, "seconds": seconds, "message": stage.message})
    return told


async def release_output(request: web.Request, session: Session) -> Events:
    """Stream the output of the instances of a Deployment that the viewer may get."""
    namespace, name = place(request)
    viewer, chosen = session.viewer, request.query.get("instance", "")
    obj = await viewer.fetch(DEPLOYMENTS, namespace, name)
    if instances.on_kubernetes(obj):
        where = identity_of(obj).place
        if not await viewer.may("get", PODS, where, "log"):
            yield "output", {"note": f"You may not read what instances write: it needs get of pods/log in {where}."}
            return
        events = instances.follow(instances.pods(viewer.kube, obj), chosen, viewer.logs, instances.LIST_SECONDS)
    elif not viewer.reads_files:
        return
    else:
        if not await viewer.may("get", DEPLOYMENTS, namespace, "log"):
            yield "output", {"note": "You may not read what instances write: it needs get of deployments/log."}
            return
        find = instances.folders(viewer.state_dirs, f"{namespace}/{name}")
        events = instances.follow(find, chosen, contextlib.nullcontext())
    async with contextlib.aclosing(events):
        async for event in events:
            yield event


async def _names(viewer: Viewer, obj: Object) -> list[str]:
    """The names of instances whose logs can be read; empty if the viewer may not list them."""
    if instances.on_kubernetes(obj):
        try:
            identity = identity_of(obj)
        except DeploymentError:
            return []
        return sorted(
            str(pod["metadata"]["name"]) for pod in await viewer.few(PODS, identity.place, labels=identity.selector)
        )
    find = instances.folders(viewer.state_dirs, f"{obj['metadata']['namespace']}/{obj['metadata']['name']}")
    return sorted(source.name for source in await find())


async def act(request: web.Request, session: Session) -> str:
    """Ask the operator, as `remit promote` and the others do, and tell its answer."""
    namespace, name = place(request)
    verb, viewer = request.match_info["verb"], session.viewer
    if verb not in VERBS:
        raise web.HTTPNotFound
    form = await request.post()
    revision = str(form.get("revision", ""))
    there = f"/releases/{namespace}/{name}"
    if revision and not _REVISION.fullmatch(revision):
        session.notices.append(Notice(f"{revision[:20]!r} is not a revision: its number is expected", good=False))
        return there
    terms: dict[str, Any] = {"revision": int(revision)} if revision else {}

    async def look() -> Deployment:
        return Deployment.parse(await viewer.kube.get(DEPLOYMENTS, namespace, name))

    deployment = await look()  # raises its own error if the object does not exist
    try:
        answer = await ask(viewer.kube, deployment, {verb: terms}, look, _PATIENCE)
    except ApiError:
        raise
    except RemitError as error:
        session.notices.append(Notice(str(error), good=False))
        return there
    session.notices.append(Notice(answer.message or f"{verb}: done", good=answer.accepted))
    return there
