"""The process target: supervised processes behind a proxy, both of which go on when the operator does not."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import time
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import structlog

from remit.api.deployment import DeploymentSpec, HealthCheck
from remit.api.deploymentstatus import Slot
from remit.backends import AttemptRequest
from remit.errors import DeploymentError, RemitError
from remit.operations import OperationFailed
from remit.operations.process import State, Supervision, Wanted
from remit.release.model import SLOTS, Revision, SlotView, World
from remit.release.target import Material
from remit.release.targets import sides
from remit.release.targets.artifacts import fetch
from remit.release.targets.health import Health, Watch, address_of, check_of
from remit.release.targets.localports import free_ports
from remit.release.targets.sides import Published, Side, Told
from remit.release.traffic import Entry, Route, Seen, Traffic

Admit = Callable[[Revision, Material], AttemptRequest]
"""What policy lets an instance of a revision be. Raises DeploymentError where it does not."""
Load = Callable[[int], Awaitable[tuple[Revision, Material]]]
"""A revision that was kept, with its configuration. Raises DeploymentError."""

log = structlog.get_logger(__name__)

_ALIVE: Final = frozenset({"Starting", "Running"})
_KEPT: Final = _ALIVE | {"Backoff"}
_FINISH_SECONDS: Final = 30
"""How long an instance that is too many may finish the requests that it has."""
_SOON_SECONDS: Final = 0.1
_HEALTHY: Final = Health(healthy=True)


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
        admit: Admit,
        load: Load,
        changed: Callable[[], None],
    ) -> None:
        """`folder` holds what it was told, `artifacts` the copies of its revisions; `supervise` gives the supervision
        of processes that may read such a copy; `changed` is called when an instance's health does."""
        self._name = f"{namespace}/{name}"
        self._told = folder / "told.json"
        self._artifacts = artifacts
        self._supervise = supervise
        self._supervision = supervise(artifacts)
        self._traffic = traffic
        self._admit, self._load, self._changed = admit, load, changed
        self._watches: dict[tuple[Slot, int, int], Watch] = {}
        self._checks: dict[int, HealthCheck | None] = {}

    async def observe(self) -> World:
        """See `Target.observe`."""
        told = sides.read(self._told)
        for slot, side in told.sides.items():
            await self._revive(slot, side)
        states = self._supervision.list(self._name)
        await self._watch(told)
        route = _route(self._name, told)
        try:
            seen, trouble = await self._in_force(route)
        except DeploymentError as error:
            return World(unreachable=str(error))
        told = await self._let_go(told, seen)
        reached = _reached(seen) if route is not None else None
        self._look_again(told, reached)
        views = {slot: self._view(slot, told.sides.get(slot), states, reached) for slot in SLOTS}
        if seen is not None:
            views = {slot: replace(view, connections=seen.in_flight(slot)) for slot, view in views.items()}
        if trouble:
            views = {slot: replace(view, message=view.message or trouble) for slot, view in views.items()}
        return World(
            converged=not trouble,
            blue=views["blue"],
            green=views["green"],
            live=told.live,
            share=told.share,
            preview=told.preview,
            prepared=frozenset(int(path.name) for path in self._artifacts.glob("[0-9]*")),
        )

    async def prepare(self, revision: Revision) -> None:
        """See `Target.prepare`."""
        await asyncio.to_thread(fetch, revision.snapshot.spec.artifact, self._copy(revision.number))

    async def provision(self, slot: Slot, revision: Revision, replicas: int, material: Material) -> None:
        """See `Target.provision`."""
        spec, told = revision.snapshot.spec, sides.read(self._told)
        self._checks[revision.number] = spec.health_check
        held = told.sides.get(slot)
        if held is None or held.revision != revision.number:
            blue_green = spec.strategy.blue_green
            published = tuple(Published(port.name, port.published or port.container_port) for port in spec.ports)
            held = Side(revision.number, published, blue_green.preview_port if blue_green else None)
        await self._have(slot, replace(held, draining=False), replicas, revision, material)

    async def scale(self, slot: Slot, replicas: int) -> None:
        """See `Target.scale`."""
        held = sides.read(self._told).sides.get(slot)
        if held is None:
            raise DeploymentError(f"nothing is on {slot}", reason="SlotEmpty", retryable=True)
        revision, material = await self._load(held.revision)
        await self._have(slot, held, replicas, revision, material)

    async def switch(self, live: Slot, share: int = 0) -> None:
        """See `Target.switch`."""
        await self._tell(replace(sides.read(self._told), live=live, share=share))

    async def preview(self, slot: Slot | None) -> None:
        """See `Target.preview`."""
        await self._tell(replace(sides.read(self._told), preview=slot))

    async def drain(self, slot: Slot) -> None:
        """See `Target.drain`."""
        told = sides.read(self._told)
        if held := told.sides.get(slot):
            await self._tell(told.having(slot, replace(held, draining=True)))

    async def retire(self, slot: Slot) -> None:
        """See `Target.retire`."""
        told = sides.read(self._told)
        await self._stop(slot, 0)
        await self._tell(told.having(slot, None))

    async def keep(self, revisions: Iterable[int]) -> None:
        """Let go of the copies of all other revisions."""
        kept = {str(number) for number in revisions}
        for copy in await asyncio.to_thread(lambda: list(self._artifacts.glob("[0-9]*"))):
            if copy.name not in kept:
                await asyncio.to_thread(shutil.rmtree, copy, ignore_errors=True)

    async def remove(self) -> None:
        """Leave nothing: not the proxy, not a copy. After both sides were retired."""
        await self._traffic.remove(self._name)
        for slot in SLOTS:
            await self._stop(slot, 0)
        await self.close()
        await asyncio.to_thread(shutil.rmtree, self._artifacts, ignore_errors=True)
        await asyncio.to_thread(self._told.unlink, missing_ok=True)

    async def close(self) -> None:
        """See `Target.close`."""
        watches, self._watches = list(self._watches.values()), {}
        await asyncio.gather(*(watch.end() for watch in watches))

    async def _have(self, slot: Slot, side: Side, replicas: int, revision: Revision, material: Material) -> None:
        """Write the wish down first, then bring it about: killed in between, `observe` goes on with it.

        Those that are too many get no more requests from here on. They are stopped once nobody's request is with them.
        """
        names = [port.name for port in revision.snapshot.spec.ports]
        published = {port.port for port in side.published}
        ports = [*side.ports, *(free_ports(names, published) for _ in range(replicas - len(side.ports)))]
        side = replace(side, wanted=replicas, ports=tuple(ports), leaving_since=time.time())
        told = sides.read(self._told).having(slot, side)
        sides.write(self._told, told)
        await self._start(slot, side, range(replicas), revision, material)
        await self._tell(told)

    async def _let_go(self, told: Told, seen: Seen | None) -> Told:
        """Stop the instances that are too many, unless somebody's request is with them and may still end."""
        for slot, side in told.sides.items():
            if len(side.ports) == side.wanted:
                continue
            busy = {each.address for each in seen.servers if each.in_flight} if seen else set()
            if side.leaving & busy and time.time() < side.leaving_since + _FINISH_SECONDS:
                continue
            await self._stop(slot, side.wanted)
            told = told.having(slot, replace(side, ports=side.ports[: side.wanted]))
            sides.write(self._told, told)
        return told

    async def _revive(self, slot: Slot, side: Side) -> None:
        """Start again what has no supervisor: the machine was restarted, or an operator killed in mid-start."""
        states = self._supervision.list(self._name)
        gone = [
            index
            for index in range(side.wanted)
            if states.get(f"{slot}-{index}", {}).get("phase", "Lost") in {"Lost", "Stopped"}
        ]
        if not gone:
            return
        try:
            revision, material = await self._load(side.revision)
            await asyncio.to_thread(fetch, revision.snapshot.spec.artifact, self._copy(side.revision))
            await self._start(slot, side, gone, revision, material)
        except DeploymentError as error:
            log.warning("an instance cannot be started again", deployment=self._name, slot=slot, error=str(error))

    async def _start(
        self, slot: Slot, side: Side, instances: Iterable[int], revision: Revision, material: Material
    ) -> None:
        """Start those of `instances` that do not run yet. What runs is left alone, whatever policy says by now."""
        copy = self._copy(revision.number)
        supervision, states = self._supervise(copy), self._supervision.list(self._name)
        request = self._admit(revision, material)
        wanted = []
        for index in instances:
            name, ports = f"{slot}-{index}", side.ports[index]
            mark = f"revision {revision.number} on {', '.join(map(str, ports.values())) or 'no port'}"
            state = states.get(name, {})
            if state.get("phase") not in _KEPT or state.get("task") != mark:
                instance = _instance(request, name, ports, copy)
                wanted.append(Wanted(self._name, name, instance, "Always", mark, secrets=material.secrets))
        await _all(_started(supervision, each) for each in wanted)

    async def _stop(self, slot: Slot, keep: int) -> None:
        """Stop the instances of `slot` from number `keep` on."""
        names = [name for name in self._supervision.list(self._name) if _index(name, slot) >= keep]
        with contextlib.suppress(OperationFailed):
            await _all(self._supervision.remove(self._name, name) for name in names)

    async def _tell(self, told: Told) -> None:
        sides.write(self._told, told)
        if (route := _route(self._name, told)) is not None:
            await self._traffic.apply(route)

    async def _in_force(self, route: Route | None) -> tuple[Seen | None, str]:
        """What the proxy does, after it was told again what it does not do: it died, or an operator did before it could
        say all of it. And why it cannot do it, such as for a port that is taken; then all is as it was.

        Raises DeploymentError if it lives and does not answer.
        """
        seen = await self._traffic.look(self._name)
        if route is None or (seen and _does(seen, route)):
            return seen, ""
        try:
            await self._traffic.apply(route)
        except DeploymentError as error:
            return seen, str(error)
        return await self._traffic.look(self._name), ""

    async def _watch(self, told: Told) -> None:
        """Have exactly the checks that are due; new ones are waited for, so that no instance is merely unknown."""
        due = {(slot, side.revision, i) for slot, side in told.sides.items() for i in range(side.wanted)}
        gone = [key for key in self._watches if key not in due]
        await asyncio.gather(*(self._watches.pop(key).end() for key in gone))
        new = []
        for slot, number, index in sorted(due - self._watches.keys()):
            if number not in self._checks:
                self._checks[number] = (await self._load(number))[0].snapshot.spec.health_check
            if (spec := self._checks[number]) is not None:
                check = check_of(spec, "127.0.0.1", told.sides[slot].ports[index], _no_command)
                address = address_of(spec, "127.0.0.1", told.sides[slot].ports[index])
                watch = self._watches[slot, number, index] = Watch(spec, check, self._changed, address)
                watch.begin()
                new.append(watch)
        await asyncio.gather(*(watch.first() for watch in new if not watch.spec.initial_delay_seconds))

    def _look_again(self, told: Told, reached: frozenset[str] | None) -> None:
        """Soon, where an instance is well and the proxy has not found out yet: nothing tells us when it does."""
        well = {key for key, watch in self._watches.items() if watch.health.healthy}
        unreached = any(not told.sides[slot].addresses_of(index) <= (reached or set()) for slot, _, index in well)
        if reached is not None and unreached:
            asyncio.get_running_loop().call_later(_SOON_SECONDS, self._changed)

    def _view(
        self, slot: Slot, side: Side | None, states: Mapping[str, State], reached: frozenset[str] | None
    ) -> SlotView:
        """`reached` are the addresses that the proxy has found up: only what it would send requests to is healthy."""
        if side is None:
            return SlotView()
        own = {index: states.get(f"{slot}-{index}", {}) for index in range(side.wanted)}
        alive = {index for index, state in own.items() if state.get("phase") in _ALIVE}
        verdicts = {index: self._verdict(slot, side.revision, index) for index in own}
        healthy = {index for index in alive if verdicts[index].healthy}
        if reached is not None:
            healthy = {index for index in healthy if side.addresses_of(index) <= reached}
        failed = {index for index, state in own.items() if state and index not in alive}
        failed |= {index for index in alive if verdicts[index].unhealthy}
        return SlotView(
            revision=side.revision,
            wanted=side.wanted,
            started=sum(1 for state in own.values() if state.get("phase") in _KEPT),
            healthy=len(healthy),
            failed=len(failed),
            restarts=sum(int(state.get("restarts", 0)) for state in own.values()),
            draining=side.draining,
            message=next((self._trouble(slot, index, own[index], verdicts[index]) for index in sorted(failed)), ""),
        )

    def _verdict(self, slot: Slot, revision: int, index: int) -> Health:
        """An instance without a check is healthy as soon as it runs."""
        watch = self._watches.get((slot, revision, index))
        return watch.health if watch else _HEALTHY

    def _trouble(self, slot: Slot, index: int, state: State, health: Health) -> str:
        name = f"{slot}-{index}"
        ended = state.get("lastExit") or {}
        if state.get("phase") in _ALIVE and not ended:
            return f"{name}: {health.message}"
        last = self._supervision.tails(self._name, name)["stderrTail"].strip().rpartition("\n")[2]
        return f"{name}: {ended.get('message') or state.get('phase')}" + (f": {last}" if last else "")

    def _copy(self, revision: int) -> Path:
        return self._artifacts / str(revision)


