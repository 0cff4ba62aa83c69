"""Serves what CustomResourceDefinitions declare, from their commit to the end of their last object."""

from __future__ import annotations

import gc

import structlog

from remit.controlplane import schema
from remit.controlplane.controllers.workset import WorkSet
from remit.controlplane.resources.crd import CRDS, is_established, resources_of, status_of
from remit.controlplane.schema.formats import timestamp
from remit.controlplane.storage import Change, Object, Record
from remit.controlplane.verbs.cluster import Cluster
from remit.controlplane.verbs.delete import CRD_CLEANUP, DeleteOptions, delete_record, release

_SCHEMA = schema.core_schema("CustomResourceDefinition")

log = structlog.get_logger(__name__)


class CrdController:
    """Level-triggered: called for each committed CRD change, for each deletion, and for all CRDs at boot."""

    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self._served: dict[str, object] = {}
        """The part of each CRD's spec that decides what is served, by CRD name."""
        self.due: WorkSet[str] = WorkSet("crds")

    def resync(self) -> None:
        records = list(self._cluster.store.collection(CRDS).records.values())
        for step in (self._restore, self._reconcile):
            for record in records:
                try:
                    step(record)
                except Exception as error:  # one invalid CRD must not keep the others or the server from starting
                    log.exception("crd_not_served", crd=record.name, error=str(error))

    def on_change(self, change: Change) -> None:
        if change.resource == CRDS:
            if change.deleted:
                self._withdraw(change.record.name)
            else:
                self._reconcile(change.record)
        elif change.deleted:
            self.due.add(change.resource)

    def work(self) -> bool:
        """Look again at CRDs whose objects were deleted: one that is going may have lost its last.

        Whether all succeeded.
        """
        return self.due.process(self._look_again)

    def _look_again(self, name: str) -> None:
        record = self._cluster.store.get(CRDS, "", name)
        if record is not None:
            self._reconcile(record)

    def _restore(self, record: Record) -> None:
        self._serve(record.load())

    def _reconcile(self, record: Record) -> None:
        if self._cluster.store.latest(CRDS, "", record.name) is not record:
            return
        try:
            record = self._establish(record)
        finally:  # a CRD that cannot be served can still be deleted
            self._finish_deletion(record)

    def _establish(self, record: Record) -> Record:
        """Serve what the CRD declares and say so in its status. The record as it is now."""
        crd = record.load()
        status = status_of(crd, self._cluster.registry, timestamp(self._cluster.now()))
        self._serve({**crd, "status": status})
        if status == crd.get("status"):
            return record
        crd["status"] = status
        return self._cluster.store.put(CRDS, crd)

    def _finish_deletion(self, record: Record) -> None:
        metadata = record.load()["metadata"]
        if metadata.get("deletionTimestamp") and CRD_CLEANUP in metadata.get("finalizers", ()):
            resource = self._cluster.registry.find("apiextensions.k8s.io", "v1", "customresourcedefinitions")
            if resource is not None and self._empty(record.name):
                release(self._cluster, resource, record, CRD_CLEANUP)

    def _serve(self, crd: Object) -> None:
        if not is_established(crd):
            return
        name, spec = crd["metadata"]["name"], crd["spec"]
        served = (spec, bool(crd["metadata"].get("deletionTimestamp")))
        if self._served.get(name) == served:
            return
        try:
            _SCHEMA.decode(crd)  # a stored CRD may be from a version that validated less
            resources = resources_of(crd)
        except (schema.Invalid, schema.Undecodable) as error:
            log.warning("crd_not_served", crd=name, error=str(error), exc_info=False)
            return
        self._served[name] = served
        self._cluster.registry.replace(spec["group"], spec["names"]["plural"], resources)
        # Compiled schemas consist of many objects without cycles and are freed by reference counting. A garbage
        # collection that traverses those of a hundred large CRDs would block the event loop for a quarter of a second.
        gc.freeze()

    def _withdraw(self, name: str) -> None:
        self._served.pop(name, None)
        plural, _, group = name.partition(".")  # validation ensures that a CRD has this form of name
        self._cluster.registry.replace(group, plural, [])

    def _empty(self, stored_as: str) -> bool:
        """Delete the objects of a CRD that goes; true when none is left."""
        store = self._cluster.store
        resource = next((r for r in self._cluster.registry if r.stored_as == stored_as), None)
        for record in store.latest_all(stored_as):
            if resource is not None:
                delete_record(self._cluster, resource, record, DeleteOptions())
            else:  # the CRD was never served, so no client could remove a finalizer
                store.remove(stored_as, record.load())
        return not store.latest_all(stored_as)
