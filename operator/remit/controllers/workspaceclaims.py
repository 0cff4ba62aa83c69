"""Removes the claims of workspaces whose time to live is over. Only an operator that leads does so."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterable, Sequence
from typing import Final

from remit.api.phases import FINAL_PHASES
from remit.backends.kubernetes.workspaces import Key, Workspaces
from remit.kube.client import Object
from remit.kube.indexer import Indexer

_SHORTEST_SECONDS: Final = 1.0


def wanted(tasks: Iterable[Object]) -> set[Key]:
    """The workspaces that tasks have or wait for. A schedule has none: the tasks that it makes do."""
    return {
        (task["metadata"]["namespace"], workspace["name"])
        for task in tasks
        if (task.get("status") or {}).get("phase") not in FINAL_PHASES and not task["spec"].get("schedule")
        for volume in task["spec"].get("volumes") or []
        if (workspace := volume.get("workspace"))
    }


async def keep_pruning(workspaces: Workspaces, tasks: Indexer, namespaces: Sequence[str]) -> None:
    """Prune workspaces until cancelled. `tasks` are all that the API server has; without `namespaces`, in all."""
    while True:
        workspaces.ended.clear()
        seconds = await workspaces.prune(namespaces, lambda: wanted(tasks.list()))
        await asyncio.sleep(_SHORTEST_SECONDS)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await workspaces.ended.wait()
