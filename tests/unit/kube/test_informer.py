"""Tests an informer that keeps a part of each object and tells whether its list is complete."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from typing import Any, cast

from remit.errors import ApiError
from remit.kube.access import Access
from remit.kube.client import TASKS, Kube, Object
from remit.kube.informer import Informer
from remit.kube.reflector import ResourceEventHandler


def obj(name: str, version: str) -> Object:
    metadata = {"namespace": "ns", "name": name, "uid": name, "resourceVersion": version}
    return {"metadata": metadata, "status": {"large": "x" * 1000}}


class Server(Kube):
    """Lists one object, and sends what is put into `changes` as watch events. Refuses lists while `refusal` is set."""

    def __init__(self) -> None:
        super().__init__(cast(Access, None))
        self.changes: asyncio.Queue[tuple[str, Object]] = asyncio.Queue()
        self.refusal: ApiError | None = None

    async def request(self, method: str, path: str, **_: Any) -> Object:
        if self.refusal is not None:
            raise self.refusal
        return {"items": [obj("a", "1")], "metadata": {"resourceVersion": "1"}}

    async def watch(self, *_: Any, **__: Any) -> AsyncGenerator[tuple[str, Object], None]:
        while True:
            yield await self.changes.get()


def slim(full: Object) -> Object:
    return {"metadata": full["metadata"], "size": len(full["status"]["large"])}


async def test_what_is_kept_and_told_is_what_was_made_of_it() -> None:
    server, told = Server(), list[str]()
    informer = Informer(server, TASKS, None, transform=slim)
    informer.add_handler(ResourceEventHandler(on_add=lambda new: told.append(new["metadata"]["name"])))
    async with asyncio.timeout(30), informer:
        await informer.settled()
        assert informer.has_synced
        server.changes.put_nowait(("ADDED", obj("b", "2")))
        server.changes.put_nowait(("DELETED", obj("a", "3")))
        with informer.subscribe() as news:
            while len(informer.objects) != 1 or informer.objects.get("ns/b") is None:
                await news.next()
        assert informer.objects.list() == [{"metadata": obj("b", "2")["metadata"], "size": 1000}]
    assert told == ["a", "b"]


async def test_a_server_that_refuses_or_is_away_settles_it_too() -> None:
    server = Server()
    server.refusal = ApiError("no", status=403, reason="Forbidden")
    async with asyncio.timeout(30), Informer(server, TASKS, None) as informer:
        await informer.settled()
        assert (informer.has_synced, informer.failed, informer.error) == (False, True, server.refusal)
    server.refusal = ApiError("away", status=503)
    async with asyncio.timeout(30), Informer(server, TASKS, None, patience=float("inf")) as informer:
        await informer.settled()
        assert (informer.has_synced, informer.failed, informer.silent_since is None) == (False, False, False)
