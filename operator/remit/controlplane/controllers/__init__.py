"""What goes on by itself: CRDs are served, namespaces and owners take their objects along, old events go."""

from __future__ import annotations

import asyncio

from remit.controlplane.controllers.crds import CrdController
from remit.controlplane.controllers.namespaces import NamespaceController
from remit.controlplane.http.request import Request
from remit.controlplane.storage import Change
from remit.controlplane.verbs import write
from remit.controlplane.verbs.cluster import Cluster, Target

BOOT_NAMESPACES = ("default", "kube-system", "remit-system")


class Controllers:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._crds = CrdController(cluster)
        self._namespaces = NamespaceController(cluster)

    async def start(self) -> None:
        """Take up what the last run left undone, before the first request is served."""
        self._crds.resync()
        self._make_namespaces()
        self._cluster.store.listen(self._on_change)
        self._namespaces.resync()
        await self._cluster.store.durable()

    async def stop(self) -> None:
        await asyncio.sleep(0)

    def _on_change(self, change: Change) -> None:
        self._crds.on_change(change)
        self._namespaces.on_change(change)

    def _make_namespaces(self) -> None:
        resource = self._cluster.registry.find("", "v1", "namespaces")
        assert resource is not None  # noqa: S101 - built in
        for name in BOOT_NAMESPACES:
            if self._cluster.store.latest("namespaces", "", name) is None:
                request = Request("POST", "/api/v1/namespaces", {}, {"User-Agent": "remit"})
                write.create(self._cluster, Target(resource), {"metadata": {"name": name}}, request)
