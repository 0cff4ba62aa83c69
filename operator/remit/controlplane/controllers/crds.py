"""Serves what CustomResourceDefinitions declare, from their commit to the end of their last object."""

from __future__ import annotations

import structlog

from remit.controlplane import schema
from remit.controlplane.resources import Resource
from remit.controlplane.resources.crd import CRDS, is_established, resources_of, status_of
from remit.controlplane.storage import Change, Object, Record
from remit.controlplane.verbs.cluster import Cluster, timestamp
from remit.controlplane.verbs.delete import CRD_CLEANUP, DeleteOptions, delete_record, release

log = structlog.get_logger(__name__)


class CrdController:
    """Level-triggered: called for each committed CRD change, for each deletion, and for all CRDs at boot."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._served: dict[str, object] = {}
        """By CRD name: the part of its spec that decides what is served."""
        self._due: set[str] = set()

    def resync(self) -> None:
        for record in list(self._cluster.store.collection(CRDS).records.values()):
            self._serve(record.load(), stored_too=True)
        for record in list(self._cluster.store.collection(CRDS).records.values()):
            self._reconcile(record)

    def on_change(self, change: Change) -> None:
        if change.resource == CRDS:
            if change.deleted:
                self._withdraw(change.record.load())
            else:
                self._reconcile(change.record)
        elif change.deleted:
            self._due.add(change.resource)

    def work(self) -> None:
        """Look again at CRDs whose objects were deleted: one that is going may have lost its last."""
        due, self._due = self._due, set()
        for name in due:
            record = self._cluster.store.get(CRDS, "", name)
            if record is not None:
                self._reconcile(record)

    def _reconcile(self, record: Record) -> None:
        crd = record.load()
        if self._cluster.store.latest(CRDS, "", record.name) is not record:
            return
        status = status_of(crd, self._cluster.registry, timestamp(self._cluster.now()))
        self._serve({**crd, "status": status})
        if status != crd.get("status"):
            crd["status"] = status
            record = self._cluster.store.put(CRDS, crd)
        metadata = crd["metadata"]
        if metadata.get("deletionTimestamp") and CRD_CLEANUP in metadata.get("finalizers", ()):
            resource = self._cluster.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            if resource is not None and self._empty(record.name):
                release(self._cluster, resource, record, CRD_CLEANUP)

    def _serve(self, crd: Object, *, stored_too: bool = False) -> None:
        if not is_established(crd):
            return
        name, spec = crd["metadata"]["name"], crd["spec"]
        served = (spec, bool(crd["metadata"].get("deletionTimestamp")))
        if self._served.get(name) == served:
            return
        try:
            resources = resources_of(crd)
        except schema.Invalid as error:
            log.warning("crd_not_served", crd=name, error=str(error), exc_info=False)
            return
        changed = stored_too or name in self._served
        self._served[name] = served
        self._cluster.registry.replace(spec["group"], spec["names"]["plural"], resources)
        if changed:
            self._refresh(resources)

    def _refresh(self, resources: list[Resource]) -> None:
        """Show stored objects through the new schema: pruned and defaulted, their resourceVersion unchanged."""
        for resource in resources:
            if resource.version != resource.storage_version:
                continue
            collection = self._cluster.store.collection(resource.stored_as)
            for record in list(collection.records.values()):
                obj = record.load()
                group = f"{resource.group}/"
                obj["apiVersion"] = group + resource.storage_version
                resource.schema.prune(obj)
                resource.schema.default(obj)
                collection.replace(Record.of(obj, record.revision))

    def _withdraw(self, crd: Object) -> None:
        self._served.pop(crd["metadata"]["name"], None)
        self._cluster.registry.replace(crd["spec"]["group"], crd["spec"]["names"]["plural"], [])

    def _empty(self, stored_as: str) -> bool:
        """Delete the objects of a CRD that goes; true when none is left."""
        store = self._cluster.store
        resource = self._cluster.registry.storing(stored_as)
        if resource is not None:
            for record in store.latest_all(stored_as):
                delete_record(self._cluster, resource, record, DeleteOptions())
        return not store.latest_all(stored_as)
