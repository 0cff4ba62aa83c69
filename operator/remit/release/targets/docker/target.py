"""The docker target: containers behind a proxy, both of which continue while no operator runs."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path

import structlog

from remit.api.deployment import DockerTarget as DockerSpec
from remit.api.deployment import HealthCheck
from remit.api.slots import Slot
from remit.backends.failure import OperationFailed
from remit.errors import DeploymentError, RemitError
from remit.release.model import ObservedState, Revision
from remit.release.report.model import Usage
from remit.release.target import Material
from remit.release.targets.changes import Changes, Source
from remit.release.targets.desiredstate import DesiredSide, DesiredState
from remit.release.targets.docker import network
from remit.release.targets.docker.connection import Connection, Secret
from remit.release.targets.docker.containers import Container, Containers, End, Key
from remit.release.targets.docker.images import Images
from remit.release.targets.docker.login import login
from remit.release.targets.docker.planning import ON_TRIAL, Owner
from remit.release.targets.docker.reading import OVER, engines_verdict, found, goes_on, listening, trouble, used
from remit.release.targets.docker.replicas import Admit, Replicas
from remit.release.targets.failing import ordering
from remit.release.targets.health import Check, Health, Watches, check_of
from remit.release.targets.liveness import Due, Liveness
from remit.release.targets.loadbalancer import LoadBalancer, ProxyStatus
from remit.release.targets.observation import InstanceStatus, observed
from remit.release.traffic.traffic import Traffic
from remit.sandbox.fencing import now as boot_time
from remit.telemetry.redact import Redactor

Load = Callable[[int], Awaitable[tuple[Revision, Material]]]
"""A revision that was kept, with its configuration. Raises DeploymentError."""

log = structlog.get_logger(__name__)


class DockerTarget:
    """One Deployment as containers on one engine."""

    def __init__(
        self,
        owner: Owner,
        folder: Path,
        target: Callable[[], DockerSpec],
        secret: Secret,
        traffic: Traffic,
        admit: Admit,
        load: Load,
        changed: Callable[[], None],
    ) -> None:
        """`folder` holds what it was told; `target` gives the spec's of this moment; `changed` is called when an
        instance's health does."""
        self._owner, self._folder, self._load = owner, folder, load
        self._balancer = LoadBalancer(f"{owner.namespace}/{owner.name}", folder / "told.json", traffic)
        self._connection = Connection(target, folder / "tls", secret)
        self._containers = Containers(owner.mark, self._connection.engine)
        self._images = Images(
            owner.images, folder / "images.json", self._connection.engine, lambda artifact: login(artifact, secret)
        )
        self._replicas = Replicas(owner, self._connection, self._containers, self._images, admit)
        self._watches, self._liveness, self._changes = Watches(changed), Liveness(changed), Changes(changed)
        self._revisions: dict[int, tuple[Revision, Material]] = {}
        self._ends: dict[Hashable, End | str | None] = {}
        self._started: Counter[str] = Counter()
        """How often containers were started again by us, by their ids."""
        self._ended: dict[str, tuple[Hashable, str]] = {}
        """Runs that Remit ended, with the reason, by container id, until the next run was seen."""
        self._refused: dict[Slot, str] = {}
        """Why an instance of a side could not be started again."""

    @property
    def leftovers(self) -> str:
        """See `Target.leftovers`."""
        host = self._connection.host
        return f"containers with the label {self._owner.mark}, their network and images, on the engine {host}"

    async def observe(self) -> ObservedState:
        """See `Target.observe`."""
        try:
            await self._connection.refresh()
            engine: dict[Hashable, Source] = {id(await self._connection.engine()): self._containers.changes}
            await self._changes.have(engine | self._balancer.sources())
            return await self._observed()
        except RemitError as error:
            complaint = self._connection.complaint()
            return ObservedState(unreachable=f"{error} ({complaint})" if complaint else str(error))

    async def prepare(self, revision: Revision) -> None:
        """See `Target.prepare`."""
        with ordering():
            await self._images.fetch(revision)

    async def provision(self, slot: Slot, revision: Revision, replicas: int, material: Material) -> None:
        """See `Target.provision`."""
        held = self._balancer.desired().sides.get(slot)
        if held is None or held.revision != revision.number:
            held = DesiredSide.of(revision)
        with ordering():
            await self._balancer.check(self._balancer.desired().having(slot, held))
        self._revisions[revision.number] = revision, material
        await self._scale(slot, replace(held, draining=False), replicas)

    async def scale(self, slot: Slot, replicas: int) -> None:
        """See `Target.scale`."""
        held = self._balancer.desired().sides.get(slot)
        if held is None:
            raise DeploymentError(f"nothing is on {slot}", reason="SlotEmpty", retryable=True)
        await self._scale(slot, held, replicas)

    async def switch(self, live: Slot, share: int = 0, *, failover: bool = False) -> None:
        """See `Target.switch`."""
        await self._balancer.switch(live, share, failover=failover)

    async def preview(self, slot: Slot | None) -> None:
        """See `Target.preview`."""
        await self._balancer.preview(slot)

    async def drain(self, slot: Slot) -> None:
        """See `Target.drain`."""
        await self._balancer.drain(slot)

    async def retire(self, slot: Slot) -> None:
        """See `Target.retire`."""
        with ordering():
            desired = self._balancer.desired()
            if held := desired.sides.get(slot):
                self._balancer.save(desired.having(slot, replace(held, wanted=0, draining=True)))
            there = await self._containers.all()
            await self._containers.remove(container for (on, _), container in there.items() if on == slot)
            await self._balancer.apply(self._balancer.desired().having(slot, None))

    async def keep(self, revisions: Iterable[int]) -> None:
        """Removes the images of all other revisions."""
        with ordering():
            kept = set(revisions)
            self._revisions = {number: found for number, found in self._revisions.items() if number in kept}
            await self._images.keep(kept)

    async def remove(self) -> None:
        """Leave nothing: not the proxy, not an image, not a network. After both sides were retired."""
        with ordering():
            await self._images.keep(())
            await network.removed(await self._connection.engine(), self._owner)
            await self._balancer.remove()
            await self.close()
        await asyncio.to_thread(self._leave_no_file)

    async def abandon(self) -> None:
        """See `Target.abandon`."""
        with ordering():
            await self._balancer.remove()
            await self.close()

    async def usage(self) -> dict[Slot, Usage]:
        """See `Measured.usage`."""
        with ordering():
            there = {key: each for key, each in (await self._containers.all()).items() if each.status == "running"}
            # One request at a time, so that a slow engine can still serve more important requests.
            counted = {key: await self._containers.stats(each) for key, each in there.items()}
        return {
            slot: used(stats for (on, _), stats in counted.items() if on == slot)
            for slot in self._balancer.desired().sides
        }

    def probe_token(self) -> str:
        """See `Proxied.probe_token`."""
        return self._balancer.probe_token()

    async def close(self) -> None:
        """See `Target.close`."""
        await self._watches.end()
        await self._liveness.end()
        await self._changes.end()
        await self._images.close()
        await self._connection.close()

    async def _observed(self) -> ObservedState:
        there = await self._restart_missing(self._balancer.desired())
        await self._lift_limits(self._balancer.desired().live, there)
        desired = await self._with_addresses(self._balancer.desired(), there)
        if desired != self._balancer.desired():
            self._balancer.save(desired)
        await self._watch(desired, there)
        proxy = await self._balancer.look(desired)
        await self._stop_superfluous(desired, proxy, there)
        known = {each.incarnation for each in there.values()}
        self._ends = {key: end for key, end in self._ends.items() if key in known}
        ids = {each.id for each in there.values()}
        self._started = Counter({id_: count for id_, count in self._started.items() if id_ in ids})
        self._ended = {id_: each for id_, each in self._ended.items() if id_ in ids}
        instances = {
            slot: {index: await self._found(slot, side, index, there) for index in range(side.wanted)}
            for slot, side in desired.sides.items()
        }
        return observed(desired, instances, proxy, frozenset(await self._images.at_hand()))

    async def _scale(self, slot: Slot, side: DesiredSide, replicas: int) -> None:
        """Save the desired state before applying it: if the operator is killed in between, `observe` completes it.

        Superfluous instances get no more requests from here on, and are stopped once they have none.
        """
        with ordering():
            there = await self._containers.all()
            side = replace(side, wanted=replicas, leaving_since=boot_time())
            self._balancer.save(await self._with_addresses(self._balancer.desired().having(slot, side), there))
            live = slot == self._balancer.desired().live
            await self._replicas.run(slot, range(replicas), *await self._revision(side.revision), there, live=live)
            await self._balancer.apply(
                await self._with_addresses(self._balancer.desired(), await self._containers.all())
            )

    async def _stop_superfluous(
        self, desired: DesiredState, proxy: ProxyStatus, there: Mapping[Key, Container]
    ) -> None:
        """Stop superfluous instances that have no requests, and instances that a killed operator left behind."""
        now = boot_time()
        staying = {
            slot: side.wanted if side.finished(proxy.busy, now) else len(side.ports)
            for slot, side in desired.sides.items()
        }
        await self._containers.remove(there[slot, index] for slot, index in there if index >= staying.get(slot, 0))

    async def _restart_missing(self, desired: DesiredState) -> dict[Key, Container]:
        """The containers, after restarting those that were removed, stopped or never started."""
        there = await self._containers.all()
        lost = {
            slot: [index for index in range(side.wanted) if not goes_on(there.get((slot, index)), side.revision)]
            for slot, side in desired.sides.items()
        }
        for slot, indexes in lost.items():
            if indexes:
                try:
                    revision, material = await self._revision(desired.sides[slot].revision)
                    over = [each for index in indexes if (each := there.get((slot, index))) and each.status in OVER]
                    await self._replicas.run(slot, indexes, revision, material, there, live=slot == desired.live)
                    # The engine counts from 0 again.
                    self._started.update({each.id: 1 + each.restarts for each in over})
                except RemitError as error:
                    if self._refused.get(slot) != str(error):
                        log.warning("an instance cannot be started again", slot=slot, error=str(error))
                    self._refused[slot] = str(error)
                    continue
            self._refused.pop(slot, None)
        return await self._containers.all() if any(lost.values()) else there

    async def _lift_limits(self, live: Slot | None, there: Mapping[Key, Container]) -> None:
        """Lets the engine restart the live instances without a limit, also while no operator runs."""
        for (slot, _), container in there.items():
            if slot == live and container.restart_policy == ON_TRIAL:
                # The container was removed meanwhile, which the next look finds.
                with contextlib.suppress(OperationFailed):
                    await self._containers.restart_always(container)

    async def _with_addresses(self, desired: DesiredState, there: Mapping[Key, Container]) -> DesiredState:
        """`desired`, with where its instances listen."""
        reach = await self._connection.reach()
        for slot, side in desired.sides.items():
            spec = (await self._revision(side.revision))[0].snapshot.spec
            count = max([side.wanted, *(index + 1 for on, index in there if on == slot)])
            where = [listening(there.get((slot, index)), spec, reach) for index in range(count)]
            hosts, ports = tuple(host for host, _ in where), tuple(ports for _, ports in where)
            desired = desired.having(slot, replace(side, hosts=hosts, ports=ports))
        return desired

    async def _watch(self, desired: DesiredState, there: Mapping[Key, Container]) -> None:
        due: dict[Hashable, tuple[HealthCheck, Check]] = {}
        lively: dict[Hashable, Due] = {}
        for slot, side in desired.sides.items():
            spec = (await self._revision(side.revision))[0].snapshot.spec
            for index, named in enumerate(side.ports[: side.wanted]):
                container = there.get((slot, index))
                if container is None or container.status != "running" or len(named) != len(spec.ports):
                    continue
                moved = {port.container_port: named[port.name] for port in spec.ports}
                key, check = container.incarnation, spec.health_check
                if check is not None and check.command is None:
                    due[key] = check, check_of(check, side.host(index), named, _by_engine, moved)
                if spec.liveness_check is not None and not side.draining:  # a draining side ends anyway
                    lives = check_of(spec.liveness_check, side.host(index), named, _by_engine, moved)
                    restart = partial(self._end_run, container)
                    if spec.liveness_check.command is None:
                        lively[key] = Due(spec.liveness_check, lives, restart)
                    elif (verdict := engines_verdict(container)).unhealthy:
                        self._liveness.restart(key, restart, verdict.message)
        await self._watches.have(due)
        await self._liveness.have(lively)

    async def _end_run(self, container: Container, why: str) -> None:
        """End a run. The next look starts the instance again."""
        log.warning("an instance is restarted", container=container.name, reason=why)
        self._ended[container.id] = container.incarnation, why
        await self._containers.end_run(container)

    async def _found(self, slot: Slot, side: DesiredSide, index: int, there: Mapping[Key, Container]) -> InstanceStatus:
        container = there.get((slot, index))
        if container is None:
            refused = self._refused.get(slot)
            return InstanceStatus(Health(), trouble=f"it is gone, and not started again: {refused}" if refused else "")
        revision, material = await self._revision(side.revision)
        located = len(side.ports[index]) == len(revision.snapshot.spec.ports)
        check = revision.snapshot.spec.health_check
        by_engine = check is not None and check.command is not None
        health = engines_verdict(container) if by_engine else self._watches.health(container.incarnation)
        instance = found(container, health, located=located, started=self._started[container.id])
        if not instance.failed and not instance.restarts:
            return instance
        if container.incarnation not in self._ends or container.status != "running":
            self._ends[container.incarnation] = await self._last_end(container)
        why = trouble(container, instance, self._ends[container.incarnation])
        return replace(instance, trouble=Redactor(material.secrets).redact(why))

    async def _last_end(self, container: Container) -> End | str | None:
        """How the run before this one ended."""
        run, why = self._ended.get(container.id, (container.incarnation, ""))
        if run == container.incarnation:
            return await self._containers.last_end(container)
        del self._ended[container.id]
        return why

    async def _revision(self, number: int) -> tuple[Revision, Material]:
        if number not in self._revisions:
            self._revisions[number] = await self._load(number)
        return self._revisions[number]

    def _leave_no_file(self) -> None:
        shutil.rmtree(self._folder / "tls", ignore_errors=True)
        (self._folder / "images.json").unlink(missing_ok=True)


async def _by_engine() -> str:
    return "the engine runs checks that are a command"
