"""Turns the statuses of instances and of the proxy into the observed state that the pipeline decides on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from remit.api.slots import SLOTS, Slot
from remit.release.model import InstanceView, ObservedState, SlotView
from remit.release.targets.desiredstate import DesiredSide, DesiredState, address
from remit.release.targets.health import Health
from remit.release.targets.loadbalancer import ProxyStatus
from remit.telemetry.logs import escape


@dataclass(frozen=True, slots=True)
class InstanceStatus:
    """One instance, as the target observed it."""

    health: Health
    exists: bool = False
    kept: bool = False
    """Whether it runs or will be restarted."""
    alive: bool = False
    incarnation: str = ""
    """See `InstanceView.incarnation`."""
    restarts: int = 0
    trouble: str = ""
    """What is wrong with it, or was wrong before its last restart, in words for people."""

    @property
    def failed(self) -> bool:
        return self.health.unhealthy if self.alive else self.exists


Instances = Mapping[Slot, Mapping[int, InstanceStatus]]
"""Instances by slot, then by index."""


def observed(
    desired: DesiredState, instances: Instances, proxy: ProxyStatus, prepared: frozenset[int]
) -> ObservedState:
    """`instances`: the wanted ones of each side that holds a revision. `prepared`: the revisions with an artifact."""
    views = {slot: _view(slot, desired, instances, proxy) for slot in SLOTS}
    return ObservedState(
        blue=views["blue"],
        green=views["green"],
        converged=proxy.converged,
        live=desired.live,
        share=desired.share,
        failover=desired.failover,
        preview=desired.preview,
        prepared=prepared,
    )


def _view(slot: Slot, desired: DesiredState, instances: Instances, proxy: ProxyStatus) -> SlotView:
    side, connections = desired.sides.get(slot), proxy.in_flight.get(slot, 0)
    if side is None:
        return SlotView(connections=connections)
    own, (requests, failed_requests) = instances[slot], proxy.served.get(slot, (None, 0))
    failed = [index for index, each in sorted(own.items()) if each.failed]
    troubles = {index: each.trouble or _closed(each, side, index, proxy) for index, each in sorted(own.items())}
    troubled = failed or [index for index, trouble in troubles.items() if trouble]
    healthy = {index for index, each in own.items() if _is_well(each) and _is_reached(side, index, proxy)}
    return SlotView(
        revision=side.revision,
        wanted=side.wanted,
        started=sum(each.kept for each in own.values()),
        healthy=len(healthy),
        failed=len(failed),
        restarts=side.restarts + sum(each.restarts for each in own.values()),
        draining=side.draining,
        connections=connections,
        requests=requests,
        failed_requests=failed_requests,
        message=escape(f"{slot}-{troubled[0]}: {troubles[troubled[0]]}" if troubled else proxy.trouble),
        instances={
            f"{slot}-{index}": InstanceView(each.incarnation, index in healthy, each.restarts)
            for index, each in own.items()
        },
    )


def _is_well(instance: InstanceStatus) -> bool:
    return instance.alive and instance.health.healthy


def _is_reached(side: DesiredSide, index: int, proxy: ProxyStatus) -> bool:
    return proxy.reached is None or side.addresses_of(index) <= proxy.reached


def _closed(instance: InstanceStatus, side: DesiredSide, index: int, proxy: ProxyStatus) -> str:
    """Says at which ports a healthy instance does not listen; empty if at none."""
    if not _is_well(instance):
        return ""
    host = side.host(index)
    closed = [name for name, port in side.ports[index].items() if address(host, port) in proxy.closed]
    return f"it passes its check, but takes no connections at port {', '.join(closed)}" if closed else ""
