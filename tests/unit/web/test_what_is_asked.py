"""Tests the page's requests to an API server: they have the viewer's credentials, and nothing that a browser sent."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import aiohttp
import pytest
from aiohttp import web

from remit.kube.access import Access
from remit.web import login
from remit.web.caches import Scope
from remit.web.server import PageServer
from remit.web.viewer import Viewer
from support import pauses

TOKEN = "a-token-that-nobody-sees"
KEY = bytes(32)
TASK: dict[str, Any] = {
    "apiVersion": "remit.dev/v1alpha1",
    "kind": "ExecutionTask",
    "metadata": {"name": "one", "namespace": "data", "uid": "u", "resourceVersion": "1", "creationTimestamp": None},
    "spec": {"command": {"argv": ["echo"]}},
}
SENT = {
    "Authorization": "Bearer of-the-browser",
    "Impersonate-User": "system:admin",
    "Impersonate-Group": "system:masters",
    "X-Remote-User": "admin",
    "X-Forwarded-For": "10.0.0.1",
    "Proxy-Authorization": "Basic eDp5",
    "X-Remit-Anything": "1",
}
OWN = {"Host", "Accept", "Accept-Encoding", "Content-Type", "Content-Length", "User-Agent", "Authorization"}


@dataclass
class ApiServer:
    """An API server with one namespace. Tasks may be listed unless `refused` contains the scope: `all` or the
    namespace's name."""

    refused: set[str] = field(default_factory=set)
    asked: list[web.BaseRequest] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[str]:
        server = web.Server(self._answer)
        runner = web.ServerRunner(server, shutdown_timeout=0.1)
        await runner.setup()
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        try:
            yield f"http://127.0.0.1:{runner.addresses[0][1]}"
        finally:
            await runner.cleanup()

    async def _answer(self, request: web.BaseRequest) -> web.StreamResponse:
        self.asked.append(request)
        path = request.path
        place = "data" if "/namespaces/data/" in path else "all"
        if path.endswith("accessreviews"):
            return web.json_response({"status": {"allowed": True}})
        if path.endswith(("executiontasks", "deployments", "commandpolicies")) and request.method == "GET":
            if place in self.refused:
                status = {"kind": "Status", "message": f"{place} is refused", "reason": "Forbidden"}
                return web.json_response(status, status=403)
            if request.query.get("watch"):
                response = web.StreamResponse()
                await response.prepare(request)
                await asyncio.sleep(60)
                return response
            items = [TASK] if "executiontasks" in path else []
            return web.json_response({"items": items, "metadata": {"resourceVersion": "1"}})
        if path.endswith("/executiontasks/one"):
            return web.json_response(TASK)
        return web.json_response({"items": [], "metadata": {}})


@dataclass
class Browser:
    client: aiohttp.ClientSession
    base: str

    async def asks(self, method: str, path: str) -> str:
        """Sends a request with headers that must be ignored, and returns the whole response."""
        async with self.client.request(method, self.base + path, headers=SENT, allow_redirects=False) as answer:
            return f"{answer.headers}{await answer.text()}"


@asynccontextmanager
async def page(api: ApiServer, scope: Scope) -> AsyncIterator[tuple[Browser, Viewer]]:
    async with api.serving() as server:
        viewer = Viewer("somebody", Access(server, token=f"Bearer {TOKEN}"), (), "remit-system", scope)
        async with PageServer([socket.create_server(("127.0.0.1", 0))], viewer, KEY) as serving:
            origin = f"http://127.0.0.1:{serving.port}"
            jar = aiohttp.CookieJar(unsafe=True)
            async with aiohttp.ClientSession(cookie_jar=jar, headers={"Origin": origin}) as client:
                link = f"{origin}/login?token={login.mint(KEY, time.time())}"
                async with client.get(link, headers=SENT) as answer:
                    assert answer.status == 200
                yield Browser(client, origin + serving.base), viewer


async def text(browser: Browser, path: str, *words: str) -> str:
    """Returns the text of a page once it contains these words."""
    pause, end = pauses(), time.monotonic() + 60
    while True:
        found = await browser.asks("GET", path)
        if all(word in found for word in words):
            return found
        assert time.monotonic() < end, found
        await asyncio.sleep(next(pause))


async def test_no_header_of_a_browser_is_passed_on_and_no_credential_is_shown() -> None:
    api = ApiServer()
    async with page(api, Scope()) as (browser, _):
        shown = [await text(browser, path) for path in ("/", "/tasks/data/one", "/releases", "/policies", "/audit")]
        shown += [await browser.asks("POST", f"/tasks/data/one/{each}") for each in ("cancel", "rerun")]
        shown.append(await browser.asks("GET", "/tasks/data/one?token=x&as=admin"))
    assert not [each for each in shown if TOKEN in each]
    assert {request.method for request in api.asked} == {"GET", "POST", "PATCH"}
    for request in api.asked:
        assert set(request.headers) <= OWN, request
        assert request.headers["Authorization"] == f"Bearer {TOKEN}"
        assert not {"token", "as", "cookie"} & set(request.query)
        assert browser.base.rpartition("/")[2] not in f"{request.path_qs}{request.headers}"


async def test_where_all_may_not_be_listed_one_namespace_is_shown_until_all_may() -> None:
    api = ApiServer({"all"})
    async with page(api, Scope(otherwise="data")) as (browser, viewer):
        await text(browser, "/tasks", "/tasks/data/one", "You may not list executiontasks, deployments and")
        assert viewer.trouble == ""
        api.refused.clear()
        for cache in viewer._caches.values():  # as if ten seconds had passed
            cache._ended[None] = float("-inf")
        await text(browser, "/tasks", "/tasks/data/one")
        pause = pauses()
        while viewer.narrowed:
            await asyncio.sleep(next(pause))
            await viewer.open()
        assert [row.name for row in viewer.tasks()] == ["one"]


async def test_a_forbidden_list_is_reported() -> None:
    api = ApiServer({"all", "data"})
    async with page(api, Scope(otherwise="data")) as (browser, viewer):
        await text(browser, "/tasks", "You may not list executiontasks of namespace data, nor of all: data is refused")
        assert viewer.tasks() == []


@pytest.mark.parametrize("namespaces", [(), ("data",)])
async def test_without_another_namespace_none_is_looked_at(namespaces: tuple[str, ...]) -> None:
    api = ApiServer({"all", "data"})
    async with page(api, Scope(namespaces)) as (browser, viewer):
        where = "namespace data" if namespaces else "all namespaces"
        await text(browser, "/tasks", f"You may not list executiontasks of {where}: ")
        assert viewer.tasks() == []
    assert len({request.path for request in api.asked if request.path.endswith("executiontasks")}) == 1
