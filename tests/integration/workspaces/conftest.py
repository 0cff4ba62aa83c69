"""Fixtures: a real API server, and an operator's view of the claims of one namespace."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Collection, Iterator
from pathlib import Path

import pytest

from conformance.harness.servers import Server, kube_apiserver, real_server_available
from parts import require
from remit.backends.base import AttemptRequest
from remit.backends.elapsed import ElapsedTime
from remit.backends.kubernetes.workspaces import Key, Workspaces
from remit.errors import ApiError
from remit.kube.access import Access
from remit.kube.client import CLAIMS, NAMESPACES, PODS, Kube, Object
from support import pauses

NAME = "remit-workspace-cache"
PATIENCE = 30


class Machine:
    """The clock of an operator, which a test sets."""

    up = 1000.0


class Cluster:
    """A namespace, and an operator's view of its claims."""

    def __init__(self, kube: Kube, namespace: str) -> None:
        self.kube, self.namespace, self.machine = kube, namespace, Machine()
        self.told: list[tuple[str, str, str]] = []
        self.workspaces = self.another()

    def another(self, storage_class: str = "") -> Workspaces:
        """Returns the view of an operator that was restarted, or of another one."""
        workspaces = Workspaces(self.kube, storage_class, ElapsedTime(lambda: self.machine.up))
        workspaces.notify = lambda task, *told: self.told.append(told)
        return workspaces

    async def used(self, attempt: AttemptRequest) -> None:
        """Uses the workspace for an attempt from beginning to end."""
        async with self.workspaces.held(attempt, self.namespace), asyncio.timeout(PATIENCE):
            assert await self.workspaces.prepare(attempt, self.namespace)

    async def claim(self) -> Object | None:
        try:
            return await self.kube.get(CLAIMS, self.namespace, NAME)
        except ApiError as error:
            assert error.status == 404
            return None

    async def is_kept(self) -> bool:
        claim = await self.claim()
        return claim is not None and "deletionTimestamp" not in claim["metadata"]

    async def prune(self, workspaces: Workspaces | None = None, wanted: Collection[Key] = ()) -> float:
        return await (workspaces or self.workspaces).prune([self.namespace], lambda: wanted)

    async def annotate(self, **annotations: str | None) -> None:
        told = {f"remit.dev/{name.replace('_', '-')}": text for name, text in annotations.items()}
        await self.kube.patch(CLAIMS, self.namespace, NAME, {"metadata": {"annotations": told}})

    async def let_go(self) -> None:
        """Removes the finalizer of a claim that is being deleted, as Kubernetes does once no pod mounts it."""
        await self.kube.patch(CLAIMS, self.namespace, NAME, {"metadata": {"finalizers": None}})

    async def bind(self) -> None:
        """Binds the claim, as a provisioner does."""
        await self.kube.patch(CLAIMS, self.namespace, NAME, {"spec": {"volumeName": self.namespace}})
        status = {"phase": "Bound", "capacity": {"storage": "16Mi"}, "accessModes": ["ReadWriteOnce"]}
        await self.kube.patch(CLAIMS, self.namespace, NAME, {"status": status}, subresource="status")

    async def pod(self, name: str, *, attempt: str = "", read_only: bool = False) -> None:
        """Creates a pod that mounts the claim, of another client or of an attempt."""
        labels = {"app.kubernetes.io/managed-by": "remit", "remit.dev/attempt": attempt} if attempt else {}
        mount = {"name": "w", "mountPath": "/w", "readOnly": read_only}
        spec = {
            "containers": [{"name": "task", "image": "i", "volumeMounts": [mount]}],
            "volumes": [{"name": "w", "persistentVolumeClaim": {"claimName": NAME}}],
        }
        await self.kube.create(PODS, self.namespace, {"metadata": {"name": name, "labels": labels}, "spec": spec})

    async def end_pod(self, name: str) -> None:
        await self.kube.patch(PODS, self.namespace, name, {"status": {"phase": "Succeeded"}}, subresource="status")

    async def until_told(self, reason: str) -> str:
        pause = pauses()
        async with asyncio.timeout(PATIENCE):
            while not (said := [message for _, each, message in self.told if each == reason]):
                await asyncio.sleep(next(pause))
        return said[-1]


@pytest.fixture(scope="package")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    require("kube-apiserver", real_server_available(), "put kube-apiserver and etcd where KUBEBUILDER_ASSETS says")
    with kube_apiserver(tmp_path_factory.mktemp("claims") / "server", authorization_mode="RBAC") as server:
        yield server


@pytest.fixture
def kubeconfig(server: Server, tmp_path: Path) -> Path:
    return server.kubeconfig(tmp_path / "kubeconfig")


@pytest.fixture
async def cluster(kubeconfig: Path) -> AsyncIterator[Cluster]:
    namespace = f"claims-{uuid.uuid4().hex[:8]}"
    async with Kube(await Access.load(kubeconfig)) as kube:
        await kube.create(NAMESPACES, None, {"metadata": {"name": namespace}})
        yield Cluster(kube, namespace)
