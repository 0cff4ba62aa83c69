"""The targets of Deployments: made when first needed, kept while their Deployment is there."""

from __future__ import annotations

import asyncio
import contextlib
import math
import shutil
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

from remit.api import deployment as api
from remit.api.deployment import Deployment
from remit.api.deploymentstatus import PipelineState
from remit.api.slots import SLOTS
from remit.backends.process import ProcessBackend
from remit.errors import DeploymentError, InvalidInput, MissingReference
from remit.operations.http.executor import HttpExecutor
from remit.operations.process.record import INSTANCES
from remit.operations.process.supervision import Supervision
from remit.release.judging import Judge
from remit.release.model import Desired, ObservedState, Revision, SpecProblem, may_contact
from remit.release.requests import rollback_target
from remit.release.revisions import LocalRevisions, Revisions
from remit.release.steps import Drain, Prepare, Preview, Provision, Retire, Scale, Step, Switch
from remit.release.target import Material, Target
from remit.release.targets.artifacts import earlier_place
from remit.release.targets.docker.connection import check_supported
from remit.release.targets.docker.planning import Owner
from remit.release.targets.docker.target import DockerTarget
from remit.release.targets.kubernetes.cluster import Cluster
from remit.release.targets.kubernetes.identity import WorkloadIdentity
from remit.release.targets.kubernetes.revisions import ClusterRevisions
from remit.release.targets.kubernetes.target import KubernetesTarget
from remit.release.targets.process import Permits, ProcessTarget
from remit.release.targets.reading import Reading
from remit.release.traffic.traffic import Traffic
from remit.sandbox import Host, closed_ancestor, reader_group, with_group


@dataclass
class Place:
    """The target of one Deployment and the revisions that are kept of it."""

    target: Target
    revisions: Revisions
    looked_ahead: dict[tuple[int, str | None], float] = field(default_factory=dict)
    """The revision and request that `look_ahead` was last about, and when in monotonic time."""
    obstacle: SpecProblem | None = None
    """What it found."""


_UNDER_WAY: Final = frozenset({"Fetching", "Pulling"})
"""Errors of a target that is bringing an artifact: it takes longer than one look."""
_OBSTACLE_SECONDS: Final = 10.0
"""How long an obstacle is believed. To look for it again may read a whole artifact, or ask a registry."""


async def look_ahead(place: Place, desired: Desired, state: PipelineState, observed: ObservedState) -> Desired:
    """`desired`, with what keeps the revision that it wants to return to from being brought to the target.

    It is brought there for that, beside what is live. Where it runs already, nothing has to be brought.
    """
    number = rollback_target(desired, state)
    held = {observed.slot(slot).revision for slot in SLOTS}
    if number is None or number in held or number not in desired.revisions or observed.unreachable:
        return desired
    if not may_contact(state, desired.problem):
        return desired
    about = number, desired.request.id if desired.request else None
    if place.looked_ahead.get(about, -math.inf) < time.monotonic() - _OBSTACLE_SECONDS:
        place.obstacle = await _obstacle(place, number)
        place.looked_ahead = {about: time.monotonic()}
    return desired if place.obstacle is None else replace(desired, obstacles={number: place.obstacle})


async def _obstacle(place: Place, number: int) -> SpecProblem | None:
    try:
        revision, _ = await place.revisions.load(number)
        await place.target.prepare(revision)
    except DeploymentError as error:
        return None if error.reason in _UNDER_WAY else SpecProblem(error.reason, str(error), error.retryable)
    except OSError as error:
        return SpecProblem("StateNotKept", f"the operator's state cannot be read: {error.strerror or error}")
    return None


@contextlib.contextmanager
def keeping_state() -> Iterator[None]:
    """Raises a DeploymentError with the reason `StateNotKept` for an OSError, such as that of a full disk."""
    try:
        yield
    except OSError as error:
        message = f"the operator's state cannot be kept: {error.strerror or error}"
        raise DeploymentError(message, reason="StateNotKept", retryable=True) from error


