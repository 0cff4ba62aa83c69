"""Hosts as policies name them: by label, and by address or range of addresses. Never by characters. Pure."""

from __future__ import annotations

import ipaddress
import re
from dataclasses import dataclass
from typing import Final

from remit.policy.addresses import Network
from remit.policy.hosts import BadHost, Host, canonical_host

ANY: Final = "*"
_WILDCARD: Final = "*."
_OCTETS: Final = re.compile(r"((?:[0-9]{1,3}\.){1,3})\*((?:\.\*)*)")


@dataclass(frozen=True, slots=True)
class HostPattern:
    """A host as a rule names it: exactly, as everything below a domain (`*.example.com`), or as everything (`*`)."""

    host: Host
    below: bool = False
    """Whether the names below `host` are meant, and not `host` itself."""

    @classmethod
    def parse(cls, text: str) -> HostPattern:
        """Raises `BadHost`."""
        if text == ANY:
            return cls(ANY)
        below = text.startswith(_WILDCARD)
        host = canonical_host(text.removeprefix(_WILDCARD))
        if below and not isinstance(host, str):
            raise BadHost(f"{text!r} is a wildcard in front of an address; list addresses one by one")
        return cls(host, below)

    def matches(self, host: Host) -> bool:
        if self.host == ANY:
            return True
        return isinstance(host, str) and host.endswith(f".{self.host}") if self.below else host == self.host


@dataclass(frozen=True, slots=True)
class RangePattern:
    """A range of addresses, as `10.0.0.0/24` or `10.0.0.*`. No name is in it, wherever it leads."""

    network: Network

    def matches(self, host: Host) -> bool:
        return not isinstance(host, str) and host.version == self.network.version and host in self.network


def host_or_range(text: str) -> HostPattern | RangePattern:
    """An IPv6 address or range stands in brackets. Raises `BadHost`."""
    inner = text[1:-1] if text.startswith("[") and text.endswith("]") else text
    if match := _OCTETS.fullmatch(inner):
        fixed = match[1].count(".")
        if fixed + 1 + match[2].count("*") != 4:
            raise BadHost(f"{text[:80]!r} is not a range of addresses; write it like 10.0.0.* or 10.0.0.0/24")
        inner = f"{match[1]}{'.'.join(['0'] * (4 - fixed))}/{8 * fixed}"
    if "/" not in inner:
        return HostPattern.parse(text)
    try:
        return RangePattern(ipaddress.ip_network(inner))
    except ValueError as error:
        raise BadHost(f"{text[:80]!r} is not a range of addresses: {error}") from None
