"""Having replicas run: an image, a network and an address for each container, and nothing done twice."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass

from remit.api.slots import Slot
from remit.policy.limits import Limits
from remit.release.model import Revision
from remit.release.target import Material
from remit.release.targets.concurrently import all_of
from remit.release.targets.docker import network
from remit.release.targets.docker.connection import Connection
from remit.release.targets.docker.containers import Container, Containers, Key
from remit.release.targets.docker.images import Images
from remit.release.targets.docker.planning import Owner, Replica, creation
from remit.release.targets.docker.reading import OVER, is_useless

Admit = Callable[[Revision, Material], Limits]
"""What policy lets a container of a revision use. Raises DeploymentError where it may not run."""


@dataclass(frozen=True, slots=True)
class Replicas:
    """The replicas of one Deployment."""

    owner: Owner
    connection: Connection
    containers: Containers
    images: Images
    admit: Admit

    async def run(
        self,
        slot: Slot,
        indexes: Iterable[int],
        revision: Revision,
        material: Material,
        there: Mapping[Key, Container],
        *,
        live: bool,
    ) -> None:
        """Have these run; `there` is what there is. Raises RemitError."""
        limits = self.admit(revision, material)
        found = {index: there.get((slot, index)) for index in indexes}
        kept = {i: each for i, each in found.items() if each is not None and not is_useless(each, revision.number)}
        await all_of(self.containers.start(each) for each in kept.values() if each.status in OVER)
        missing = sorted(found.keys() - kept.keys())
        if not missing:
            return
        await self.containers.remove(each for index in missing if (each := found[index]) is not None)
        image = await self.images.fetch(revision)
        reach, info = await self.connection.reach(), await self.connection.info()
        net = await network.ensured(await self.connection.engine(), self.owner)
        names = [self.owner.container(slot, index) for index in missing]
        addresses = {} if reach.host else network.assigned(net, names)
        new = [
            Replica(self.owner, slot, index, revision, image, net.name, addresses.get(name, ""), live)
            for index, name in zip(missing, names, strict=True)
        ]
        await all_of(
            self.containers.create(each.name, creation(each, material, limits, reach, info), material.files)
            for each in new
        )
