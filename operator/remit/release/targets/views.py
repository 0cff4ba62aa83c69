"""What was found of a Deployment's instances, as the state that the pipeline decides on. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from remit.api.deploymentstatus import Slot
from remit.release.model import SLOTS, InstanceView, ObservedState, SlotView
from remit.release.targets.front import Flow
from remit.release.targets.health import Health
from remit.release.targets.sides import Side, Told, address
from remit.telemetry import escape


@dataclass(frozen=True, slots=True)
class Found:
    """One instance, as it was found."""

    health: Health
    exists: bool = False
    kept: bool = False
    """It runs, or will be started again."""
    alive: bool = False
    incarnation: str = ""
    """See `InstanceView.incarnation`."""
    restarts: int = 0
    trouble: str = ""
    """What is wrong with it, or was before it was started again, for people."""

    @property
    def failed(self) -> bool:
        return self.health.unhealthy if self.alive else self.exists


def observed(
    told: Told, found: Mapping[Slot, Mapping[int, Found]], flow: Flow, prepared: frozenset[int]
) -> ObservedState:
    """`found` has each wanted instance of each side that holds something, by its index."""
    views = {slot: _view(slot, told, found, flow) for slot in SLOTS}
    return ObservedState(
        blue=views["blue"],
        green=views["green"],
        converged=flow.converged,
        live=told.live,
        share=told.share,
        failover=told.failover,
        preview=told.preview,
        prepared=prepared,
    )


def _view(slot: Slot, told: Told, found: Mapping[Slot, Mapping[int, Found]], flow: Flow) -> SlotView:
    side, connections = told.sides.get(slot), flow.in_flight.get(slot, 0)
    if side is None:
        return SlotView(connections=connections)
    own, (requests, failed_requests) = found[slot], flow.served.get(slot, (None, 0))
    failed = [index for index, each in sorted(own.items()) if each.failed]
    troubles = {index: each.trouble or _closed(each, side, index, flow) for index, each in sorted(own.items())}
    troubled = failed or [index for index, trouble in troubles.items() if trouble]
    healthy = {index for index, each in own.items() if _is_well(each) and _is_reached(side, index, flow)}
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
        message=escape(f"{slot}-{troubled[0]}: {troubles[troubled[0]]}" if troubled else flow.trouble),
        instances={
            f"{slot}-{index}": InstanceView(each.incarnation, index in healthy, each.restarts)
            for index, each in own.items()
        },
    )


def _is_well(found: Found) -> bool:
    return found.alive and found.health.healthy


def _is_reached(side: Side, index: int, flow: Flow) -> bool:
    return flow.reached is None or side.addresses_of(index) <= flow.reached


def _closed(found: Found, side: Side, index: int, flow: Flow) -> str:
    """Which ports an instance that is well does not listen at."""
    if not _is_well(found):
        return ""
    host = side.host(index)
    closed = [name for name, port in side.ports[index].items() if address(host, port) in flow.closed]
    return f"it passes its check, but takes no connections at port {', '.join(closed)}" if closed else ""