async def carry_out(place: Place, step: Step, material: Material) -> None:
    """Take a step that is about the target alone; for all others nothing is done here. Raises DeploymentError."""
    target = place.target
    match step:
        case Prepare(revision=revision):
            await place.revisions.keep(revision, material)
            await target.prepare(revision)
        case Provision(slot=slot, revision=revision, replicas=replicas):
            kept, configured = await place.revisions.load(revision.number)
            await target.prepare(kept)
            await target.provision(slot, kept, replicas, configured)
        case Scale(slot=slot, replicas=replicas):
            await target.scale(slot, replicas)
        case Switch(live=live, share=share, failover=failover):
            await target.switch(live, share, failover=failover)
        case Preview(slot=slot):
            await target.preview(slot)
        case Drain(slot=slot):
            await target.drain(slot)
        case Retire(slot=slot):
            await target.retire(slot)


async def keep_only(place: Place, state: PipelineState) -> None:
    """Removes what belongs to revisions that are not in the history any more. Raises DeploymentError."""
    revisions = {record.revision for record in state.history}
    await place.revisions.forget((await place.revisions.all()).keys() - revisions)
    await place.target.keep(revisions)


@dataclass
class Places:
    """All of them. `wake` is called with the key of a Deployment whose instances changed."""

    state_dir: Path
    host: Host
    cluster: Cluster | None
    """The cluster for releases to Kubernetes; None if there are none."""
    secret: Callable[[str, str], Awaitable[Mapping[str, bytes]]]
    """What is in the Secret of this namespace and name. Raises `MissingReference`."""
    read_only_paths: list[str]
    judge: Judge
    wake: Callable[[str], None]
    _traffic: Traffic = field(init=False)
    _readers: Host = field(init=False)
    """The host for instances, which may also read the copies of artifacts."""
    _known: dict[str, Place] = field(default_factory=dict)
    _deployments: dict[str, Deployment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._traffic = Traffic(self.state_dir / "traffic")
        self._readers = with_group(self.host, reader_group())

    def of(self, deployment: Deployment) -> Place:
        """The place of this Deployment. Raises DeploymentError for a target that this operator does not have."""
        deleted = deployment.metadata.deletion_timestamp is not None  # nothing is started for a deleted Deployment
        if deployment.spec.target.docker is not None and not deleted:
            check_supported(deployment.spec)
        key = deployment.key
        if key not in self._known:
            self._known[key] = self._make(deployment)
        self._deployments[key] = deployment
        return self._known[key]

    def find_release(self, namespace: str, name: str, revision: int) -> tuple[Path, str]:
        """See `remit.execution.folders.FindRelease`."""
        place = self._known.get(f"{namespace}/{name}")
        if place is None:
            raise MissingReference(f"there is no Deployment {name}, so far")
        if not isinstance(place.target, ProcessTarget):
            raise InvalidInput(f"Deployment {name} releases an image, of which nothing is mounted")
        if (copy := place.target.copy(revision)) is None:
            raise MissingReference(f"the artifact of revision {revision} of Deployment {name} is not there, intact")
        return copy

    async def forget_other(self, deployment: Deployment) -> None:
        """Forgets an earlier Deployment of the same name whose deletion was not observed."""
        before = self._deployments.get(deployment.key)
        if before is not None and before.metadata.uid != deployment.metadata.uid:
            await self.forget(deployment.key)

    async def forget(self, key: str) -> None:
        """Closes the target of a Deployment. Its instances continue to run."""
        self._deployments.pop(key, None)
        if place := self._known.pop(key, None):
            await place.target.close()

    async def remove(self, deployment: Deployment) -> None:
        """Leave nothing of it on this host."""
        place = self.of(deployment)
        await place.target.remove()
        await place.revisions.clear()
        with contextlib.suppress(OSError):
            self._folder(deployment).rmdir()
        await self.forget(deployment.key)

    async def abandon(self, deployment: Deployment) -> None:
        """Leave nothing of it on this host, without contacting its target."""
        await self.of(deployment).target.abandon()
        await asyncio.to_thread(shutil.rmtree, self._folder(deployment), ignore_errors=True)
        await self.forget(deployment.key)

    async def close(self) -> None:
        for key in list(self._known):
            await self.forget(key)

    def _make(self, deployment: Deployment) -> Place:
        """Make the place of a Deployment. The kind of its target never changes."""
        target = deployment.spec.target
        if target.kubernetes is not None:
            return self._kubernetes(deployment, target.kubernetes)
        revisions = LocalRevisions(self._folder(deployment) / "revisions")
        if target.process is not None:
            return Place(self._process(deployment, revisions), revisions)
        return Place(self._docker(deployment, revisions), revisions)

    def _kubernetes(self, deployment: Deployment, target: api.KubernetesTarget) -> Place:
        key, metadata = deployment.key, deployment.metadata
        place = target.namespace or metadata.namespace
        identity = WorkloadIdentity(metadata.namespace, metadata.name, metadata.uid, place)
        if self.cluster is None:
            raise DeploymentError(
                "releases to Kubernetes need an API server; give them to an operator", reason="NotSupported"
            )
        revisions = ClusterRevisions(self.cluster, identity)
        return Place(
            KubernetesTarget(
                identity,
                self.cluster,
                revisions,
                lambda revision, material: self.judge.limits(self._deployments[key], revision, material),
                lambda: self.wake(key),
            ),
            revisions,
        )

    def _process(self, deployment: Deployment, revisions: Revisions) -> ProcessTarget:
        key, metadata, judge, http = deployment.key, deployment.metadata, self.judge, HttpExecutor()

        def download(revision: Revision, material: Material, address: str) -> AsyncIterator[bytes]:
            self._check_readable()
            return http.download(judge.reading(self._deployments[key], revision, material), address)

        def reading(revision: Revision, material: Material) -> Reading:
            self._check_readable()
            return Reading(judge.reading(self._deployments[key], revision, material), [str(self.state_dir.resolve())])

        earlier = earlier_place(self.state_dir / "artifacts")
        return ProcessTarget(
            metadata.namespace,
            metadata.name,
            self._folder(deployment),
            self.state_dir.resolve() / "artifacts" / metadata.namespace / metadata.name,
            self._supervise,
            self._traffic,
            self._backend,
            Permits(
                lambda revision, material: judge.command(self._deployments[key], revision, material),
                lambda revision, material, argv: judge.check(self._deployments[key], revision, material, argv),
                reading,
                download,
            ),
            revisions.load,
            lambda: self.wake(key),
            reader_group(),
            earlier and earlier / metadata.namespace / metadata.name,
        )

    def _docker(self, deployment: Deployment, revisions: Revisions) -> DockerTarget:
        key, metadata = deployment.key, deployment.metadata

        def engine() -> api.DockerTarget:
            now = self._deployments[key].spec.target.docker
            assert now is not None  # noqa: S101  # the kind of a target never changes
            return now

        async def secret(name: str) -> Mapping[str, bytes]:
            return await self.secret(metadata.namespace, name)

        return DockerTarget(
            Owner(metadata.namespace, metadata.name, metadata.uid),
            self._folder(deployment),
            engine,
            secret,
            self._traffic,
            lambda revision, material: self.judge.limits(self._deployments[key], revision, material),
            revisions.load,
            lambda: self.wake(key),
        )

    def _folder(self, deployment: Deployment) -> Path:
        metadata = deployment.metadata
        return self.state_dir / "releases" / metadata.namespace / metadata.name

    def _check_readable(self) -> None:
        """Raises DeploymentError where instances could not get to a copy. In namespaces they always can."""
        closed = closed_ancestor(f"{self.state_dir.resolve()}/artifacts")
        if closed is not None and reader_group() is not None and self.host.bubblewrap is None:
            message = (
                f"{closed} is closed to the users that instances run as, and this host has no namespaces to open it to"
                f" them alone; run chmod o+x {closed}, or give another state directory"
            )
            raise DeploymentError(message, reason="ArtifactFailed", retryable=True)

    def _supervise(self, copy: Path) -> Supervision:
        return Supervision(self.state_dir / INSTANCES, self._readers, [*self.read_only_paths, str(copy)])

    def _backend(self, copy: Path) -> ProcessBackend:
        return ProcessBackend(self._readers, read_only_paths=[*self.read_only_paths, str(copy)])
