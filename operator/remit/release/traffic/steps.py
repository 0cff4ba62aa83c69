"""Computes the commands that bring a running proxy to the wanted configuration. Pure."""

from __future__ import annotations

from dataclasses import dataclass, field

from remit.api.slots import other
from remit.release.traffic.configuration import WEIGHTS, added, backend, server, weight
from remit.release.traffic.route import POOLS, Entry, Pool, Route
from remit.release.traffic.runtime import Port, ProxySnapshot, SideStatus


@dataclass(frozen=True, slots=True)
class Steps:
    """Commands in this order. Those of `join`, `switch` and `leave` must succeed."""

    join: list[str] = field(default_factory=list)
    """Replicas come, as down: until a check has found them up they get no request."""
    switch: list[str] = field(default_factory=list)
    leave: list[str] = field(default_factory=list)
    """Replicas get no new requests."""
    remove: list[str] = field(default_factory=list)
    """Replicas go. One that is still in use stays, and is tried again the next time."""


def steps(route: Route, seen: ProxySnapshot) -> Steps:
    """Replicas come before the switch, and go after it: at no moment does a request meet a side without replicas.

    Nothing is done twice, so the same route again gives no command, except that replicas leave which had to stay.
    """
    result = Steps()
    for entry in route.entries:
        port = seen.ports[entry.port]
        for pool in POOLS:
            _bring_members(result, entry, pool, port)
        if (dict(port.weights), port.fails_over) != (dict(entry.weights), entry.fails_over):
            result.switch.append(f"set map {WEIGHTS} {entry.port} {weight(entry)}")
    return result


def _bring_members(result: Steps, entry: Entry, pool: Pool, port: Port) -> None:
    status, wanted = port.pools.get(pool, SideStatus()), entry.members(pool)
    known, staying = {(each.address, each.backup): each for each in status.servers}, _staying(entry, pool, port)
    for address, backup in wanted.items():
        name = f"{backend(entry.port, pool)}/{server(address, backup=backup)}"
        before = known.get((address, backup))
        if before is None:
            result.join.append(f"add server {name} {added(address, pool, backup=backup)} weight 0")
            result.join.append(f"enable health {name}")
        if before is None or before.leaving:
            # `state ready` sets the server up, and only then can it be set down. Until then its weight is 0.
            words = ("state ready", "health down", "weight 1")
            result.join.extend(f"set server {name} {word}" for word in words)
    for (address, backup), each in known.items():
        if wanted.get(address) == backup or staying.get(address) == backup:
            continue
        name = f"{backend(entry.port, pool)}/{server(address, backup=backup)}"
        if not each.leaving:
            result.leave.extend(f"set server {name} {word}" for word in ("state maint", "weight 0"))
        result.remove.append(f"del server {name}")


def _staying(entry: Entry, pool: Pool, port: Port) -> dict[str, bool]:
    """Select the replicas that stay in a pool with failover although no new requests come to it: those of sides that
    have a share. Without them, its requests that have no connection yet would be answered 503."""
    if not pool.failover or entry.fails_over:
        return {}
    status = port.pools.get(pool, SideStatus())
    staying = [
        each
        for each in status.servers
        if not each.leaving
        and entry.weights[slot := other(pool.slot) if each.backup else pool.slot]
        and each.address in entry.side(slot)
    ]
    if port.fails_over or status.in_flight > sum(each.in_flight for each in staying):
        return {each.address: each.backup for each in staying}
    return {}


def unfound(route: Route, seen: ProxySnapshot) -> set[str]:
    """The addresses to wait for after `join`: those that no check has found up or down yet, and those that are not up
    on a side whose share of the requests is about to grow."""
    result = set()
    for entry in route.entries:
        port = seen.ports[entry.port]
        for pool in POOLS:
            wanted, grows = entry.members(pool), entry.weights[pool.slot] > port.weights[pool.slot]
            own = (
                each for each in port.pools.get(pool, SideStatus()).servers if wanted.get(each.address) == each.backup
            )
            result |= {each.address for each in own if not each.checked or (grows and not each.backup and not each.up)}
    return result
