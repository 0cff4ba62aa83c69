"""The process target: supervised processes behind a proxy, both of which go on when the operator does not."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Final

import structlog

from remit.api.deployment import DeploymentSpec, HealthCheck
from remit.api.slots import SLOTS, Slot
from remit.backends.base import AttemptRequest, Backend
from remit.backends.failure import OperationFailed
from remit.errors import DeploymentError, RemitError
from remit.operations.process.record import ProcessIdentity
from remit.operations.process.supervision import State, Supervision, Wanted
from remit.release.context import CRASH_LIMIT
from remit.release.model import ObservedState, Revision
from remit.release.report.model import Usage
from remit.release.target import Material
from remit.release.targets.changes import Changes, Source
from remit.release.targets.concurrently import all_of
from remit.release.targets.copies import Copies, Download
from remit.release.targets.desiredstate import LOOPBACK, DesiredSide, DesiredState
from remit.release.targets.failing import failed
from remit.release.targets.health import Check, Health, Watches, check_of
from remit.release.targets.liveness import Due, Liveness
from remit.release.targets.loadbalancer import LoadBalancer, ProxyStatus
from remit.release.targets.localports import free_ports
from remit.release.targets.observation import InstanceStatus, observed
from remit.release.targets.processchecks import run_check
from remit.release.targets.reading import Reading
from remit.release.traffic.traffic import Traffic
from remit.sandbox.fencing import now as boot_time

Admit = Callable[[Revision, Material], AttemptRequest]
"""What policy lets an instance of a revision be. Raises DeploymentError where it does not."""
AdmitCheck = Callable[[Revision, Material, Sequence[str]], AttemptRequest]
"""The same of a command that checks an instance."""
Load = Callable[[int], Awaitable[tuple[Revision, Material]]]
"""A revision that was kept, with its configuration. Raises DeploymentError."""


@dataclass(frozen=True, slots=True)
class Permits:
    """The questions that policy is asked about a revision each time."""

    instance: Admit
    check: AdmitCheck
    reading: Callable[[Revision, Material], Reading]
    """An artifact that is on this host."""
    download: Download


log = structlog.get_logger(__name__)

_ALIVE: Final = frozenset({"Starting", "Running"})
_KEPT: Final = _ALIVE | {"Backoff"}
_LOST: Final = frozenset({"Lost", "Stopped"})
_MOST_RESTARTS: Final = 2 * CRASH_LIMIT
"""Restarts after which the supervisor of an instance that was never live gives up: no operator may be left to do so."""


class ProcessTarget:
    """One Deployment, `name` in `namespace`, as processes on this host.

    An instance listens on the port that its environment names: `PORT` is its first one, `PORT_HTTP` that called `http`.
    """

    def __init__(
        self,
        namespace: str,
        name: str,
        folder: Path,
        artifacts: Path,
        supervise: Callable[[Path], Supervision],
        traffic: Traffic,
        backend: Callable[[Path], Backend],
        permits: Permits,
        load: Load,
        changed: Callable[[], None],
        readers: int | None = None,
        earlier: Path | None = None,
    ) -> None:
        """`folder` holds what it was told, `artifacts` the copies of its revisions, for the group `readers`, and
        `earlier` those that version 0.1 made; `supervise` gives the supervision of processes that may read such a copy,
        `backend` what runs the checks of their health; `changed` is called when an instance's health does."""
        self._name = f"{namespace}/{name}"
        self._balancer = LoadBalancer(self._name, folder / "told.json", traffic)
        digests = folder / "artifacts.json"
        self._copies = Copies(artifacts, digests, readers, permits.reading, permits.download, changed, earlier)
        self._supervise = supervise
        self._supervision = supervise(artifacts)
        self._backend, self._permits, self._load = backend, permits, load
        self._watches, self._liveness, self._changes = Watches(changed), Liveness(changed), Changes(changed)
        self._specs: dict[int, DeploymentSpec] = {}
        self._refused: dict[Slot, str] = {}
        """Why an instance of a side could not be started again."""

    @property
    def leftovers(self) -> str:
        """See `Target.leftovers`."""
        return f"processes of {self._name}, on the operator's host"

    async def observe(self) -> ObservedState:
        """See `Target.observe`."""
        desired = self._balancer.desired()
        for slot, side in desired.sides.items():
            desired = desired.having(slot, await self._revive(slot, side, live=slot == desired.live))
        states = self._supervision.list(self._name)
        await self._lift_limits(desired, states)
        sources: dict[Hashable, Source] = {
            (name, str(state.get("supervisor"))): partial(self._supervision.watch, self._name, name)
            for name, state in states.items()
            if state.get("phase") in _KEPT
        }
        await self._changes.have(sources | self._balancer.sources())
        await self._watch(desired, states)
        try:
            proxy = await self._balancer.look(desired)
        except DeploymentError as error:
            return ObservedState(unreachable=str(error))
        desired = await self._stop_superfluous(desired, proxy)
        found = {
            slot: {i: self._found(slot, side, i, states.get(f"{slot}-{i}", {})) for i in range(side.wanted)}
            for slot, side in desired.sides.items()
        }
        return replace(observed(desired, found, proxy, self._copies.at_hand()), digests=self._copies.digests())

    def copy(self, revision: int) -> tuple[Path, str] | None:
        """See `Copies.verified`."""
        return self._copies.verified(revision)

    async def prepare(self, revision: Revision) -> None:
        """See `Target.prepare`."""
        await self._copies.bring(revision, Material())

    async def provision(self, slot: Slot, revision: Revision, replicas: int, material: Material) -> None:
        """See `Target.provision`."""
        spec, desired = revision.snapshot.spec, self._balancer.desired()
        self._specs[revision.number] = spec
        held = desired.sides.get(slot)
        if held is None or held.revision != revision.number:
            held = DesiredSide.of(revision)
        await self._balancer.check(desired.having(slot, held))
        await self._scale(slot, replace(held, draining=False), replicas, revision, material)

    async def scale(self, slot: Slot, replicas: int) -> None:
        """See `Target.scale`."""
        held = self._balancer.desired().sides.get(slot)
        if held is None:
            raise DeploymentError(f"nothing is on {slot}", reason="SlotEmpty", retryable=True)
        revision, material = await self._load(held.revision)
        await self._scale(slot, held, replicas, revision, material)

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
        desired = self._balancer.desired()
        if held := desired.sides.get(slot):  # saved first, because instances that stop would otherwise be started again
            desired = desired.having(slot, replace(held, wanted=0, draining=True))
            self._balancer.save(desired)
        await self._stop(slot, 0)
        self._refused.pop(slot, None)
        await self._balancer.apply(desired.having(slot, None))

    async def keep(self, revisions: Iterable[int]) -> None:
        """Let go of the copies of all other revisions, and of what is still being fetched."""
        numbers = set(revisions)
        self._specs = {number: spec for number, spec in self._specs.items() if number in numbers}
        await self._copies.keep(numbers)

    async def remove(self) -> None:
        """Leave nothing: not the proxy, not a copy. After both sides were retired."""
        await self.close()
        for slot in SLOTS:
            await self._stop(slot, 0)
        self._supervision.leave(self._name)
        await self._balancer.remove()
        await self._copies.clear()

    async def abandon(self) -> None:
        """See `Target.abandon`. All of it is on the operator's host."""
        await self.remove()

    async def usage(self) -> dict[Slot, Usage]:
        """See `Measured.usage`. Instances that are just ending count nothing."""
        desired = self._balancer.desired()
        return {slot: await self._used(slot, side) for slot, side in desired.sides.items()}

    def probe_token(self) -> str:
        """See `Proxied.probe_token`."""
        return self._balancer.probe_token()

    async def close(self) -> None:
        """See `Target.close`."""
        await self._watches.end()
        await self._liveness.end()
        await self._changes.end()
        await self._copies.stop()

    async def _used(self, slot: Slot, side: DesiredSide) -> Usage:
        async def measured(name: str) -> Mapping[str, float]:
            with contextlib.suppress(OperationFailed):
                return (await self._supervision.usage(self._name, name))["now"] or {}
            return {}

        found = await asyncio.gather(*(measured(f"{slot}-{index}") for index in range(side.wanted)))
        return Usage(
            sum(each.get("cpuSeconds", 0) for each in found), int(sum(each.get("memoryBytes", 0) for each in found))
        )

    async def _scale(
        self, slot: Slot, side: DesiredSide, replicas: int, revision: Revision, material: Material
    ) -> None:
        """Write the wish down first, then bring it about: killed in between, `observe` goes on with it.

        Those that are too many get no more requests from here on. They are stopped once nobody's request is with them.
        """
        await self._copies.bring(revision, material)
        desired = self._balancer.desired().having(slot, side)
        names = [port.name for port in revision.snapshot.spec.ports]
        missing = max(0, replicas - len(side.ports))
        found = free_ports([f"{name} {place}" for place in range(missing) for name in names], desired.ports)
        added = [{name: found[f"{name} {place}"] for name in names} for place in range(missing)]
        side = replace(side, wanted=replicas, ports=(*side.ports, *added), leaving_since=boot_time())
        desired = desired.having(slot, side)
        self._balancer.save(desired)
        await self._start(slot, side, range(replicas), revision, material)
        await self._balancer.apply(desired)

    async def _stop_superfluous(self, desired: DesiredState, proxy: ProxyStatus) -> DesiredState:
        """Stop the instances that are too many, those that have finished."""
        for slot, side in desired.sides.items():
            if len(side.ports) > side.wanted and side.finished(proxy.busy, boot_time()):
                try:
                    await self._stop(slot, side.wanted)
                except DeploymentError as error:  # the next look tries again
                    log.warning("an instance does not end", deployment=self._name, slot=slot, error=str(error))
                    continue
                desired = desired.having(slot, replace(side, ports=side.ports[: side.wanted]))
                self._balancer.save(desired)
        return desired

    async def _lift_limits(self, desired: DesiredState, states: Mapping[str, State]) -> None:
        """Have the instances of what is live restarted for ever, also while no operator runs."""
        for name, state in states.items():
            if (
                desired.live
                and _index(name, desired.live) >= 0
                and "maxRestarts" in state
                and state.get("phase") in _KEPT
            ):
                with contextlib.suppress(OperationFailed):  # the process ended meanwhile, which the next look finds
                    await self._supervision.lift_limit(self._name, name)

    async def _revive(self, slot: Slot, side: DesiredSide, *, live: bool) -> DesiredSide:
        """Start again what has no supervisor: it was killed, the machine restarted, or an operator killed in mid-start.

        What is down, or has nothing to be started from, gets an intact copy of its artifact first.

        Their new supervisors count restarts from zero. The side goes on with the count, or nobody knew that they died.
        """
        states = self._supervision.list(self._name)
        lost = _LOST | {"Failed"} if live else _LOST
        phases = [states.get(f"{slot}-{index}", {}).get("phase", "Lost") for index in range(side.wanted)]
        gone = [index for index, phase in enumerate(phases) if phase in lost]
        down = [index for index in range(side.wanted) if not _incarnation(states.get(f"{slot}-{index}", {}))]
        if not down and side.revision in self._copies.at_hand():
            return side
        try:
            revision, material = await self._load(side.revision)
            # After a repair, instances that failed without the artifact are restarted immediately.
            if await self._copies.repair(revision, material):
                await self._stop_those(f"{slot}-{index}" for index in down)
                gone = down
            if gone:
                await self._start(slot, side, gone, revision, material)
        except DeploymentError as error:
            if self._refused.get(slot) != str(error):
                log.warning("an instance cannot be started again", deployment=self._name, slot=slot, error=str(error))
            self._refused[slot] = str(error)
            return side
        self._refused.pop(slot, None)
        died = [state for index in gone if (state := states.get(f"{slot}-{index}"))]
        if died:
            side = replace(side, restarts=side.restarts + sum(1 + int(each.get("restarts", 0)) for each in died))
            self._balancer.save(self._balancer.desired().having(slot, side))
        return side

    async def _start(
        self, slot: Slot, side: DesiredSide, instances: Iterable[int], revision: Revision, material: Material
    ) -> None:
        """Start those of `instances` that do not run yet. What runs is left alone, whatever policy says by now."""
        copy, states = self._copies.of(revision.number), self._supervision.list(self._name)
        supervision, request = self._supervise(copy), self._permits.instance(revision, material)
        wanted = []
        for index in instances:
            name, ports = f"{slot}-{index}", side.ports[index]
            mark = f"revision {revision.number} on {', '.join(map(str, ports.values())) or 'no port'}"
            state = states.get(name, {})
            if state.get("phase") not in _KEPT or state.get("task") != mark:
                instance = _instance(request, name, ports, copy)
                limit = None if slot == self._balancer.desired().live else _MOST_RESTARTS
                wanted.append(
                    Wanted(self._name, name, instance, "Always", mark, secrets=material.secrets, max_restarts=limit)
                )
        await all_of(_started(supervision, each) for each in wanted)

    async def _stop(self, slot: Slot, keep: int) -> None:
        """Stop the instances of `slot` from number `keep` on. Raises DeploymentError where one does not end."""
        await self._stop_those(name for name in self._supervision.list(self._name) if _index(name, slot) >= keep)

    async def _stop_those(self, names: Iterable[str]) -> None:
        try:
            await all_of(self._supervision.remove(self._name, name) for name in names)
        except OperationFailed as error:
            raise failed(error) from error

    async def _watch(self, desired: DesiredState, states: Mapping[str, State]) -> None:
        due: dict[Hashable, tuple[HealthCheck, Check]] = {}
        lively: dict[Hashable, Due] = {}
        for slot, side in desired.sides.items():
            if side.revision not in self._specs:
                try:
                    self._specs[side.revision] = (await self._load(side.revision))[0].snapshot.spec
                except DeploymentError:  # the check is not known, see `_found`; the instance continues to run
                    continue
            spec = self._specs[side.revision]
            for index in range(side.wanted):
                state = states.get(f"{slot}-{index}", {})
                if not (incarnation := _incarnation(state)):
                    continue
                key = slot, index, incarnation
                if spec.health_check is not None:
                    due[key] = spec.health_check, self._check(spec.health_check, slot, side, index)
                if spec.liveness_check is not None and not side.draining:  # a draining side ends anyway
                    check = self._check(spec.liveness_check, slot, side, index)
                    restart = partial(self._restart, f"{slot}-{index}", int(state.get("restarts", 0)))
                    lively[key] = Due(spec.liveness_check, check, restart)
        await self._watches.have(due)
        await self._liveness.have(lively)

    def _check(self, check: HealthCheck, slot: Slot, side: DesiredSide, index: int) -> Check:
        named, argv = side.ports[index], check.command.argv if check.command else []
        # The port's own number may be published and would then lead to the live side, so it is mapped to the instance's
        # port.
        ports = self._specs[side.revision].ports
        moved = {port.container_port: named[port.name] for port in ports if port.name in named}
        return check_of(check, LOOPBACK, named, partial(self._ask, slot, side, index, argv), moved)

    async def _restart(self, name: str, restarts: int, why: str) -> None:
        log.warning("an instance is restarted", deployment=self._name, instance=name, reason=why)
        await self._supervision.restart(self._name, name, restarts, why)

    async def _ask(self, slot: Slot, side: DesiredSide, index: int, argv: Sequence[str]) -> str:
        """The command that checks the instance: why it has not passed. Raises RemitError where it may not run."""
        revision, material = await self._load(side.revision)
        admitted = self._permits.check(revision, material, argv)
        copy = self._copies.of(side.revision)
        request = _instance(admitted, f"{slot}-{index}-check", side.ports[index], copy)
        return await run_check(self._backend(copy), request, material.secrets)

    def _found(self, slot: Slot, side: DesiredSide, index: int, state: State) -> InstanceStatus:
        incarnation = _incarnation(state)
        health = self._watches.health((slot, index, incarnation))
        if side.revision not in self._specs:
            health = Health(message=f"revision {side.revision} cannot be read, so it is not checked")
        found = InstanceStatus(
            health,
            exists=bool(state),
            kept=state.get("phase") in _KEPT,
            alive=bool(incarnation),
            incarnation=incarnation,
            restarts=int(state.get("restarts", 0)),
        )
        if not found.failed and not found.restarts:
            return replace(found, trouble=health.message)
        trouble = self._trouble(f"{slot}-{index}", state, health)
        if not found.alive and slot in self._refused:
            trouble = f"{trouble}; it is not started again: {self._refused[slot]}"
        return replace(found, trouble=trouble)

    def _trouble(self, name: str, state: State, health: Health) -> str:
        ended = state.get("lastExit") or {}
        if state.get("phase") in _ALIVE and not ended:
            return health.message
        last = self._supervision.tails(self._name, name)["stderrTail"].strip().rpartition("\n")[2]
        phase = "it was killed, its supervisor with it" if state.get("phase") == "Lost" else state.get("phase")
        return str(ended.get("message") or phase) + (f": {last}" if last else "")


