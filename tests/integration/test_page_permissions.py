"""Tests the page for a user who may read one kind and change nothing, on an API server that enforces this."""

from __future__ import annotations

import asyncio
import socket
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from conformance.harness.servers import TOKEN, Server, kube_apiserver, real_server_available
from parts import require
from remit.api.definitions import crds
from remit.api.endpoint import Resource
from remit.errors import ApiError
from remit.kube.access import Access
from remit.kube.client import CRDS, DEPLOYMENTS, TASKS, Kube, Object
from remit.web import login
from remit.web.server import PageServer
from remit.web.viewer import Viewer
from support import pauses

KEY = bytes(32)
READER = "reader-token"
SECONDS = 60
_ROLES = Resource("rbac.authorization.k8s.io", "v1", "clusterroles", namespaced=False)
_BINDINGS = Resource("rbac.authorization.k8s.io", "v1", "clusterrolebindings", namespaced=False)
_RULES = [
    {"apiGroups": ["remit.dev"], "resources": ["executiontasks", "deployments"], "verbs": ["get", "list", "watch"]}
]
TASK: Object = {
    "apiVersion": "remit.dev/v1alpha1",
    "kind": "ExecutionTask",
    "metadata": {"name": "seen", "namespace": "default"},
    "spec": {"command": {"argv": ["echo"]}},
}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require("kube-apiserver", real_server_available(), "put kube-apiserver and etcd where KUBEBUILDER_ASSETS says")
    home = tmp_path_factory.mktemp("page-permissions")
    tokens = home / "tokens.csv"
    tokens.write_text(f"{TOKEN},admin,admin,system:masters\n{READER},reader,reader\n")
    with kube_apiserver(home / "server", authorization_mode="RBAC", token_auth_file=tokens) as running:
        yield running


def access(server: Server, token: str) -> Access:
    return Access(server.url, ca_file=str(server.ca), token=f"Bearer {token}")


@pytest.fixture
async def origin(server: Server, tmp_path: Path) -> AsyncIterator[str]:
    async with Kube(access(server, TOKEN)) as kube:
        await _prepare(kube)
    listening = socket.create_server(("127.0.0.1", 0))
    (tmp_path / "audit").mkdir()
    (tmp_path / "audit/audit.jsonl").write_text("")
    viewer = Viewer("reader", access(server, READER), [tmp_path], "remit-system")
    async with PageServer([listening], viewer, KEY) as page:
        yield f"http://127.0.0.1:{page.port}"


async def _prepare(kube: Kube) -> None:
    for definition in crds():
        await kube.apply(CRDS, None, definition["metadata"]["name"], definition, manager="test", force=True)
    role = {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": {"name": "reader"}}
    await kube.apply(_ROLES, None, "reader", role | {"rules": _RULES}, manager="test")
    binding = {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": "reader"}],
    }
    await kube.apply(_BINDINGS, None, "reader", binding, manager="test")
    pause, end = pauses(), time.monotonic() + SECONDS
    while True:  # a kind is served a moment after its definition
        try:
            await kube.apply(TASKS, "default", "seen", TASK, manager="test")
            await kube.list(DEPLOYMENTS)
        except ApiError as error:
            assert time.monotonic() < end, error
            await asyncio.sleep(next(pause))
        else:
            return


@pytest.mark.slow
async def test_who_may_only_read_tasks_sees_them_and_changes_nothing(origin: str, server: Server) -> None:
    async with aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as browser:
        async with browser.get(f"{origin}/login?token={login.mint(KEY, time.time())}") as first:
            base = str(first.url).removesuffix("/")

        async def get(path: str) -> tuple[int, str]:
            async with browser.get(base + path) as answer:
                return answer.status, await answer.text()

        async def post(path: str) -> int:
            async with browser.post(base + path, headers={"Origin": origin}, allow_redirects=False) as answer:
                return answer.status

        pause, end = pauses(), time.monotonic() + SECONDS
        while "/tasks/default/seen" not in (found := (await get("/tasks"))[1]):
            assert time.monotonic() < end, found
            await asyncio.sleep(next(pause))
        assert "You may not list commandpolicies" in found
        status, one = await get("/tasks/default/seen")
        assert status == 200
        assert "Run again" not in one
        assert "Cancel" not in one
        assert await post("/tasks/default/seen/cancel") == 403
        assert await post("/tasks/default/seen/rerun") == 403
        assert (await get("/tasks/default/seen/why"))[0] == 403
        assert (await get("/tasks/default/seen/output/1/stdout"))[0] == 403
        async with browser.get(f"{base}/live/tasks/default/seen") as stream:
            told = b""
            while b"which needs get of executiontasks/log" not in told:
                told += await stream.content.readany()
        assert (await get("/audit"))[0] == 403
        assert await post("/audit/check") == 403
        assert (await get("/policies/default/any"))[0] == 403
    async with Kube(access(server, TOKEN)) as kube:
        assert len(await kube.list(TASKS)) == 1
        assert not (await kube.get(TASKS, "default", "seen"))["spec"].get("cancel")
