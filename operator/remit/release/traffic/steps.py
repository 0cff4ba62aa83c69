"""Which commands bring a running proxy from what is in force to what is wanted. Pure."""

from __future__ import annotations

from remit.release.traffic.configuration import WEIGHTS, added, backend, server, weight
from remit.release.traffic.route import SLOTS, Route
from remit.release.traffic.runtime import Seen


def steps(route: Route, seen: Seen) -> tuple[list[str], list[str]]:
    """Commands that must succeed, in their order, and commands that remove what may still be in use.

    Replicas come before the switch, and go after it: at no moment does a request meet a side without replicas.
    Nothing is done twice, so the same route again gives no command.
    """
    before, switch, after, removals = [], [], [], []
    for entry in route.entries:
        port = seen.ports[entry.port]
        for slot in SLOTS:
            known = {each.address: each for each in port.sides[slot].servers}
            for address in entry.side(slot):
                name = f"{backend(entry.port, slot)}/{server(address)}"
                if address not in known:
                    before += [f"add server {name} {added(address)}", f"enable health {name}"]
                if address not in known or known[address].leaving:
                    before.append(f"set server {name} state ready")
            for address in known.keys() - entry.side(slot):
                name = f"{backend(entry.port, slot)}/{server(address)}"
                if not known[address].leaving:
                    after.append(f"set server {name} state maint")
                removals.append(f"del server {name}")
        if dict(port.weights) != dict(entry.weights):
            switch.append(f"set map {WEIGHTS} {entry.port} {weight(entry)}")
    return before + switch + after, removals