def check_supported(spec: DeploymentSpec) -> None:
    """Raises DeploymentError for what this target does not do."""
    if spec.health_check is not None and spec.health_check.command is not None:
        message = "spec.healthCheck.command: the process target checks by http or tcp"
        raise DeploymentError(message, reason="NotSupported")


def _route(name: str, told: Told) -> Route | None:
    """The proxy's route; None where nothing is published."""
    entries: dict[int, Entry] = {}
    for side in told.sides.values():
        for port in side.published:
            addresses = {slot: each.addresses(port.name) for slot, each in told.sides.items()}
            entries[port.port] = Entry.of(port.port, addresses, told.weights())
            if side.preview is not None and port == side.published[0]:
                weights: dict[Slot, int] = {slot: 100 if slot == told.preview else 0 for slot in SLOTS}
                entries[side.preview] = Entry.of(side.preview, addresses, weights)
    return Route(name, tuple(entries.values())) if entries else None


def _does(seen: Seen, route: Route) -> bool:
    """Whether the proxy does what it was told."""
    for entry in route.entries:
        port = seen.ports.get(entry.port)
        if port is None or dict(port.weights) != dict(entry.weights):
            return False
        for slot in SLOTS:
            if {each.address for each in port.sides[slot].servers if not each.leaving} != set(entry.side(slot)):
                return False
    return True


def _reached(seen: Seen | None) -> frozenset[str]:
    ports = seen.ports.values() if seen else ()
    return frozenset(each.address for port in ports for slot in SLOTS for each in port.sides[slot].servers if each.up)


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
            raise _failed(error) from error
        await supervision.stop(wanted.namespace, wanted.name)  # of a revision before, left by a killed operator
        await supervision.start(wanted)
    except RemitError as error:
        raise _failed(error) from error


def _index(name: str, slot: Slot) -> int:
    """Which instance of `slot` it is; -1 for another's."""
    side, _, number = name.rpartition("-")
    return int(number) if side == slot and number.isdigit() else -1


async def _all(doing: Any) -> None:
    """All at once; the first error, once all are done."""
    coroutines: list[Coroutine[Any, Any, object]] = list(doing)
    for result in await asyncio.gather(*coroutines, return_exceptions=True):
        if isinstance(result, BaseException):
            raise result


async def _no_command() -> str:
    return "the process target makes no checks by a command"


def _failed(error: RemitError) -> DeploymentError:
    reason = error.reason if isinstance(error, OperationFailed) else type(error).__name__
    return DeploymentError(str(error), reason=reason, retryable=error.retryable)