def _instance(request: AttemptRequest, name: str, ports: Mapping[str, int], copy: Path) -> AttemptRequest:
    """`request` for one instance: its ports, and its place in the artifact."""
    named = {f"PORT_{port.upper().replace('-', '_')}": str(number) for port, number in ports.items()}
    first = {"PORT": str(next(iter(ports.values())))} if ports else {}
    command = replace(request.command, env={**request.command.env, **first, **named})
    confinement = replace(request.confinement, working_dir=str(copy))
    return replace(request, id=f"{request.id}-{name}", command=command, confinement=confinement)


async def _started(supervision: Supervision, wanted: Wanted) -> None:
    try:
        await supervision.start(wanted)
    except OperationFailed as error:
        if error.reason != "AlreadyExists":
            raise failed(error) from error
        # An earlier revision's process, left by an operator that was killed.
        await supervision.stop(wanted.namespace, wanted.name)
        await supervision.start(wanted)
    except RemitError as error:
        raise failed(error) from error


def _incarnation(state: State) -> str:
    """See `InstanceView.incarnation`. A supervisor that was replaced counts its restarts anew."""
    supervisor = ProcessIdentity.parse(state.get("supervisor"))
    if supervisor is None or state.get("phase") not in _ALIVE:
        return ""
    return f"{supervisor.boot_id[:8]}-{supervisor.pid}-{supervisor.start_time}-{state.get('restarts', 0)}"


def _index(name: str, slot: Slot) -> int:
    """The index of an instance of `slot`; -1 if it belongs to another slot."""
    side, _, number = name.rpartition("-")
    return int(number) if side == slot and number.isdigit() else -1
