"""The Kubernetes target, which carries out the steps of a release in a cluster."""

from __future__ import annotations

import asyncio
import contextlib
import datetime
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any, Final

import aiohttp
import structlog

from remit.api.deployment import DeploymentSpec
from remit.api.endpoint import Resource
from remit.api.slots import SLOTS, Slot, other
from remit.errors import ApiError, DeploymentError
from remit.policy.limits import Limits
from remit.release.model import ObservedState, Revision
from remit.release.target import Material
from remit.release.targets.kubernetes import manifests, observation
from remit.release.targets.kubernetes.cluster import (
    ENDPOINTS,
    MANAGER,
    PODS,
    SERVICES,
    WORKLOADS,
    Cluster,
    Object,
    answering,
    found,
    gone,
)
from remit.release.targets.kubernetes.identity import WorkloadIdentity
from remit.release.targets.kubernetes.manifests import DRAINING, SERVING
from remit.release.targets.kubernetes.observation import OwnedObjects
from remit.release.targets.kubernetes.revisions import ClusterRevisions, name_taken
from remit.release.targets.kubernetes.startfailures import StartFailures

Admit = Callable[[Revision, Material], Limits]
"""What policy lets a pod of a revision use. Raises DeploymentError where it may not run."""

log = structlog.get_logger(__name__)

_AGAIN_SECONDS: Final = 5.0


