"""`remit get deployment NAME`: its tree, once or as it changes."""

from __future__ import annotations

import asyncio
import datetime
import sys

from rich.live import Live

from remit.api.deployment import Deployment
from remit.cli.releasedrawing import draw
from remit.cli.tables import console, redraws
from remit.controllers import hooks
from remit.describe.connection import Connection
from remit.describe.releasetree import ReleaseTree, release_tree
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, TASKS
from remit.release.conclusion import failure, over
from remit.telemetry.logs import escape

_LOOK_SECONDS = 0.5


async def show(connection: Connection, name: str, options: str) -> None:
    """The tree as it is."""
    console().print(draw((await _look(connection, name, options))[1]))


async def watch(connection: Connection, name: str, options: str, *, until_done: bool) -> bool:
    """Draw it anew until it is interrupted, or until the release is over. False where that end is a bad one.

    Where standard output is no terminal it is one line for each change.
    """
    screen = console()
    live, told = Live(console=screen, auto_refresh=False, vertical_overflow="ellipsis"), ""
    try:
        if redraws(screen):
            live.start()
        while True:
            try:
                deployment, tree = await _look(connection, name, options)
            except ApiError as error:
                if not error.retryable:
                    raise
            else:
                if redraws(screen):
                    live.update(draw(tree), refresh=True)
                elif tree.line != told:
                    told = tree.line
                    sys.stdout.write(f"{datetime.datetime.now(datetime.UTC):%H:%M:%SZ} {escape(told)}\n")
                    sys.stdout.flush()
                if until_done and over(deployment):
                    return failure(deployment) is None
            await asyncio.sleep(_LOOK_SECONDS)
    finally:
        live.stop()


async def _look(connection: Connection, name: str, options: str) -> tuple[Deployment, ReleaseTree]:
    obj = await connection.find(DEPLOYMENTS, name)
    deployment = Deployment.parse(obj)
    found = await connection.kube.list(TASKS, connection.namespace, label_selector=hooks.selector(name))
    tasks = hooks.hook_tasks(obj, found)
    return deployment, release_tree(deployment, tasks, datetime.datetime.now(datetime.UTC), options=options)
