"""delete and deletecollection: preconditions, propagation, finalizers."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any, Literal

from remit.controlplane.failures import Failure, bad_request, conflict, forbidden, invalid
from remit.controlplane.http.request import ApiRequest
from remit.controlplane.resources import ServedResource
from remit.controlplane.schema import DELETE_OPTIONS, Undecodable, decode
from remit.controlplane.schema.formats import timestamp
from remit.controlplane.storage import Object, Record
from remit.controlplane.verbs.cluster import Cluster, RequestInfo, convert
from remit.controlplane.verbs.selection import select

FOREGROUND = "foregroundDeletion"
ORPHAN = "orphan"
CRD_CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
_UNDELETABLE = ("default", "kube-system", "kube-public")
_BETWEEN_TURNS = 100
Propagation = Literal["Background", "Foreground", "Orphan", ""]


@dataclass(frozen=True)
class DeleteOptions:
    propagation: Propagation = ""
    orphan_dependents: bool | None = None
    uid: str = ""
    revision: str = ""
    dry_run: bool = False

    @classmethod
    def of(cls, request: ApiRequest, body: Any) -> DeleteOptions:
        """The options in the body, or in the query if the body is empty. Raises 400 and 422."""
        options = {} if body is None else body
        try:
            decode(DELETE_OPTIONS, options)
        except Undecodable as error:
            raise bad_request(str(error)) from None
        propagation: Any = options.get("propagationPolicy") or request.text("propagationPolicy")
        orphan = options.get("orphanDependents")
        if orphan is None and "orphanDependents" in request.query:
            orphan = request.flag("orphanDependents")
        if propagation not in ("", "Background", "Foreground", "Orphan"):
            why = f'Unsupported value: "{propagation}": supported values: "Foreground", "Background", "Orphan", "nil"'
            raise _invalid_options("FieldValueNotSupported", why, "propagationPolicy")
        if propagation and orphan is not None:
            why = f'Invalid value: "{propagation}": orphanDependents and deletionPropagation cannot be both set'
            raise _invalid_options("FieldValueInvalid", why, "propagationPolicy")
        dry_run = options.get("dryRun") or []
        if dry_run not in ([], ["All"]):
            shown = ", ".join(f'"{stage}"' for stage in dry_run)
            why = f'Unsupported value: [{shown}]: supported values: "All"'
            raise _invalid_options("FieldValueNotSupported", why, "dryRun")
        preconditions = options.get("preconditions") or {}
        return cls(
            propagation=propagation,
            orphan_dependents=orphan,
            uid=preconditions.get("uid") or "",
            revision=preconditions.get("resourceVersion") or "",
            dry_run=bool(options.get("dryRun")) or request.dry_run,
        )

    @property
    def policy(self) -> Propagation:
        if self.orphan_dependents is not None:
            return "Orphan" if self.orphan_dependents else "Background"
        return self.propagation


def _invalid_options(reason: str, message: str, field: str) -> Failure:
    return invalid("meta.k8s.io", "DeleteOptions", "", [(reason, message, field)])


def delete(cluster: Cluster, target: RequestInfo, options: DeleteOptions) -> tuple[int, Object]:
    """HTTP status, and the object while finalizers hold it, or a Status when it is gone."""
    resource = target.resource
    store = cluster.store
    record = store.latest(resource.stored_as, target.namespace, target.name)
    if record is None:
        if not store.is_unreadable(resource.stored_as, target.namespace, target.name):
            raise resource.not_found(target.name)
        if not options.dry_run:
            store.remove_unreadable(resource.stored_as, target.namespace, target.name)
        return 200, _success(resource, target.name)
    gone, obj = delete_record(cluster, resource, record, options)
    if gone:
        return 200, _success(resource, target.name, uid=record.uid)
    return 202 if options.orphan_dependents is False else 200, convert(resource, obj)


def _success(resource: ServedResource, name: str, **more: str) -> Object:
    details = {"name": name, "group": resource.group, "kind": resource.plural, **more}
    if not resource.group:
        del details["group"]
    return {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details}


def delete_record(
    cluster: Cluster, resource: ServedResource, record: Record, options: DeleteOptions
) -> tuple[bool, Object]:
    """Take one step towards the object's end: (whether it is gone, its last state in the stored version)."""
    obj = record.load()
    metadata = obj["metadata"]
    _check_preconditions(resource, obj, options)
    if resource.stored_as == "namespaces" and record.name in _UNDELETABLE:
        raise forbidden("", "namespaces", record.name, "this namespace may not be deleted")
    finalizers = _finalizers(resource, obj, options.policy)
    held = bool(finalizers) or (resource.stored_as == "namespaces" and bool(obj.get("spec", {}).get("finalizers")))
    if not held:
        if not options.dry_run:
            cluster.store.remove(resource.stored_as, obj)
        return True, obj
    if metadata.get("deletionTimestamp") and finalizers == metadata.get("finalizers", []):
        return False, obj
    if finalizers:
        metadata["finalizers"] = finalizers
    if not metadata.get("deletionTimestamp"):
        metadata["deletionTimestamp"] = timestamp(cluster.now())
        if resource.stored_as != "namespaces":
            metadata["deletionGracePeriodSeconds"] = 0
        if "generation" in metadata:
            metadata["generation"] += 1
        if resource.stored_as == "namespaces":
            obj.setdefault("status", {})["phase"] = "Terminating"
    if not options.dry_run:
        cluster.store.put(resource.stored_as, obj)
    return False, obj


