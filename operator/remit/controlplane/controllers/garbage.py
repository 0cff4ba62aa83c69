"""Owner garbage collection: dependents of what is gone, and the two finalizers of propagation policies.

The rules are those of kube-controller-manager's garbage collector: an object goes when every owner is gone; references
to owners that are gone are dropped while another owner lives; `foregroundDeletion` holds an owner until the dependents
that block it are gone; `orphan` holds it until no dependent names it.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

from remit.controlplane.controllers.workset import WorkSet
from remit.controlplane.resources import ServedResource
from remit.controlplane.storage import Change, Object, Record
from remit.controlplane.verbs.cluster import Cluster
from remit.controlplane.verbs.delete import FOREGROUND, ORPHAN, DeleteOptions, Propagation, delete_record, release

_ABSENT_REMEMBERED = 10_000

Reference = dict[str, Any]


class GarbageCollector:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.due: WorkSet[tuple[str, str, str]] = WorkSet("garbage")
        self._absent: OrderedDict[str, None] = OrderedDict()
        """Uids seen deleted: their kind may not be served any more when the dependents are looked at."""

    def resync(self) -> None:
        for stored_as, record in self._cluster.store.scan():
            if record.owners or b'"deletionTimestamp"' in record.raw:
                self._enqueue(stored_as, record)

    def on_change(self, change: Change) -> None:
        record, previous = change.record, change.previous
        if change.deleted:
            self._absent[record.uid] = None
            while len(self._absent) > _ABSENT_REMEMBERED:
                self._absent.popitem(last=False)
            for stored_as, dependent in self._cluster.store.dependents(record.uid):
                self._enqueue(stored_as, dependent)
        elif b'"deletionTimestamp"' in record.raw or (
            record.owners and (not previous or previous.owners != record.owners)
        ):
            self._enqueue(change.resource, record)
        if previous and previous.owners and (change.deleted or previous.owners != record.owners):
            self._enqueue_owners(previous)

    def work(self) -> bool:
        """Take one step for what is due; what follows from it comes back as changes. Whether all succeeded."""
        return self.due.process(self._step)

    def _step(self, item: tuple[str, str, str]) -> None:
        stored_as, namespace, name = item
        resource = self._cluster.registry.storing(stored_as)
        record = self._cluster.store.latest(stored_as, namespace, name)
        if resource is not None and record is not None:
            self._reconcile(resource, record)

    def _enqueue(self, stored_as: str, record: Record) -> None:
        self.due.add((stored_as, record.namespace, record.name))

    def _enqueue_owners(self, dependent: Record) -> None:
        for reference in dependent.load()["metadata"].get("ownerReferences") or ():
            found = self._find(reference, dependent.namespace)
            if isinstance(found, tuple):
                resource, owner = found
                self._enqueue(resource.stored_as, owner)

    def _find(self, reference: Reference, namespace: str) -> tuple[ServedResource, Record] | bool:
        """The owner with its resource; False when it is gone; True when nobody can know: its kind is not served."""
        if reference["uid"] in self._absent:
            return False
        group = reference.get("apiVersion", "").rpartition("/")[0]
        resource = self._cluster.registry.by_kind(group, reference.get("kind", ""))
        if resource is None or (resource.namespaced and not namespace):
            return True
        owner = self._cluster.store.latest(
            resource.stored_as, namespace if resource.namespaced else "", reference.get("name", "")
        )
        return (resource, owner) if owner is not None and owner.uid == reference["uid"] else False

    def _reconcile(self, resource: ServedResource, record: Record) -> None:
        obj = record.load()
        metadata = obj["metadata"]
        if metadata.get("deletionTimestamp"):
            finalizers = metadata.get("finalizers") or ()
            if FOREGROUND in finalizers:
                self._delete_dependents(resource, record)
            elif ORPHAN in finalizers:
                self._orphan_dependents(resource, record)
            return
        references = metadata.get("ownerReferences") or []
        if references:
            self._check_owners(resource, record, obj, references)

    def _check_owners(self, resource: ServedResource, record: Record, obj: Object, references: list[Reference]) -> None:
        living, waiting = [], False
        for reference in references:
            found = self._find(reference, record.namespace)
            if found is False:
                continue
            if isinstance(found, tuple) and _is_waiting(found[1]) and reference.get("blockOwnerDeletion"):
                waiting = True
            else:
                living.append(reference)
        if len(living) == len(references):
            return
        if living:
            obj["metadata"]["ownerReferences"] = living
            self._cluster.store.put(resource.stored_as, obj)
            return
        has_dependents = bool(self._cluster.store.dependents(record.uid))
        policy: Propagation = "Foreground" if waiting and has_dependents else _policy_of(obj)
        delete_record(self._cluster, resource, record, DeleteOptions(propagation=policy))

    def _delete_dependents(self, resource: ServedResource, owner: Record) -> None:
        blocking = False
        for stored_as, dependent in self._cluster.store.dependents(owner.uid):
            latest = self._cluster.store.latest(stored_as, dependent.namespace, dependent.name)
            if latest is None or not _blocks(latest, owner.uid):
                continue
            blocking = True
            if b'"deletionTimestamp"' not in latest.raw:
                self._enqueue(stored_as, latest)
        if not blocking:
            release(self._cluster, resource, owner, FOREGROUND)

    def _orphan_dependents(self, resource: ServedResource, owner: Record) -> None:
        for stored_as, dependent in self._cluster.store.dependents(owner.uid):
            latest = self._cluster.store.latest(stored_as, dependent.namespace, dependent.name)
            if latest is None:
                continue
            obj = latest.load()
            references = obj["metadata"].get("ownerReferences") or []
            kept = [reference for reference in references if reference["uid"] != owner.uid]
            if kept != references:
                obj["metadata"]["ownerReferences"] = kept
                if not kept:
                    del obj["metadata"]["ownerReferences"]
                self._cluster.store.put(stored_as, obj)
        release(self._cluster, resource, owner, ORPHAN)


def _is_waiting(owner: Record) -> bool:
    """Whether the owner waits for its dependents to go first."""
    metadata = owner.load()["metadata"]
    return bool(metadata.get("deletionTimestamp")) and FOREGROUND in (metadata.get("finalizers") or ())


def _blocks(dependent: Record, uid: str) -> bool:
    references = dependent.load()["metadata"].get("ownerReferences") or ()
    return any(r["uid"] == uid and r.get("blockOwnerDeletion") for r in references)


def _policy_of(obj: Object) -> Propagation:
    """The propagation its own finalizers ask for."""
    finalizers = obj["metadata"].get("finalizers") or ()
    if ORPHAN in finalizers:
        return "Orphan"
    return "Foreground" if FOREGROUND in finalizers else "Background"
