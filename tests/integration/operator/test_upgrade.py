"""Tests objects that the previous version stored (tests/lastversion), on a kube-apiserver with this version's CRDs."""

from __future__ import annotations

import asyncio
import contextlib
import json
import sqlite3
import tarfile
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import launchers
from conformance.harness.servers import kube_apiserver, real_server_available
from parts import require
from remit.api.definitions import crds
from remit.api.endpoint import Resource
from remit.controllers.operator import running_operator
from remit.controllers.settings import Settings
from remit.errors import ApiError
from remit.kube.access import Access
from remit.kube.client import CRDS, DEPLOYMENTS, EVENTS, NAMESPACES, POLICIES, TASKS, Kube, Object
from remit.operations.process.record import supervised
from remit.telemetry.redact import Redactor
from support import pauses

from .conftest import PATIENCE, truth

LEFT = Path(__file__).parents[2] / "lastversion" / "state.tar.xz"
KINDS = {POLICIES: "commandpolicies", TASKS: "executiontasks", DEPLOYMENTS: "deployments"}
NEWEST = """
    SELECT raw FROM journal AS this WHERE resource = ? AND NOT deleted AND rv = (SELECT max(rv) FROM journal
    WHERE (resource, namespace, name) = (this.resource, this.namespace, this.name))
"""


def stored(folder: Path, resource: str) -> list[Object]:
    with contextlib.closing(sqlite3.connect(folder / "state.db")) as db:
        return [json.loads(raw) for (raw,) in db.execute(NEWEST, (resource,))]


class Upgraded:
    """An API server on which the previous version's objects were created under its own CRDs."""

    def __init__(self, kube: Kube, settings: Settings, before: dict[str, Object]) -> None:
        self.kube, self.settings, self.before = kube, settings, before
        """`before`: each object by name, as the server returned it when this version's CRDs were installed."""

    async def until(self, resource: Resource, name: str, wanted: Callable[[dict[str, Any]], object]) -> dict[str, Any]:
        """Waits until `wanted` holds for the status, and returns the status."""
        status: dict[str, Any] = {}

        async def looked() -> object:
            nonlocal status
            status = (await self.kube.get(resource, "default", name))["status"]
            return wanted(status)

        await self._eventually(looked, lambda: f"{name} is {status}")
        return status

    async def finished(self, name: str) -> dict[str, Any]:
        return await self.until(TASKS, name, lambda status: truth(status, "Finished") == "True")

    async def told(self, name: str, reason: str) -> None:
        """Waits for the Event."""

        async def looked() -> bool:
            events = (await self.kube.request("GET", EVENTS.path("default")))["items"]
            return (name, reason) in {(each["involvedObject"]["name"], each["reason"]) for each in events}

        await self._eventually(looked, lambda: f"no Event {reason} of {name}")

    async def gone(self, resource: Resource, name: str) -> None:
        async def looked() -> bool:
            try:
                await self.kube.get(resource, "default", name)
            except ApiError as error:
                return error.status == 404
            return False

        await self._eventually(looked, lambda: f"{name} is still there")

    async def _eventually(self, looked: Callable[[], Awaitable[object]], why: Callable[[], str]) -> None:
        pause = pauses()
        try:
            async with asyncio.timeout(PATIENCE):
                while not await looked():
                    await asyncio.sleep(next(pause))
        except TimeoutError:
            pytest.fail(why())


@pytest.fixture
async def upgraded(tmp_path: Path) -> AsyncIterator[Upgraded]:
    require("kube-apiserver", real_server_available(), "put kube-apiserver and etcd where KUBEBUILDER_ASSETS says")
    home = tmp_path
    (home / "state").mkdir(mode=0o700)
    with tarfile.open(LEFT) as archive:
        archive.extractall(home / "state", filter="data")
    with kube_apiserver(home / "server") as server:
        access = await Access.load(server.kubeconfig(home / "kubeconfig"))
        async with Kube(access) as kube:
            old = stored(home / "state", "customresourcedefinitions.apiextensions.k8s.io")
            for crd in old:
                name = crd["metadata"]["name"]
                await kube.create(CRDS, None, {**crd, "metadata": {"name": name}, "status": {}})
            before = {}
            for resource in KINDS:
                await served(kube, resource)
                for obj in stored(home / "state", f"{resource.plural}.remit.dev"):
                    before[obj["metadata"]["name"]] = await kept(kube, resource, obj)
            for crd in crds():
                await kube.apply(CRDS, None, crd["metadata"]["name"], crd, manager="test", force=True)
            ours = {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "remit-system"}}
            await kube.create(NAMESPACES, None, ours)
            settings = Settings(
                state_dir=home / "state",
                backends=("kubernetes",),
                in_pod=True,
                docker_host="off",
                launchers=launchers.folder(),
                leader_election=False,
                image="busybox:1",
            )
            yield Upgraded(kube, settings, before)


