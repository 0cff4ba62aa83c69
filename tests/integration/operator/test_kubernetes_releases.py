"""Releases on a real Kubernetes, through a whole operator."""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import clusters
from remit.api.crd import crds
from remit.errors import ApiError
from remit.reconcilers.kube import CRDS, DEPLOYMENTS, NAMESPACES, POLICIES, Access, Kube
from remit.reconcilers.operator import Operator, running_operator
from remit.reconcilers.settings import Settings
from remit.release.targets.kubernetes.cluster import PODS, SERVICES
from remit.telemetry import Redactor

from .conftest import truth

PATIENCE = 90


class Shop:
    """The Deployment `shop` in a namespace of its own, and a client of its Service."""

    def __init__(self, kube: Kube, settings: Settings, image: str) -> None:
        self.kube, self.settings, self.image = kube, settings, image
        self.namespace = settings.namespaces[0]

    @contextlib.asynccontextmanager
    async def operator(self) -> AsyncIterator[Operator]:
        async with running_operator(self.kube.access, self.settings, Redactor()) as operator:
            yield operator

    def spec(self, version: str, env: dict[str, str] | None = None, **changes: Any) -> dict[str, Any]:
        return {
            "artifact": {"image": self.image, "pullPolicy": "Never"},
            "target": {"kubernetes": {}},
            "replicas": 2,
            "ports": [{"name": "http", "containerPort": clusters.PORT, "published": 80}],
            "env": [{"name": name, "value": value} for name, value in {"VERSION": version, **(env or {})}.items()],
            "healthCheck": {"http": {"path": "/healthz", "port": "http"}, "failureThreshold": 3},
            "strategy": {"blueGreen": {"scaleDownDelaySeconds": 0}},
            "stages": {"bakeSeconds": 0},
            **changes,
        }

    async def create(self, version: str, **changes: Any) -> None:
        body = {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "Deployment",
            "metadata": {"name": "shop"},
            "spec": self.spec(version, **changes),
        }
        await self.kube.create(DEPLOYMENTS, self.namespace, body)

    async def change(self, version: str, **changes: Any) -> None:
        await self.kube.patch(DEPLOYMENTS, self.namespace, "shop", {"spec": self.spec(version, **changes)})

    async def ask(self, request: str) -> None:
        patch = {"metadata": {"annotations": {"remit.dev/request": request}}}
        await self.kube.patch(DEPLOYMENTS, self.namespace, "shop", patch)

    async def until(self, condition: Any) -> dict[str, Any]:
        status: dict[str, Any] = {}
        try:
            async with asyncio.timeout(PATIENCE):
                while not condition(status):
                    await asyncio.sleep(0.1)
                    status = (await self.kube.get(DEPLOYMENTS, self.namespace, "shop")).get("status") or {}
        except TimeoutError:
            pytest.fail(f"it never came so far: {status}")
        return status

    async def live(self, revision: int) -> dict[str, Any]:
        """Until this revision is what is live and nothing more goes on."""
        return await self.until(
            lambda status: (
                status.get("activeRevision") == revision
                and truth(status, "Reconciling") == "False"
                and status.get("ready") == "2/2"
            )
        )

    async def answer(self, service: str = "shop") -> str:
        """What a client hears, by the Service's address."""
        found = await self.kube.get(SERVICES, self.namespace, service)
        reader, writer = await asyncio.open_connection(found["spec"]["clusterIP"], 80)
        writer.write(b"GET / HTTP/1.0\r\n\r\n")
        said = (await reader.read()).decode()
        writer.close()
        return said.rpartition("\r\n\r\n")[2]

    async def eventually(self, version: str) -> None:
        async with asyncio.timeout(PATIENCE):
            while True:  # the nodes hear of a change a moment later
                with contextlib.suppress(OSError):
                    if await self.answer() == version:
                        return
                await asyncio.sleep(0.1)


@pytest.fixture
async def shop(tmp_path: Path) -> AsyncIterator[Shop]:
    access, image = await Access.load(clusters.kubeconfig()), clusters.shop_image()
    namespace = f"remit-test-{uuid.uuid4().hex[:8]}"
    async with Kube(access) as kube:
        for crd in crds():
            await kube.apply(CRDS, None, crd["metadata"]["name"], crd, manager="remit-test", force=True)
        await kube.create(NAMESPACES, None, {"metadata": {"name": namespace}})
        settings = Settings(
            namespaces=(namespace,), operator_namespace=namespace, state_dir=tmp_path, leader_election=False
        )
        shop = Shop(kube, settings, image)
        await _served(kube, namespace)
        policy = {"containers": {"operations": ["run"]}, "images": {"allow": ["remit-test-shop:*"]}}
        await kube.create(
            POLICIES,
            namespace,
            {
                "apiVersion": "remit.dev/v1alpha1",
                "kind": "CommandPolicy",
                "metadata": {"name": "shop"},
                "spec": policy,
            },
        )
        try:
            yield shop
        finally:
            await _unfinish(kube, namespace)
            await kube.delete(NAMESPACES, None, namespace)


async def _served(kube: Kube, namespace: str) -> None:
    async with asyncio.timeout(PATIENCE):
        for resource in (POLICIES, DEPLOYMENTS):
            while True:
                with contextlib.suppress(ApiError):
                    await kube.list(resource, namespace)
                    break
                await asyncio.sleep(0.1)


async def _unfinish(kube: Kube, namespace: str) -> None:
    """No operator is left to let the Deployment go."""
    for each in await kube.list(DEPLOYMENTS, namespace):
        await kube.patch(DEPLOYMENTS, namespace, each["metadata"]["name"], {"metadata": {"finalizers": []}})


async def test_blue_green_and_back(shop: Shop) -> None:
    async with shop.operator():
        await shop.create("v1")
        await shop.live(1)
        await shop.eventually("v1")
        await shop.change("v2", strategy={"blueGreen": {"autoPromote": False, "scaleDownDelaySeconds": 300}})
        await shop.until(lambda status: "AwaitingPromotion" in str(status.get("conditions")))
        assert (await shop.answer(), await shop.answer("shop-preview")) == ("v1", "v2")
        await shop.ask("promote")
        await shop.live(2)
        await shop.eventually("v2")
        pods = {each["metadata"]["uid"] for each in await shop.kube.list(PODS, shop.namespace)}
        await shop.ask("rollback")
        status = await shop.until(lambda status: status.get("activeRevision") == 1)
        await shop.eventually("v1")
        # Within the delay a rollback is a switch: no pod is new.
        assert {each["metadata"]["uid"] for each in await shop.kube.list(PODS, shop.namespace)} == pods
        assert status["phase"]