class KubernetesTarget:
    """One Deployment, in one namespace of the cluster that the operator talks to."""

    def __init__(
        self,
        identity: WorkloadIdentity,
        cluster: Cluster,
        revisions: ClusterRevisions,
        admit: Admit,
        changed: Callable[[], None],
    ) -> None:
        """`changed` is called when anything in the cluster does."""
        self._identity, self._cluster, self._revisions = identity, cluster, revisions
        self._admit, self._changed = admit, changed
        self._start_failures = StartFailures(cluster)
        self._watches: list[asyncio.Task[None]] = []

    @property
    def leftovers(self) -> str:
        """See `Target.leftovers`."""
        kinds = "Deployments, Services, ControllerRevisions and Secrets"
        return f"{kinds} with the labels {self._identity.selector}, in the namespace {self._identity.place}"

    async def observe(self) -> ObservedState:
        """See `Target.observe`."""
        if not self._watches:
            self._watches = [asyncio.create_task(self._watch(resource)) for resource in (PODS, ENDPOINTS)]
        try:
            seen, kept = await asyncio.gather(self._look(), self._revisions.all())
        except (ApiError, DeploymentError) as error:
            return ObservedState(unreachable=_explained(error))
        now = datetime.datetime.now(datetime.UTC)
        failures = await self._start_failures.of(observation.pods_without_containers(seen, now))
        seen = replace(seen, start_failures=failures)
        return observation.observed(seen, frozenset(kept), now)

    async def prepare(self, revision: Revision) -> None:
        """See `Target.prepare`. The nodes fetch the image themselves; its configuration was kept already."""

    async def provision(self, slot: Slot, revision: Revision, replicas: int, material: Material) -> None:
        """See `Target.provision`."""
        limits, identity = self._admit(revision, material), self._identity
        # Services first, so that a name that belongs to another object stops the release before anything runs.
        if await self._own(SERVICES, identity.service) is None:
            await self._route(revision.snapshot.spec, None, 0)
        await self._own(SERVICES, identity.preview)
        body = manifests.workload(identity, slot, revision, replicas, material, limits)
        await self._put(WORKLOADS, body, identity.workload(slot))

    async def scale(self, slot: Slot, replicas: int) -> None:
        """See `Target.scale`."""
        await self._change(slot, {"spec": {"replicas": replicas}})

    async def switch(self, live: Slot, share: int = 0, *, failover: bool = False) -> None:
        """See `Target.switch`. A share is as exact as the number of pods allows."""
        with answering():
            seen = await self._look()
        if share:
            await self._choose(seen, live, share)
        await self._route(await self._spec(seen, live), live, share)

    async def preview(self, slot: Slot | None) -> None:
        """See `Target.preview`."""
        with answering():
            seen = await self._look()
        if slot is None and seen.preview is None:
            return
        spec = await self._spec(seen, slot or seen.live or "blue")
        await self._put(SERVICES, manifests.preview_service(self._identity, spec, slot), self._identity.preview)

    async def drain(self, slot: Slot) -> None:
        """See `Target.drain`. The Service does not route to the side any more; its open connections are not known."""
        with contextlib.suppress(DeploymentError):  # the side is empty
            await self._change(slot, {"metadata": {"annotations": {DRAINING: "true"}}})

    async def retire(self, slot: Slot) -> None:
        """See `Target.retire`."""
        await self._take_away(WORKLOADS, self._identity.workload(slot))

    async def keep(self, revisions: Iterable[int]) -> None:
        """See `Target.keep`. What is kept of a revision is all in the cluster, and gone with it."""

    async def remove(self) -> None:
        """See `Target.remove`."""
        for name in (self._identity.service, self._identity.preview):
            await self._take_away(SERVICES, name)
        await self.close()

    async def abandon(self) -> None:
        """See `Target.abandon`. All of it is in the cluster."""
        await self.close()

    async def close(self) -> None:
        """See `Target.close`."""
        watches, self._watches = self._watches, []
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)

    async def _look(self) -> OwnedObjects:
        identity, cluster = self._identity, self._cluster
        own = [
            cluster.list(resource, identity.place, label_selector=identity.selector)
            for resource in (WORKLOADS, PODS, SERVICES)
        ]
        of_service = f"kubernetes.io/service-name={identity.service}"
        workloads, pods, services, slices = await asyncio.gather(
            *own, cluster.list(ENDPOINTS, identity.place, label_selector=of_service)
        )
        named = {each["metadata"]["name"]: each for each in services}
        sides = {each["metadata"]["name"]: each for each in workloads}
        return OwnedObjects(
            workloads={slot: sides[identity.workload(slot)] for slot in SLOTS if identity.workload(slot) in sides},
            pods=pods,
            service=named.get(identity.service),
            preview=named.get(identity.preview),
            slices=slices,
        )

    async def _choose(self, seen: OwnedObjects, live: Slot, share: int) -> None:
        """Labels as many pods of the other side as serving as the share allows, before the Service selects them."""
        pods = {pod["metadata"]["name"]: pod for pod in seen.pods_of(other(live))}
        for name, serving in manifests.serving_of(share, len(seen.pods_of(live)), pods).items():
            label = str(serving).lower()
            if pods[name]["metadata"]["labels"].get(SERVING) != label:
                with answering():
                    await self._cluster.patch(
                        PODS, self._identity.place, name, {"metadata": {"labels": {SERVING: label}}}
                    )

    async def _route(self, spec: DeploymentSpec, live: Slot | None, share: int) -> None:
        await self._put(SERVICES, manifests.service(self._identity, spec, live, share), self._identity.service)

    async def _spec(self, seen: OwnedObjects, slot: Slot) -> DeploymentSpec:
        """The spec of the revision on that side, whose ports are published; that of the newest if it was removed."""
        view = observation.observed(seen, frozenset(), datetime.datetime.now(datetime.UTC)).slot(slot)
        kept = await self._revisions.all()
        revision = kept.get(view.revision or max(kept, default=0))
        if revision is None:
            raise DeploymentError(f"nothing is on {slot}", reason="SlotEmpty", retryable=True)
        return revision.snapshot.spec

    async def _own(self, resource: Resource, name: str) -> Object | None:
        """Returns the object, or None if it does not exist. Raises DeploymentError if it belongs to another owner."""
        with answering():
            old = await found(self._cluster, resource, self._identity.place, name)
        if old is not None and not self._identity.owns(old):
            raise name_taken(resource.plural, self._identity.place, name)
        return old

    async def _put(self, resource: Resource, body: Object, name: str) -> None:
        await self._own(resource, name)
        with answering():
            await self._cluster.apply(resource, self._identity.place, name, body, manager=MANAGER, force=True)

    async def _change(self, slot: Slot, patch: dict[str, Any]) -> None:
        name = self._identity.workload(slot)
        if await self._own(WORKLOADS, name) is None:
            raise DeploymentError(f"nothing is on {slot}", reason="SlotEmpty", retryable=True)
        with answering():
            await self._cluster.patch(WORKLOADS, self._identity.place, name, patch)

    async def _take_away(self, resource: Resource, name: str) -> None:
        """Deletes the object. Does nothing if it does not exist or belongs to another owner."""
        with answering():
            old = await found(self._cluster, resource, self._identity.place, name)
            if old is not None and self._identity.owns(old):
                await gone(self._cluster, resource, self._identity.place, name)

    async def _watch(self, resource: Resource) -> None:
        """Tell of every change; a look is made anyway now and then, so that a watch which fails costs only time."""
        selector = {
            PODS: self._identity.selector,
            ENDPOINTS: f"kubernetes.io/service-name={self._identity.service}",
        }[resource]
        while True:
            try:
                async for _ in self._cluster.watch(resource, self._identity.place, label_selector=selector):
                    self._changed()
            except (ApiError, aiohttp.ClientError, OSError, TimeoutError) as error:
                log.debug("a watch ended", resource=resource.plural, error=str(error))
            await asyncio.sleep(_AGAIN_SECONDS)


def _explained(error: ApiError | DeploymentError) -> str:
    """The error with advice on what to do."""
    match error.reason:
        case "NotFound":
            return f"this API server has no apps/v1; a release to kubernetes needs a whole cluster ({error})"
        case "Forbidden":
            return f"{error}; the chart's releases.kubernetes=true, or manifests/kubernetes-releases, grants it"
    return str(error)
