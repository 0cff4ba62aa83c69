"""Controllers of the control plane: they serve CRDs, delete the objects of deleted namespaces and owners, and old
Events."""

from __future__ import annotations

import asyncio
import contextlib

from remit.controlplane.controllers.crds import CrdController
from remit.controlplane.controllers.expiry import expire_events
from remit.controlplane.controllers.garbage import GarbageCollector
from remit.controlplane.controllers.namespaces import NamespaceController
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.storage import Change, StoreFailed, WriteAbandoned
from remit.controlplane.verbs import write
from remit.controlplane.verbs.cluster import Cluster, RequestInfo

BOOT_NAMESPACES = ("default", "kube-system", "remit-system")
STORE_ANNOTATION = "remit.dev/store"
"""Annotation of kube-system with the store's identity. If it changes, acknowledged writes may be lost."""
EXPIRY_SECONDS = 60.0
RETRY_SECONDS = 5.0


class Controllers:
    """Level-triggered: each looks at what is committed and takes one step; the step's own commit brings the next."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._crds = CrdController(cluster)
        self._namespaces = NamespaceController(cluster)
        self._garbage = GarbageCollector(cluster)
        self._awake = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self._retrying: asyncio.TimerHandle | None = None

    async def start(self) -> None:
        """Take up what the last run left undone, before the first request is served."""
        self._crds.resync()
        self._make_namespaces()
        self._tell_identity()
        self._namespaces.resync()
        self._garbage.resync()
        self._cluster.store.listen(self._on_change)
        with contextlib.suppress(WriteAbandoned):  # the reconciliation is repeated
            await self._cluster.store.durable()
        self._awake.set()
        self._tasks = [asyncio.create_task(self._work()), asyncio.create_task(self._expire())]

    async def stop(self) -> None:
        if self._retrying is not None:
            self._retrying.cancel()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def _on_change(self, change: Change) -> None:
        # Synchronously, so that a CRD is served when the request that created it is answered.
        self._crds.on_change(change)
        self._namespaces.on_change(change)
        self._garbage.on_change(change)
        self._awake.set()

    async def _work(self) -> None:
        loop = asyncio.get_running_loop()
        with contextlib.suppress(StoreFailed):
            while True:
                await self._awake.wait()
                self._awake.clear()
                controllers = (self._crds, self._namespaces, self._garbage)
                succeeded = [controller.work() for controller in controllers]
                if not all(succeeded) and self._retrying is None:
                    self._retrying = loop.call_later(RETRY_SECONDS, self._retry)
                if any(len(controller.due) for controller in controllers):
                    self._awake.set()
                    await asyncio.sleep(0)  # let requests run

    def _retry(self) -> None:
        self._retrying = None
        for controller in (self._crds, self._namespaces, self._garbage):
            if controller.due.retry():
                self._awake.set()

    async def _expire(self) -> None:
        with contextlib.suppress(StoreFailed):
            while True:
                expire_events(self._cluster)
                await asyncio.sleep(EXPIRY_SECONDS)

    def _make_namespaces(self) -> None:
        resource = self._cluster.registry.find("", "v1", "namespaces")
        assert resource is not None  # noqa: S101 - built in
        for name in BOOT_NAMESPACES:
            if self._cluster.store.latest("namespaces", "", name) is None:
                request = ApiRequest("POST", "/api/v1/namespaces", {}, {"User-Agent": "remit"})
                write.create(self._cluster, RequestInfo(resource), {"metadata": {"name": name}}, request)

    def _tell_identity(self) -> None:
        store = self._cluster.store
        record = store.latest("namespaces", "", "kube-system")
        if record is None:
            return
        namespace = record.load()
        annotations = namespace["metadata"].get("annotations") or {}
        if annotations.get(STORE_ANNOTATION) != store.identity:
            namespace["metadata"]["annotations"] = {**annotations, STORE_ANNOTATION: store.identity}
            store.put("namespaces", namespace)
