"""Empties namespaces that are being deleted, then lets them go; conditions tell what they wait for."""

from __future__ import annotations

from collections import Counter
from typing import Any

from remit.controlplane.controllers.workset import WorkSet
from remit.controlplane.schema.formats import timestamp
from remit.controlplane.storage import Change
from remit.controlplane.verbs.cluster import Cluster
from remit.controlplane.verbs.delete import DeleteOptions, delete_record

_FINALIZER = "kubernetes"
_DELETIONS = 200
"""Objects of a namespace that are deleted in one step; their deletion brings the next."""


class NamespaceController:
    def __init__(self, cluster: Cluster) -> None:
        self._cluster = cluster
        self.due: WorkSet[str] = WorkSet("namespaces")

    def resync(self) -> None:
        for name in self._cluster.store.collection("namespaces").records:
            self.due.add(name)

    def on_change(self, change: Change) -> None:
        if change.resource == "namespaces":
            if not change.deleted:
                self.due.add(change.record.name)
        elif change.deleted and change.record.namespace:
            self.due.add(change.record.namespace)

    def work(self) -> bool:
        """Take one step for each namespace that is due. Whether all succeeded."""
        return self.due.process(self._reconcile)

    def _reconcile(self, name: str) -> None:
        record = self._cluster.store.get("namespaces", "", name)
        if record is None or b'"deletionTimestamp"' not in record.raw:
            return
        remaining, finalizers_remaining = self._empty(record.name)
        if remaining:
            self._tell(record.name, remaining, finalizers_remaining)
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

    def _empty(self, namespace: str) -> tuple[Counter[str], Counter[str]]:
        """Delete what is in the namespace; how many objects are left of each resource, and with each finalizer."""
        store = self._cluster.store
        remaining: Counter[str] = Counter()
        finalizers: Counter[str] = Counter()
        deletions = 0
        for stored_as in store.resources():
            resource = self._cluster.registry.storing(stored_as)
            if resource is None or not resource.namespaced:
                continue
            for record in store.latest_all(stored_as, namespace):
                if b'"deletionTimestamp"' not in record.raw:
                    deletions += 1
                    if deletions > _DELETIONS:
                        remaining[f"{resource.plural}.{resource.group}"] += 1
                        continue
                gone, left = delete_record(self._cluster, resource, record, DeleteOptions())
                if not gone:
                    remaining[f"{resource.plural}.{resource.group}"] += 1
                    finalizers.update(set(left["metadata"].get("finalizers") or ()))
        return remaining, finalizers

    def _tell(self, name: str, remaining: Counter[str], finalizers: Counter[str]) -> None:
        latest = self._cluster.store.latest("namespaces", "", name)
        if latest is None:
            return
        namespace = latest.load()
        status = namespace.setdefault("status", {})
        before = status.get("conditions") or []
        status["conditions"] = _conditions(before, remaining, finalizers, timestamp(self._cluster.now()))
        if status["conditions"] != before:
            self._cluster.store.put("namespaces", namespace)


def _conditions(
    before: list[dict[str, Any]], remaining: Counter[str], finalizers: Counter[str], now: str
) -> list[dict[str, Any]]:
    """Conditions in the words of kube-controller-manager. Other conditions stay."""
    resources = ", ".join(f"{resource} has {count} resource instances" for resource, count in sorted(remaining.items()))
    held = ", ".join(f"{finalizer} in {count} resource instances" for finalizer, count in sorted(finalizers.items()))
    content = ("True", "SomeResourcesRemain", f"Some resources are remaining: {resources}")
    waiting = ("False", "ContentHasNoFinalizers", "All content-preserving finalizers finished")
    if held:
        why = f"Some content in the namespace has finalizers remaining: {held}"
        waiting = ("True", "SomeFinalizersRemain", why)
    told = {
        "NamespaceDeletionDiscoveryFailure": (
            "False",
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        "NamespaceDeletionGroupVersionParsingFailure": (
            "False",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        "NamespaceDeletionContentFailure": (
            "False",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        "NamespaceContentRemaining": content,
        "NamespaceFinalizersRemaining": waiting,
    }
    earlier = {condition.get("type"): condition for condition in before}
    conditions = [condition for condition in before if condition.get("type") not in told]
    for kind, (status, reason, message) in told.items():
        known = earlier.get(kind, {})
        since = known.get("lastTransitionTime") if known.get("status") == status else None
        conditions.append(
            {"type": kind, "status": status, "lastTransitionTime": since or now, "reason": reason, "message": message}
        )
    return conditions
