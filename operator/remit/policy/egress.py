"""Decides where a task may connect to: by name and port first, and then by the address that the name turns out to have.
Pure.

The two steps are apart because a name is only resolved once it is allowed, and because only the address that was
judged may be connected to: a second look-up could say something else.

    match permits(destination, every policy's rules):
        case Forbidden(message): …
        case Permit() as permit:
            usable, objection = permit.screen(resolve(destination.host))
"""

from __future__ import annotations

import ipaddress
from collections.abc import Container, Iterable
from dataclasses import dataclass

from remit.policy.addresses import METADATA, OWN, Network, admitted, special_kind
from remit.policy.hostpatterns import HostPattern
from remit.policy.hosts import Address, Destination, plain_address


@dataclass(frozen=True, slots=True)
class EgressRule:
    """One entry of `spec.egress.allow`; `name` is such as `egress.allow[2]`."""

    name: str
    hosts: tuple[HostPattern, ...]
    ports: frozenset[int]
    addresses: tuple[Network, ...] = ()
    """Networks that may be connected to although they are not public."""

    def matches(self, destination: Destination) -> bool:
        return destination.port in self.ports and any(host.matches(destination.host) for host in self.hosts)

    def admits(self, address: Address, *, own: bool = False) -> bool:
        """Whether an address of a host that matches may be connected to. To list an address as a host names it. `own`:
        it is the machine's own, where a firewall or a listener that trusts the machine may let it reach more."""
        listed = [pattern.host for pattern in self.hosts if not isinstance(pattern.host, str)]
        return admitted(address, (*self.addresses, *map(ipaddress.ip_network, listed)), own=own)


@dataclass(frozen=True, slots=True)
class Egress:
    """All rules of one policy, by its name. None of them: nothing can be reached."""

    policy: str
    rules: tuple[EgressRule, ...] = ()


@dataclass(frozen=True, slots=True)
class Forbidden:
    """Why not, and which field of which policy would have to say otherwise."""

    message: str


@dataclass(frozen=True, slots=True)
class Permit:
    """A destination that every policy's rules allow by name. Its addresses are still to be judged, each by itself."""

    destination: Destination
    egress: tuple[Egress, ...]
    """The matching rules of each policy."""

    def screen(self, addresses: Iterable[Address], own: Container[Address] = ()) -> tuple[list[Address], str | None]:
        """Select the addresses that may be connected to, in their order, and the objection to the first that may not.
        `own` are those of the machine that connects."""
        usable, first = [], None
        for address in map(plain_address, addresses):
            if objection := self._objection(address, own=address in own):
                first = first or objection
            else:
                usable.append(address)
        return usable, first

    def _objection(self, address: Address, *, own: bool) -> str | None:
        for egress in self.egress:
            if not any(rule.admits(address, own=own) for rule in egress.rules):
                return _not_admitted(self.destination, address, egress)
        return None


def permits(destination: Destination, egress: Iterable[Egress]) -> Permit | Forbidden:
    """Hold a destination against the rules of every policy that has a say: all must allow it. No policy: forbidden."""
    matching = []
    for policy in egress:
        rules = tuple(rule for rule in policy.rules if rule.matches(destination))
        if not rules:
            return Forbidden(_not_listed(destination, policy))
        matching.append(Egress(policy.policy, rules))
    return Permit(destination, tuple(matching)) if matching else Forbidden(f"nothing allows {destination}")


def objection(destination: Destination, egress: Iterable[Egress]) -> str | None:
    """Why it cannot be reached, as far as it can be told without resolving a name; None where it can."""
    permit = permits(destination, egress)
    if isinstance(permit, Forbidden):
        return permit.message
    return None if isinstance(destination.host, str) else permit.screen([destination.host])[1]


def _not_listed(destination: Destination, egress: Egress) -> str:
    where = f"policy {egress.policy}"
    if not egress.rules:
        return f"{destination} is not allowed: {where} has no spec.egress.allow"
    about = next((rule for rule in egress.rules if any(host.matches(destination.host) for host in rule.hosts)), None)
    if about is not None:
        return f"port {destination.port} of {destination.host} is not in spec.{about.name}.ports of {where}"
    return f"{destination} is not allowed: no spec.egress.allow[].hosts of {where} names {destination.host}"


def _not_admitted(destination: Destination, address: Address, egress: Egress) -> str:
    kind = special_kind(address) or OWN
    found = f"{address}, {kind}" if destination.host == address else f"{destination.host} leads to {address}, {kind}"
    how = f"{address}/{address.max_prefixlen}" if kind == METADATA else "a network that holds it"
    return f"{found}: policy {egress.policy} would have to list {how} in spec.{egress.rules[0].name}.addresses"