async def served(kube: Kube, resource: Resource) -> None:
    async with asyncio.timeout(PATIENCE):
        while True:
            with contextlib.suppress(Exception):
                await kube.request("GET", resource.path(None))
                return
            await asyncio.sleep(0.1)


async def kept(kube: Kube, resource: Resource, obj: Object) -> Object:
    """Stores an object as the previous version's operator wrote it, with the server's own metadata."""
    whole = obj["metadata"]
    metadata = {key: whole[key] for key in ("name", "labels", "annotations", "finalizers") if key in whole}
    made = await kube.create(resource, "default", {**obj, "metadata": metadata})
    assert made["spec"] == obj["spec"]
    path = f"{resource.path('default')}/{obj['metadata']['name']}/status"
    return await kube.request("PUT", path, body={**made, "status": obj["status"]})


async def test_objects_keep_their_meaning_or_are_reported(upgraded: Upgraded) -> None:
    for resource in KINDS:
        listed = await upgraded.kube.request("GET", resource.path("default"))
        for obj in listed["items"]:
            name = obj["metadata"]["name"]
            assert (obj["spec"], obj["status"]) == (upgraded.before[name]["spec"], upgraded.before[name]["status"])
            path = f"{resource.path('default')}/{name}"
            for part in (path, f"{path}/status"):
                params = {"dryRun": "All", "fieldValidation": "Strict"}
                again = await upgraded.kube.request("PUT", part, body=obj, params=params)
                assert again["spec"] == obj["spec"]

    async with running_operator(upgraded.kube.access, upgraded.settings, Redactor()):
        long, retried = [await upgraded.finished(name) for name in ("long", "retried")]
        assert [each["reason"] for each in long["attempts"]] == ["Interrupted"]
        assert [each["reason"] for each in retried["attempts"]] == ["Interrupted"]
        assert retried["message"] == "this operator has no backend process; use kubernetes"
        policy = await upgraded.until(POLICIES, "all", lambda status: "spec.backends" in said(status, "Ready"))
        assert "runs commands and scripts on kubernetes, and none of that is listed" in said(policy, "Ready")
        await upgraded.told("all", "BackendsNotOffered")
        worker = await upgraded.until(DEPLOYMENTS, "worker", lambda status: status["phase"] == "Degraded")
        assert "is not started again: this operator has no backend process" in worker["message"]
    for name in ("hello", "denied", "keeps", "nightly"):
        now = await upgraded.kube.get(TASKS, "default", name)
        backend = {"backend": "process"} if name == "nightly" else {}  # its column shows the backend now
        assert now["status"] == upgraded.before[name]["status"] | backend
    for part in ("history", "activeRevision"):
        assert worker[part] == upgraded.before["worker"]["status"][part]
    assert worker["pipeline"]["live"] == upgraded.before["worker"]["status"]["pipeline"]["live"]
    assert policy["allowed"] == upgraded.before["all"]["status"]["allowed"]


async def test_an_operator_with_processes_goes_on(upgraded: Upgraded) -> None:
    """The operator runs like one outside pods with `--backend process`."""
    settings = replace(upgraded.settings, backends=("process", "kubernetes"), in_pod=False)
    async with running_operator(upgraded.kube.access, settings, Redactor()):
        await upgraded.until(
            TASKS, "retried", lambda status: status["attemptCount"] == 2 and status["phase"] == "Running"
        )
        assert [each["reason"] for each in (await upgraded.finished("long"))["attempts"]] == ["Interrupted"]
        here = upgraded.settings.state_dir / "instances/default/worker/blue-0"
        await upgraded.until(DEPLOYMENTS, "worker", lambda status: supervised(here) and status["phase"] == "Healthy")
        policy = (await upgraded.kube.get(POLICIES, "default", "all"))["status"]
        assert "spec.backends" not in said(policy, "Ready")
        for resource, name in ((DEPLOYMENTS, "worker"), (TASKS, "retried")):
            await upgraded.kube.delete(resource, "default", name)
            await upgraded.gone(resource, name)


def said(status: dict[str, Any], condition: str) -> str:
    return "".join(each["message"] for each in status.get("conditions", []) if each["type"] == condition)