def release(cluster: Cluster, resource: ServedResource, record: Record, finalizer: str) -> None:
    """Remove one finalizer from an object that is being deleted; without any left, it goes."""
    obj = record.load()
    metadata = obj["metadata"]
    metadata["finalizers"] = [name for name in metadata.get("finalizers") or () if name != finalizer]
    if metadata["finalizers"]:
        cluster.store.put(resource.stored_as, obj)
        return
    del metadata["finalizers"]
    waits = resource.stored_as == "namespaces" and obj.get("spec", {}).get("finalizers")
    (cluster.store.put if waits else cluster.store.remove)(resource.stored_as, obj)


def _finalizers(resource: ServedResource, obj: Object, policy: Propagation) -> list[str]:
    """The finalizers the deletion starts with: the policy replaces the garbage collector's, and keeps the others."""
    present: list[str] = obj["metadata"].get("finalizers") or []
    finalizers = [f for f in present if f not in (FOREGROUND, ORPHAN)] if policy else list(present)
    if policy == "Foreground":
        finalizers.append(FOREGROUND)
    elif policy == "Orphan":
        finalizers.append(ORPHAN)
    is_crd = resource.stored_as == "customresourcedefinitions.apiextensions.k8s.io"
    if is_crd and CRD_CLEANUP not in finalizers and not obj["metadata"].get("deletionTimestamp"):
        finalizers.append(CRD_CLEANUP)
    return finalizers


def _check_preconditions(resource: ServedResource, obj: Object, options: DeleteOptions) -> None:
    metadata = obj["metadata"]
    if options.uid and options.uid != metadata["uid"]:
        why = (
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({metadata['uid']}). "
            "The object might have been deleted and then recreated"
        )
        raise conflict(resource.group, resource.kind, metadata["name"], why)
    if options.revision and options.revision != metadata["resourceVersion"]:
        why = (
            f"the ResourceVersion in the precondition ({options.revision}) does not match the ResourceVersion in "
            f"record ({metadata['resourceVersion']}). The object might have been modified"
        )
        raise conflict(resource.group, resource.kind, metadata["name"], why)


async def delete_collection(
    cluster: Cluster, target: RequestInfo, request: ApiRequest, options: DeleteOptions
) -> list[Record]:
    """Delete what the selectors choose; the result is what it was before. Others have their turn meanwhile."""
    selection = select(target, request.text("labelSelector"), request.text("fieldSelector"))
    resource = target.resource
    chosen: list[Record] = []
    for number, record in enumerate(cluster.store.latest_all(resource.stored_as, target.namespace), 1):
        latest = cluster.store.latest(resource.stored_as, record.namespace, record.name)
        if latest is not None and selection(latest):
            delete_record(cluster, resource, latest, options)
            chosen.append(latest)
        if number % _BETWEEN_TURNS == 0:
            await asyncio.sleep(0)
    return chosen
