"""The configuration of an egress gateway: the rules of one attempt as they were judged, and its token. Pure."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Self

import orjson

from remit.policy.egress import Egress, EgressRule
from remit.policy.hostpatterns import HostPattern


@dataclass(frozen=True, slots=True)
class GatewayConfig:
    """`token` is the password that clients have to present."""

    egress: tuple[Egress, ...]
    token: str = field(repr=False)
    bytes_per_second: int | None = None

    def dumped(self) -> bytes:
        """The configuration as JSON, for `load`."""
        return orjson.dumps(
            {
                "egress": [
                    {"policy": each.policy, "rules": [_dumped(rule) for rule in each.rules]} for each in self.egress
                ],
                "token": self.token,
                "bytesPerSecond": self.bytes_per_second,
            }
        )

    @classmethod
    def load(cls, text: bytes) -> Self:
        """Raises ValueError where anything is missing or unknown: rules that are not understood must not be dropped."""
        try:
            found = orjson.loads(text)
            egress = tuple(Egress(each["policy"], tuple(map(_rule, each["rules"]))) for each in found["egress"])
            token, rate = found["token"], found["bytesPerSecond"]
        except (LookupError, TypeError, AttributeError) as error:
            raise ValueError(f"not a gateway's configuration: {error!r}") from None
        if not (isinstance(token, str) and token):
            raise ValueError("not a gateway's configuration: it has no token")
        if rate is not None and not (isinstance(rate, int) and rate > 0):
            raise ValueError("not a gateway's configuration: bytesPerSecond is not a positive number")
        return cls(egress, token, rate)


def _dumped(rule: EgressRule) -> dict[str, Any]:
    return {
        "name": rule.name,
        "hosts": [f"*.{each.host}" if each.below else str(each.host) for each in rule.hosts],
        "ports": sorted(rule.ports),
        "addresses": [str(network) for network in rule.addresses],
    }


def _rule(found: Mapping[str, Any]) -> EgressRule:
    hosts = tuple(map(HostPattern.parse, found["hosts"]))
    networks = tuple(ipaddress.ip_network(text) for text in found["addresses"])
    return EgressRule(found["name"], hosts, frozenset(map(int, found["ports"])), networks)
