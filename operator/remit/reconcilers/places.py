"""The targets of Deployments on this operator: made when first needed, kept while their Deployment is there."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from remit.api.resource import Deployment
from remit.backends import AttemptRequest
from remit.errors import DeploymentError
from remit.operations.process import Supervision
from remit.release import Material, Revision
from remit.release.revisions import Revisions
from remit.release.targets import ProcessTarget
from remit.release.targets.artifacts import place_for
from remit.release.traffic import Traffic
from remit.sandbox import Host

Admission = Callable[[Deployment, Revision, Material], AttemptRequest]
"""What policy lets an instance be. Raises DeploymentError where it does not."""


@dataclass
class Place:
    """Where one Deployment is released to, and the revisions that are kept of it."""

    target: ProcessTarget
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
        if deployment.spec.target.process is None:
            kind = "docker" if deployment.spec.target.docker is not None else "kubernetes"
            message = f"this version of Remit does not release to {kind}; it releases to process"
            raise DeploymentError(message, reason="NotSupported")
        key = deployment.key
        self._deployments[key] = deployment
        if key not in self._known:
            self._known[key] = self._make(deployment)
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

    def _make(self, deployment: Deployment) -> Place:
        key, metadata = deployment.key, deployment.metadata
        folder = self._folder(deployment)
        revisions = Revisions(folder / "revisions")

        async def load(number: int) -> tuple[Revision, Material]:
            return revisions.load(number)

        return Place(
            ProcessTarget(
                metadata.namespace,
                metadata.name,
                folder,
                place_for(self.state_dir / "artifacts") / metadata.namespace / metadata.name,
                self._supervise,
                self._traffic,
                lambda revision, material: self.admit(self._deployments[key], revision, material),
                load,
                lambda: self.wake(key),
            ),
            revisions,
        )

    def _folder(self, deployment: Deployment) -> Path:
        metadata = deployment.metadata
        return self.state_dir / "releases" / metadata.namespace / metadata.name

    def _supervise(self, copy: Path) -> Supervision:
        return Supervision(self.state_dir / "instances", self.host, [*self.read_only_paths, str(copy)])


def task_of(deployment: Deployment, material: Material) -> Mapping[str, object]:
    """The task that an instance is like: what policy is asked about, and how an instance is confined."""
    spec = deployment.spec
    target = spec.target.process
    assert target is not None  # noqa: S101  # by the caller
    resources = spec.resources.model_dump(mode="json", by_alias=True, exclude_none=True)
    return {
        "metadata": deployment.metadata.model_dump(mode="json", by_alias=True, exclude_none=True),
        "spec": {
            "command": {"argv": target.command},
            "network": "host",
            "resources": resources,
            "privateFiles": [{"path": path, "value": ""} for path in sorted(material.files)],
        },
    }
