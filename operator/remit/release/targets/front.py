"""What a target without a Service was told, and the proxy that does it: what processes and containers share."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from remit.api.deploymentstatus import Slot
from remit.errors import DeploymentError
from remit.release.model import SLOTS
from remit.release.targets import sides
from remit.release.targets.changes import Source
from remit.release.targets.sides import Told
from remit.release.traffic import Entry, Route, Seen, Traffic
from remit.release.traffic.route import POOLS


@dataclass(frozen=True, slots=True)
class Flow:
    """What the proxy was seen to do."""

    reached: frozenset[str] | None = None
    """The addresses that it has found up at each port: what it would send no request to is not healthy. None: nothing
    is published."""
    closed: frozenset[str] = frozenset()
    """The addresses that it has found down."""
    in_flight: Mapping[Slot, int] = field(default_factory=dict)
    served: Mapping[Slot, tuple[int, int]] = field(default_factory=dict)
    """How many requests each side answered where it is published, and how many of them failed, since the proxy counts.
    """
    busy: frozenset[str] = frozenset()
    """The addresses that it has requests at."""
    converged: bool = True
    """Whether requests go where they were told to, at the ports of the live side. One that only the other side wants
    may be taken without harm to it."""
    trouble: str = ""
    """Why it does not do what it was told, such as for a port that is taken."""


class Front:
    """The proxy of the Deployment `name`, as `namespace/name`, and the file that says what it is to do."""

    def __init__(self, name: str, file: Path, traffic: Traffic) -> None:
        self._name, self._file, self._traffic = name, file, traffic

    def told(self) -> Told:
        """The wish, as it was written last."""
        return sides.read(self._file)

    def note(self, told: Told) -> None:
        """Write the wish down, and leave it to the next look to bring it about."""
        sides.write(self._file, told)

    async def tell(self, told: Told) -> None:
        """Write the wish down and bring it about. Raises DeploymentError."""
        self.note(told)
        if (route := route_of(self._name, told)) is not None:
            await self._traffic.apply(route)

    async def check(self, told: Told) -> None:
        """Raises DeploymentError if a port is taken: to be asked before anything is begun that needs it."""
        if (route := route_of(self._name, told)) is not None:
            await self._traffic.check(route)

    async def switch(self, live: Slot, share: int = 0, *, failover: bool = False) -> None:
        """See `Target.switch`."""
        await self.tell(replace(self.told(), live=live, share=share, failover=failover))

    async def preview(self, slot: Slot | None) -> None:
        """See `Target.preview`."""
        await self.tell(replace(self.told(), preview=slot))

    async def drain(self, slot: Slot) -> None:
        """See `Target.drain`."""
        told = self.told()
        if held := told.sides.get(slot):
            await self.tell(told.having(slot, replace(held, draining=True)))

    def sources(self) -> dict[Hashable, Source]:
        """What tells that the proxy finds an instance up or down, before any look."""
        proxy = self._traffic.serving(self._name)
        return {} if proxy is None else {proxy: lambda: self._traffic.changes(self._name)}

    async def look(self, told: Told) -> Flow:
        """What the proxy does, once it does what it was told: it may have died, or an operator have been killed before
        it could say all of it. Raises DeploymentError if it lives and does not answer."""
        route, seen, trouble = route_of(self._name, told), await self._traffic.look(self._name), ""
        if route is not None and not (seen and _in_force(route, seen)):
            try:
                await self._traffic.apply(route)
            except DeploymentError as error:
                trouble = str(error)
            seen = await self._traffic.look(self._name)
        if seen is None:
            return Flow(None if route is None else frozenset(), converged=not trouble, trouble=trouble)
        return Flow(
            None if route is None else seen.reached,
            seen.closed,
            {slot: seen.in_flight(slot) for slot in SLOTS},
            _served(told, seen),
            seen.busy,
            _converged(told, route, seen),
            trouble,
        )

    def probe_token(self) -> str:
        """See `Traffic.probe_token`."""
        return self._traffic.probe_token(self._name)

    async def remove(self) -> None:
        """Close the published ports, and forget what was told."""
        await self._traffic.remove(self._name)
        self._file.unlink(missing_ok=True)


def route_of(name: str, told: Told) -> Route | None:
    """The proxy's route; None where nothing is published."""
    entries: dict[int, Entry] = {}
    published = {port.port for side in told.sides.values() for port in side.published}
    # What is live decides what is spoken where both publish a port.
    ordered = sorted(told.sides.items(), key=lambda each: each[0] == told.live)
    for _, side in ordered:
        for port in side.published:
            addresses = {slot: each.addresses(port.port) for slot, each in told.sides.items()}
            protocol = port.protocol
            entries[port.port] = Entry.of(
                port.port, addresses, told.weights(), failover=told.failover, protocol=protocol
            )
            # A preview never takes a port from those who use it, such as that of the side before.
            if side.preview is not None and side.preview not in published and port == side.published[0]:
                weights: dict[Slot, int] = {slot: 100 if slot == told.preview else 0 for slot in SLOTS}
                entries[side.preview] = Entry.of(side.preview, addresses, weights, protocol=protocol)
    # In an order of their own: another order would be another proxy.
    longest = max((side.max_header_bytes for side in told.sides.values()), default=0)
    return Route(name, tuple(entries[port] for port in sorted(entries)), longest) if entries else None


def _in_force(route: Route, seen: Seen) -> bool:
    """Whether the proxy does what it was told."""
    for entry in route.entries:
        if not _weighs(entry, seen):
            return False
        pools = seen.ports[entry.port].pools
        for pool in POOLS:
            if {each.address: each.backup for each in pools[pool].servers if not each.leaving} != entry.members(pool):
                return False
    return True


def _served(told: Told, seen: Seen) -> dict[Slot, tuple[int, int]]:
    published = {port.port for side in told.sides.values() for port in side.published}
    counted = {slot: [each.served(slot) for port, each in seen.ports.items() if port in published] for slot in SLOTS}
    return {slot: (sum(each[0] for each in own), sum(each[1] for each in own)) for slot, own in counted.items()}


def _converged(told: Told, route: Route | None, seen: Seen) -> bool:
    live = told.sides.get(told.live) if told.live else None
    if live is None or route is None:
        return True
    published = {port.port for port in live.published}
    return all(_weighs(entry, seen) for entry in route.entries if entry.port in published)


def _weighs(entry: Entry, seen: Seen) -> bool:
    port = seen.ports.get(entry.port)
    return port is not None and (dict(port.weights), port.fails_over) == (dict(entry.weights), entry.fails_over)
