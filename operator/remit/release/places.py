"""The targets of Deployments: made when first needed, kept while their Deployment is there."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from remit.api import deployment as api
from remit.api.resource import Deployment
from remit.backends import ProcessBackend
from remit.errors import DeploymentError
from remit.operations.http import HttpPerformer
from remit.operations.process import Supervision
from remit.release.judging import Judge
from remit.release.memory import Memory
from remit.release.model import Revision
from remit.release.revisions import LocalRevisions, Revisions
from remit.release.steps import Drain, Prepare, Preview, Provision, Retire, Scale, Step, Switch
from remit.release.target import Material, Target
from remit.release.targets import ProcessTarget, docker
from remit.release.targets.artifacts import place_for
from remit.release.targets.docker import DockerTarget, Owner
from remit.release.targets.kubernetes import Cluster, ClusterRevisions, Identity, KubernetesTarget
from remit.release.targets.process import Permits
from remit.release.targets.reading import Reading
from remit.release.traffic import Traffic
from remit.sandbox import Host


@dataclass
class Place:
    """Where one Deployment is released to, and the revisions that are kept of it."""

    target: Target
    revisions: Revisions


async def carry_out(place: Place, step: Step, material: Material) -> None:
    """Take a step that is about the target alone; for all others nothing is done here. Raises DeploymentError."""
    try:
        await _carry_out(place, step, material)
    except OSError as error:
        message = f"the operator's state cannot be kept: {error.strerror or error}"
        raise DeploymentError(message, reason="StateNotKept", retryable=True) from error


async def _carry_out(place: Place, step: Step, material: Material) -> None:
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
        case Switch(live=live, share=share):
            await target.switch(live, share)
        case Preview(slot=slot):
            await target.preview(slot)
        case Drain(slot=slot):
            await target.drain(slot)
        case Retire(slot=slot):
            await target.retire(slot)


async def keep_only(place: Place, memory: Memory) -> None:
    """Let go of what belongs to revisions that are not remembered any more. Raises DeploymentError."""
    revisions = {record.revision for record in memory.history}
    await place.revisions.forget((await place.revisions.all()).keys() - revisions)
    await place.target.keep(revisions)


@dataclass
class Places:
    """All of them. `wake` is called with the key of a Deployment whose instances changed."""

    state_dir: Path
    host: Host
    cluster: Cluster | None
    """For releases to Kubernetes; None: there are none."""
    secret: Callable[[str, str], Awaitable[Mapping[str, bytes]]]
    """What is in the Secret of this namespace and name. Raises `MissingReference`."""
    read_only_paths: list[str]
    judge: Judge
    wake: Callable[[str], None]
    _traffic: Traffic = field(init=False)
    _known: dict[str, Place] = field(default_factory=dict)
    _deployments: dict[str, Deployment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._traffic = Traffic(self.state_dir / "traffic")

    def of(self, deployment: Deployment) -> Place:
        """The place of this Deployment. Raises DeploymentError for a target that this operator does not have."""
        deleted = deployment.metadata.deletion_timestamp is not None  # and then nothing is started any more
        if deployment.spec.target.docker is not None and not deleted:
            docker.check_supported(deployment.spec)
        key = deployment.key
        if key not in self._known:
            self._known[key] = self._make(deployment)
        self._deployments[key] = deployment
        return self._known[key]

    async def forget_other(self, deployment: Deployment) -> None:
        """Let go of one of the same name that was there before: its end was never seen."""
        before = self._deployments.get(deployment.key)
        if before is not None and before.metadata.uid != deployment.metadata.uid:
            await self.forget(deployment.key)

    async def forget(self, key: str) -> None:
        """Let go of it; what runs goes on."""
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
        """Its place is of the kind that the Deployment names, which never changes."""
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
        identity = Identity(metadata.namespace, metadata.name, metadata.uid, place)
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
        key, metadata, judge, http = deployment.key, deployment.metadata, self.judge, HttpPerformer()

        def download(revision: Revision, material: Material, address: str) -> AsyncIterator[bytes]:
            return http.download(judge.reading(self._deployments[key], revision, material), address)

        def reading(revision: Revision, material: Material) -> Reading:
            return Reading(judge.reading(self._deployments[key], revision, material), [str(self.state_dir.resolve())])

        return ProcessTarget(
            metadata.namespace,
            metadata.name,
            self._folder(deployment),
            place_for(self.state_dir / "artifacts") / metadata.namespace / metadata.name,
            self._supervise,
            self._traffic,
            self._backend,
            Permits(
                lambda revision, material: judge.command(self._deployments[key], revision, material),
                lambda revision, material: judge.check(self._deployments[key], revision, material),
                reading,
                download,
            ),
            revisions.load,
            lambda: self.wake(key),
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

    def _supervise(self, copy: Path) -> Supervision:
        return Supervision(self.state_dir / "instances", self.host, [*self.read_only_paths, str(copy)])

    def _backend(self, copy: Path) -> ProcessBackend:
        return ProcessBackend(self.host, read_only_paths=[*self.read_only_paths, str(copy)])
