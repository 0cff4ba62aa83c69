"""The page of a cluster, served on this machine with the credentials of its user, as `kubectl proxy` does.

Nothing of it listens in the cluster, so nobody has to be kept out there: the API server knows who asks, and decides
about each read and each change. The key that makes links stays in memory.
"""

from __future__ import annotations

import contextlib
import sys
import time
from typing import Final
from urllib.parse import urlsplit

import typer

from remit.cli.logsetup import set_up_logs
from remit.cli.signals import stop_requested, until
from remit.errors import ApiError, RemitError
from remit.kube.access import Access
from remit.kube.client import TASKS, Kube
from remit.telemetry.logs import escape, form_for
from remit.web import login
from remit.web.caches import Scope
from remit.web.listening import page_sockets, page_url
from remit.web.server import PageServer
from remit.web.viewer import Viewer

_HOST: Final = "127.0.0.1"
_FORBIDDEN: Final = 403
_REVIEWS: Final = "/apis/authentication.k8s.io/v1/selfsubjectreviews"


async def serve(access: Access, port: int | None, scope: Scope, operator_namespace: str) -> None:
    """Serve until told to stop. Raises `RemitError` where the API server cannot be used, or the port cannot be had."""
    set_up_logs(form_for(sys.stderr), "warning")
    async with Kube(access) as kube:
        name = f"{await _who(kube)} on {urlsplit(access.server).netloc}"
        await _check(kube, scope)
    with contextlib.ExitStack() as stack, stop_requested() as stop:
        sockets = page_sockets(_HOST, port)
        if not sockets:
            raise RemitError(f"no port of {_HOST} is free; end what you do not need, or name one with --port")
        for each in sockets:
            stack.enter_context(each)
        page = login.new_page(page_url(sockets))
        viewer = Viewer(name, access, (), operator_namespace, scope)
        async with PageServer(sockets, viewer, page.key):
            typer.echo(login.login_url(page, time.time()))
            sys.stdout.flush()
            typer.echo(escape(f"It logs in once, within 15 minutes, as {name}. Ctrl-C ends the page."), err=True)
            await until(stop)


async def _who(kube: Kube) -> str:
    """The user's name as the API server knows it. Before Kubernetes 1.28 it does not tell."""
    body = {"apiVersion": "authentication.k8s.io/v1", "kind": "SelfSubjectReview"}
    try:
        answer = await kube.request("POST", _REVIEWS, body=body)
    except ApiError as error:
        if error.status not in {_FORBIDDEN, 404}:
            raise
        return "you"
    return str(((answer.get("status") or {}).get("userInfo") or {}).get("username") or "you")


async def _check(kube: Kube, scope: Scope) -> None:
    """What is wrong from the beginning is told as by any other command; what may not be listed, the page tells."""
    for namespace in scope.namespaces or (None,):
        try:
            await kube.request("GET", TASKS.path(namespace), params={"limit": "1"})
        except ApiError as error:
            if error.status != _FORBIDDEN:
                raise
