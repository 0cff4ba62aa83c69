"""Keeps a board as the API server has it: lists and watches, over lost servers and refusals, without an end."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

import aiohttp

from remit.api.endpoint import Resource
from remit.cli.errors import explained
from remit.cli.top.board import KINDS, Board, Kind, Sight
from remit.errors import ApiError
from remit.kube.client import DEPLOYMENTS, POLICIES, TASKS, Kube

RESOURCES: Final[dict[Kind, Resource]] = {"tasks": TASKS, "releases": DEPLOYMENTS, "policies": POLICIES}
_SHORTEST_PAUSE, _LONGEST_PAUSE, _REFUSED_PAUSE = 0.2, 5.0, 30.0
_EXPIRED = 410
_OBJECTS_PER_TURN: Final = 100
"""Objects of a list that are taken over before keys have a turn on the event loop."""


class Watcher:
    """One kind, of a namespace or (None) of all, with `selector`'s labels."""

    def __init__(self, kube: Kube, board: Board, kind: Kind, namespace: str | None, selector: str) -> None:
        self._kube, self._board, self._kind = kube, board, kind
        self._resource, self._namespace, self._selector = RESOURCES[kind], namespace, selector

    async def keep(self) -> None:
        """Run until it is cancelled."""
        clock = asyncio.get_running_loop().time
        version, pause = "", _SHORTEST_PAUSE
        while True:
            began = clock()
            try:
                if not version:
                    version = await self._list()
                    self._board.see(self._kind, Sight("live"))
                async for reached in self._watch(version):
                    version = reached
            except (ApiError, aiohttp.ClientError, TimeoutError) as error:
                version = ""
                if isinstance(error, ApiError) and error.status == _EXPIRED:
                    continue
                self._lose(error, clock())
                if isinstance(error, ApiError) and not error.retryable:
                    await asyncio.sleep(_REFUSED_PAUSE)
                    continue
            pause = _SHORTEST_PAUSE if clock() - began > _LONGEST_PAUSE else min(pause * 2, _LONGEST_PAUSE)
            if clock() - began < pause:
                await asyncio.sleep(pause)

    def _lose(self, error: Exception, now: float) -> None:
        if isinstance(error, ApiError) and not error.retryable:
            self._board.see(self._kind, Sight("refused", explained(error), now))
            return
        server = self._kube.access.server
        why = explained(error) if isinstance(error, ApiError) else f"{server} does not answer ({type(error).__name__})"
        if self._board.sights[self._kind].state != "lost":
            self._board.see(self._kind, Sight("lost", why, now))

    async def _list(self) -> str:
        """The resourceVersion that a watch goes on from."""
        clock = asyncio.get_running_loop().time
        uids, version, count = set[str](), "", 0
        async for first, page in self._kube.list_pages(self._resource, self._namespace, self._selector, ""):
            if first:
                uids.clear()
            for obj in page.get("items", []):
                uids.add(obj["metadata"]["uid"])
                self._board.put(self._kind, obj, clock())
                count += 1
                if count % _OBJECTS_PER_TURN == 0:
                    await asyncio.sleep(0)
            version = str(page.get("metadata", {}).get("resourceVersion", ""))
        self._board.keep_only(self._kind, uids)
        return version

    async def _watch(self, version: str) -> AsyncIterator[str]:
        """The versions that it has come to."""
        clock = asyncio.get_running_loop().time
        changes = self._kube.watch(
            self._resource, self._namespace, resource_version=version, label_selector=self._selector
        )
        async with contextlib.aclosing(changes):
            async for type_, obj in changes:
                if type_ == "DELETED":
                    self._board.remove(self._kind, obj["metadata"]["uid"])
                elif type_ in {"ADDED", "MODIFIED"}:
                    self._board.put(self._kind, obj, clock())
                yield obj["metadata"]["resourceVersion"]


@contextlib.asynccontextmanager
async def watching(kube: Kube, board: Board, namespace: str | None, selector: str) -> AsyncIterator[None]:
    """Keep the board while the block runs."""
    watchers = [Watcher(kube, board, kind, namespace, selector) for kind in KINDS]
    keeping = [asyncio.create_task(each.keep(), name="watch for remit top") for each in watchers]
    try:
        yield
    finally:
        for each in keeping:
            each.cancel()
        await asyncio.gather(*keeping, return_exceptions=True)
