"""Configures the proxy in front of one Deployment's processes or containers, which have no Service."""

from __future__ import annotations

from collections.abc import Hashable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from remit.api.slots import SLOTS, Slot
from remit.errors import DeploymentError
from remit.release.targets import desiredstate
from remit.release.targets.changes import Source
from remit.release.targets.desiredstate import DesiredState
from remit.release.traffic.route import POOLS, Entry, Route
from remit.release.traffic.runtime import ProxySnapshot
from remit.release.traffic.traffic import Traffic


@dataclass(frozen=True, slots=True)
class ProxyStatus:
    """The observed state of the proxy."""

    reached: frozenset[str] | None = None
    """The instance addresses that the proxy finds up. An instance at another address is not healthy, because it would
    get no requests. None if nothing is published."""
    closed: frozenset[str] = frozenset()
    """The instance addresses that the proxy finds down."""
    in_flight: Mapping[Slot, int] = field(default_factory=dict)
    served: Mapping[Slot, tuple[int, int]] = field(default_factory=dict)
    """Requests that each side answered at published ports since the proxy started, and how many of them failed."""
    busy: frozenset[str] = frozenset()
    """The instance addresses that have requests in flight."""
    converged: bool = True
    """Whether the published ports of the live side route as desired. A port that only the idle side uses may be in use
    by somebody else without affecting the live side."""
    trouble: str = ""
    """Why the proxy does not route as desired, such as a port that is taken; empty if it does."""


class LoadBalancer:
    """The proxy of the Deployment `name` (as `namespace/name`), and the file that keeps its desired state."""

    def __init__(self, name: str, file: Path, traffic: Traffic) -> None:
        self._name, self._file, self._traffic = name, file, traffic

    def desired(self) -> DesiredState:
        """The desired state, as it was saved last."""
        return desiredstate.read(self._file)

    def save(self, desired: DesiredState) -> None:
        """Save the desired state. The next `look` applies it."""
        desiredstate.write(self._file, desired)

    async def apply(self, desired: DesiredState) -> None:
        """Save the desired state and configure the proxy. Raises DeploymentError."""
        self.save(desired)
        if (route := route_of(self._name, desired)) is not None:
            await self._traffic.apply(route)

    async def check(self, desired: DesiredState) -> None:
        """Check before a start that the ports are free. Raises DeploymentError if one is taken."""
        if (route := route_of(self._name, desired)) is not None:
            await self._traffic.check(route)

    async def switch(self, live: Slot, share: int = 0, *, failover: bool = False) -> None:
        """See `Target.switch`."""
        await self.apply(replace(self.desired(), live=live, share=share, failover=failover))

    async def preview(self, slot: Slot | None) -> None:
        """See `Target.preview`."""
        await self.apply(replace(self.desired(), preview=slot))

    async def drain(self, slot: Slot) -> None:
        """See `Target.drain`."""
        desired = self.desired()
        if held := desired.sides.get(slot):
            await self.apply(desired.having(slot, replace(held, draining=True)))

    def sources(self) -> dict[Hashable, Source]:
        """Sources of changes: the proxy reports instances that go up or down before the next `look`."""
        proxy = self._traffic.serving(self._name)
        return {} if proxy is None else {proxy: lambda: self._traffic.changes(self._name)}

    async def look(self, desired: DesiredState) -> ProxyStatus:
        """Observe the proxy, and first apply the desired state if the proxy lacks it: it may have died, or an operator
        may have been killed while configuring it. Raises DeploymentError if it runs and does not answer."""
        route, seen, trouble = route_of(self._name, desired), await self._traffic.look(self._name), ""
        if route is not None and not (seen and _in_force(route, seen)):
            try:
                await self._traffic.apply(route)
            except DeploymentError as error:
                trouble = str(error)
            seen = await self._traffic.look(self._name)
        if seen is None:
            return ProxyStatus(None if route is None else frozenset(), converged=not trouble, trouble=trouble)
        return ProxyStatus(
            None if route is None else seen.reached,
            seen.closed,
            {slot: seen.in_flight(slot) for slot in SLOTS},
            _served(desired, seen),
            seen.busy,
            _converged(desired, route, seen),
            trouble,
        )

    def probe_token(self) -> str:
        """See `Traffic.probe_token`."""
        return self._traffic.probe_token(self._name)

    async def remove(self) -> None:
        """Close the published ports and delete the desired state."""
        await self._traffic.remove(self._name)
        self._file.unlink(missing_ok=True)


def route_of(name: str, desired: DesiredState) -> Route | None:
    """The proxy's route; None if nothing is published."""
    entries: dict[int, Entry] = {}
    published = {port.port for side in desired.sides.values() for port in side.published}
    # If both sides publish a port, the live side determines its protocol.
    ordered = sorted(desired.sides.items(), key=lambda each: each[0] == desired.live)
    for _, side in ordered:
        for port in side.published:
            addresses = {slot: each.addresses(port.port) for slot, each in desired.sides.items()}
            protocol = port.protocol
            entries[port.port] = Entry.of(
                port.port, addresses, desired.weights(), failover=desired.failover, protocol=protocol
            )
            # A preview never uses a port that a side publishes.
            if side.preview is not None and side.preview not in published and port == side.published[0]:
                weights: dict[Slot, int] = {slot: 100 if slot == desired.preview else 0 for slot in SLOTS}
                entries[side.preview] = Entry.of(side.preview, addresses, weights, protocol=protocol)
    # Sorted, because a route with a different order would replace the proxy.
    longest = max((side.max_header_bytes for side in desired.sides.values()), default=0)
    return Route(name, tuple(entries[port] for port in sorted(entries)), longest) if entries else None


def _in_force(route: Route, seen: ProxySnapshot) -> bool:
    """Whether the proxy routes as `route` says."""
    for entry in route.entries:
        if not _weighs(entry, seen):
            return False
        pools = seen.ports[entry.port].pools
        for pool in POOLS:
            if {each.address: each.backup for each in pools[pool].servers if not each.leaving} != entry.members(pool):
                return False
    return True


def _served(desired: DesiredState, seen: ProxySnapshot) -> dict[Slot, tuple[int, int]]:
    published = {port.port for side in desired.sides.values() for port in side.published}
    counted = {slot: [each.served(slot) for port, each in seen.ports.items() if port in published] for slot in SLOTS}
    return {slot: (sum(each[0] for each in own), sum(each[1] for each in own)) for slot, own in counted.items()}


def _converged(desired: DesiredState, route: Route | None, seen: ProxySnapshot) -> bool:
    live = desired.sides.get(desired.live) if desired.live else None
    if live is None or route is None:
        return True
    published = {port.port for port in live.published}
    return all(_weighs(entry, seen) for entry in route.entries if entry.port in published)


def _weighs(entry: Entry, seen: ProxySnapshot) -> bool:
    port = seen.ports.get(entry.port)
    return port is not None and (dict(port.weights), port.fails_over) == (dict(entry.weights), entry.fails_over)
