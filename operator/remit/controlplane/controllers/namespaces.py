"""Empties namespaces that are being deleted, then lets them go."""

from __future__ import annotations

from remit.controlplane.controllers.workset import WorkSet
from remit.controlplane.storage import Change
from remit.controlplane.verbs.cluster import Cluster
from remit.controlplane.verbs.delete import DeleteOptions, delete_record

_FINALIZER = "kubernetes"


class NamespaceController:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._due: WorkSet[str] = WorkSet("namespaces")

    def resync(self) -> None:
        for name in self._cluster.store.collection("namespaces").records:
            self._due.add(name)

    def on_change(self, change: Change) -> None:
        if change.resource == "namespaces":
            if not change.deleted:
                self._due.add(change.record.name)
        elif change.deleted and change.record.namespace:
            self._due.add(change.record.namespace)

    def work(self) -> bool:
        """Take one step for each namespace that is due. Whether all succeeded."""
        return self._due.process(self._reconcile)

    def _reconcile(self, name: str) -> None:
        record = self._cluster.store.get("namespaces", "", name)
        if record is None or b'"deletionTimestamp"' not in record.raw or not self._empty(record.name):
            return
        latest = self._cluster.store.latest("namespaces", "", record.name)
        if latest is None:
            return
        namespace = latest.load()
        finalizers = namespace.get("spec", {}).get("finalizers") or []
        if not namespace["metadata"].get("deletionTimestamp") or _FINALIZER not in finalizers:
            return
        namespace["spec"]["finalizers"] = [f for f in finalizers if f != _FINALIZER]
        held = namespace["spec"]["finalizers"] or namespace["metadata"].get("finalizers")
        write = self._cluster.store.put if held else self._cluster.store.remove
        write("namespaces", namespace)

    def _empty(self, namespace: str) -> bool:
        """Delete what is in the namespace; true when nothing is left."""
        store = self._cluster.store
        left = 0
        for stored_as in store.resources():
            resource = self._cluster.registry.storing(stored_as)
            if resource is None or not resource.namespaced:
                continue
            for record in store.latest_all(stored_as, namespace):
                gone, _ = delete_record(self._cluster, resource, record, DeleteOptions())
                left += not gone
        return not left
