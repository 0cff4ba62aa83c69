"""Releases what an installation still holds in the cluster, before the installation is removed."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from remit.api.endpoint import Resource
from remit.api.phases import Phase
from remit.controllers.deployments import FINALIZER
from remit.errors import ApiError, RemitError
from remit.kube.client import DEPLOYMENTS, LEASES, TASKS, Kube, Object, Objects
from remit.kube.lease import LEASE_NAME, LeaderElector, released
from remit.release.targets.kubernetes.cluster import WORKLOADS

STATEFUL_SETS: Final = Resource("apps", "v1", "statefulsets")
_POLL_SECONDS = 0.5
_UNFINISHED = {phase for phase in Phase if not phase.final} - {Phase.SCHEDULED}


@dataclass(frozen=True)
class Uninstall:
    """Stops the operator of `operator_namespace` and releases its hold on the objects of `namespaces` (empty: all).

    Each step may be repeated. `report` gets one line for each thing that was done or has to be known.
    """

    kube: Kube
    operator_namespace: str
    namespaces: Sequence[str]
    report: Callable[[str], None]
    lease_name: str = LEASE_NAME

    async def run(self, workload: str | None, timeout_seconds: float) -> None:
        """Scale `workload` to zero, wait until no operator is at work, and release the rest. `workload` is the name of
        a Deployment of apps/v1, or `statefulset/` and that of a StatefulSet.

        Raises `RemitError` when an operator still holds the Lease after `timeout_seconds`: it would take everything
        back.
        """
        if workload is not None:
            await self._stop(workload)
        await self._wait_until_stopped(timeout_seconds)
        for namespace in self.namespaces or (None,):
            await self._release_deployments(namespace)
            await self._report_tasks(namespace)

    async def _stop(self, workload: str) -> None:
        kind, _, name = workload.rpartition("/")
        resource = STATEFUL_SETS if kind == "statefulset" else WORKLOADS
        try:
            await self.kube.patch(
                resource, self.operator_namespace, name, {"spec": {"replicas": 0}}, subresource="scale"
            )
        except ApiError as error:
            if error.status != 404:
                raise
        else:
            self.report(f"{kind or 'deployment'}.apps {self.operator_namespace}/{name} is scaled to zero")

    async def _wait_until_stopped(self, timeout_seconds: float) -> None:
        """Waits for a Lease without a holder, or one that was not renewed for its whole duration by this machine's
        clock."""
        clock = asyncio.get_running_loop().time
        deadline, renewed, seen_at = clock() + timeout_seconds, None, clock()
        while True:
            lease = await self._lease()
            if lease is None:
                self.report(
                    f"there is no Lease {self.operator_namespace}/{self.lease_name}: no operator held one there"
                )
                return
            spec: Object = lease.get("spec") or {}
            if not (holder := spec.get("holderIdentity")):
                return
            if spec.get("renewTime") != renewed:
                renewed, seen_at = spec.get("renewTime"), clock()
            if clock() - seen_at > float(spec.get("leaseDurationSeconds") or LeaderElector.lease_duration):
                await self._release_lease(lease)
                return
            if clock() > deadline:
                raise RemitError(
                    f"the operator {holder} is still at work: it renews the Lease {self.operator_namespace}/"
                    f"{self.lease_name}. Stop it, then run this again"
                )
            await asyncio.sleep(_POLL_SECONDS)

    async def _lease(self) -> Object | None:
        try:
            return await self.kube.get(LEASES, self.operator_namespace, self.lease_name)
        except ApiError as error:
            if error.status != 404:
                raise
            return None

    async def _release_lease(self, lease: Object) -> None:
        """Let the next installation start at once. The Lease stays: it holds the head of the audit trail.

        This counts as a transition. Otherwise the next leader would believe that the holder itself had released the
        Lease, which it does when its work has ended.
        """
        spec = released(lease["spec"]) | {"leaseTransitions": (lease["spec"].get("leaseTransitions") or 0) + 1}
        await self.kube.replace(LEASES, self.operator_namespace, self.lease_name, lease | {"spec": spec})
        self.report(f"the Lease of {lease['spec']['holderIdentity']}, which stopped without releasing it, is released")

    async def _release_deployments(self, namespace: str | None) -> None:
        for obj in await self._list(DEPLOYMENTS, namespace):
            metadata = obj["metadata"]
            if FINALIZER not in metadata.get("finalizers", []):
                continue
            rest = [name for name in metadata["finalizers"] if name != FINALIZER]
            change = {"finalizers": rest, "resourceVersion": metadata["resourceVersion"]}
            try:
                await self.kube.patch(DEPLOYMENTS, metadata["namespace"], metadata["name"], {"metadata": change})
            except ApiError as error:
                if error.status == 404:
                    continue
                raise
            self.report(
                f"deployment {metadata['namespace']}/{metadata['name']} can be deleted now; what it made on its "
                "target stays"
            )

    async def _report_tasks(self, namespace: str | None) -> None:
        for obj in await self._list(TASKS, namespace):
            phase = (obj.get("status") or {}).get("phase")
            if phase in _UNFINISHED:
                key = f"{obj['metadata']['namespace']}/{obj['metadata']['name']}"
                self.report(f"task {key} stays {phase}: an operator that is installed again goes on with it")

    async def _list(self, resource: Resource, namespace: str | None) -> Objects:
        """Nothing where the CRDs were removed first, and with them all that they described."""
        try:
            return await self.kube.list(resource, namespace)
        except ApiError as error:
            if error.status != 404:
                raise
            return []
