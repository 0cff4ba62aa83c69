"""The targets of Deployments on this operator: made when first needed, kept while their Deployment is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from remit.api.resource import Deployment
from remit.backends import AttemptRequest
from remit.errors import DeploymentError
from remit.operations.process import Supervision
from remit.release import Material, Revision, Target
from remit.release.revisions import Revisions
from remit.release.targets import ProcessTarget
from remit.release.targets.artifacts import place_for
from remit.release.targets.process import check_supported
from remit.release.traffic import Traffic
from remit.sandbox import Host

Admission = Callable[[Deployment, Revision, Material], AttemptRequest]
"""What policy lets an instance be. Raises DeploymentError where it does not."""


@dataclass
class Place:
    """Where one Deployment is released to, and the revisions that are kept of it."""

    target: Target
    revisions: Revisions


@dataclass
class Places:
    """All of them. `wake` is called with the key of a Deployment whose instances changed."""

    state_dir: Path
    host: Host
    read_only_paths: list[str]
    admit: Admission
    wake: Callable[[str], None]
    _traffic: Traffic = field(init=False)
    _known: dict[str, Place] = field(default_factory=dict)
    _deployments: dict[str, Deployment] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._traffic = Traffic(self.state_dir / "traffic")

    def of(self, deployment: Deployment) -> Place:
        """The place of this Deployment. Raises DeploymentError for a target that this operator does not have."""
        if deployment.spec.target.process is not None:
            check_supported(deployment.spec)
        key = deployment.key
        if key not in self._known:
            revisions = Revisions(self._folder(deployment) / "revisions")
            self._known[key] = Place(self._target(deployment, revisions), revisions)
        self._deployments[key] = deployment
        return self._known[key]

    async def forget(self, key: str) -> None:
        """Let go of it; what runs goes on."""
        self._deployments.pop(key, None)
        if place := self._known.pop(key, None):
            await place.target.close()

    async def remove(self, deployment: Deployment) -> None:
        """Leave nothing of it on this host."""
        place = self.of(deployment)
        await place.target.remove()
        place.revisions.clear()
        with contextlib.suppress(OSError):
            self._folder(deployment).rmdir()
        await self.forget(deployment.key)

    async def close(self) -> None:
        for key in list(self._known):
            await self.forget(key)

    def _target(self, deployment: Deployment, revisions: Revisions) -> Target:
        """A target of the kind that the Deployment names, which never changes."""
        target = deployment.spec.target
        if target.process is not None:
            return self._process(deployment, revisions)
        kind = "docker" if target.docker is not None else "kubernetes"
        message = f"this version of Remit does not release to {kind}; it releases to process"
        raise DeploymentError(message, reason="NotSupported")

    def _process(self, deployment: Deployment, revisions: Revisions) -> ProcessTarget:
        key, metadata = deployment.key, deployment.metadata

        async def load(number: int) -> tuple[Revision, Material]:
            return revisions.load(number)

        return ProcessTarget(
            metadata.namespace,
            metadata.name,
            self._folder(deployment),
            place_for(self.state_dir / "artifacts") / metadata.namespace / metadata.name,
            self._supervise,
            self._traffic,
            lambda revision, material: self.admit(self._deployments[key], revision, material),
            load,
            lambda: self.wake(key),
        )

    def _folder(self, deployment: Deployment) -> Path:
        metadata = deployment.metadata
        return self.state_dir / "releases" / metadata.namespace / metadata.name

    def _supervise(self, copy: Path) -> Supervision:
        return Supervision(self.state_dir / "instances", self.host, [*self.read_only_paths, str(copy)])
