"""The route that should be in force: published ports, the replicas behind them, and each side's share of the
requests."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, Literal

from remit.api.slots import SLOTS, Slot, other
from remit.errors import DeploymentError

CLOSED: Final[Mapping[Slot, int]] = {"blue": 0, "green": 0}
"""Weights of a port that answers 503 to everything: nothing is live yet, or there is no preview now."""
Protocol = Literal["http", "tcp"]

_NAME = re.compile(r"[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?/[a-z0-9]([-a-z0-9.]{0,251}[a-z0-9])?")


@dataclass(frozen=True)
class Pool:
    """Replicas that share the requests of one side; with `failover`, those of the other side are its backups."""

    slot: Slot
    failover: bool = False


POOLS: Final = tuple(Pool(slot, failover) for slot in SLOTS for failover in (False, True))


@dataclass(frozen=True)
class Entry:
    """One published port.

    `blue` and `green` are addresses of replicas as `IP:PORT`, an IPv6 one in brackets. `green_percent` is the share of
    requests that the green side gets and blue gets the rest; None closes the port: every request is answered 503.

    With `failover`, and wherever both sides have a share, what cannot be brought to a replica of one side goes to the
    other one. With `protocol` tcp, a connection is passed through as it is: its side is chosen once.
    """

    port: int
    blue: tuple[str, ...] = ()
    green: tuple[str, ...] = ()
    green_percent: int | None = None
    failover: bool = False
    protocol: Protocol = "http"

    def __post_init__(self) -> None:
        if not 1 <= self.port <= 65535:
            raise _invalid(f"{self.port} is no port; use 1 to 65535")
        if self.green_percent is not None and not 0 <= self.green_percent <= 100:
            raise _invalid(f"port {self.port}: weights are percentages, from 0 to 100")
        for address in (*self.blue, *self.green):
            _check(address)

    @classmethod
    def of(
        cls,
        port: int,
        sides: Mapping[Slot, tuple[str, ...]],
        weights: Mapping[Slot, int],
        *,
        failover: bool = False,
        protocol: Protocol = "http",
    ) -> Entry:
        """`weights` are percentages that add up to 100, or are all 0 for a closed port.

        Raises DeploymentError for any others.
        """
        blue, green = (weights.get(slot, 0) for slot in SLOTS)
        if min(blue, green) < 0 or blue + green not in (0, 100):
            raise _invalid(f"port {port}: the weights of blue and green must add up to 100, or both be 0")
        percent = green if blue + green else None
        blue_addresses, green_addresses = (tuple(sides.get(slot, ())) for slot in SLOTS)
        return cls(port, blue_addresses, green_addresses, percent, failover, protocol)

    def side(self, slot: Slot) -> tuple[str, ...]:
        return self.blue if slot == "blue" else self.green

    @property
    def fails_over(self) -> bool:
        """Whether one side's requests may go to the other one."""
        return self.green_percent is not None and (self.failover or 0 < self.green_percent < 100)

    def members(self, pool: Pool) -> dict[str, bool]:
        """The addresses that are in a pool, and whether each is a backup: used while none of the others is up."""
        own, others = self.side(pool.slot), self.side(other(pool.slot))
        if not pool.failover:
            return dict.fromkeys(own, False)
        return {**dict.fromkeys(others, True), **dict.fromkeys(own, False)} if self.fails_over else {}

    @property
    def weights(self) -> Mapping[Slot, int]:
        if self.green_percent is None:
            return CLOSED
        return {"blue": 100 - self.green_percent, "green": self.green_percent}


@dataclass(frozen=True)
class Route:
    """All published ports of one Deployment, which is named as `namespace/name`."""

    name: str
    entries: tuple[Entry, ...]
    max_header_bytes: int = 32_768
    """How long the head of a request may be."""

    def __post_init__(self) -> None:
        check_name(self.name)
        ports = [entry.port for entry in self.entries]
        if not ports:
            raise _invalid(f"{self.name} publishes no port; there is no traffic to switch")
        if len(set(ports)) < len(ports):
            raise _invalid(f"{self.name} publishes a port twice: {', '.join(map(str, sorted(ports)))}")


def _invalid(message: str) -> DeploymentError:
    return DeploymentError(message, reason="InvalidRoute")


def check_name(name: str) -> None:
    """Raises DeploymentError unless it is `namespace/name`: it names a folder."""
    if not _NAME.fullmatch(name):
        raise _invalid(f"{name!r} is no namespace/name of a Deployment")


def _check(address: str) -> None:
    host, _, port = address.rpartition(":")
    try:
        ip = ipaddress.ip_address(host.removeprefix("[").removesuffix("]"))
        good = (
            (ip.version == 6) == host.startswith("[") and port.isascii() and port.isdigit() and 1 <= int(port) <= 65535
        )
    except ValueError:
        good = False
    if not good or "%" in host:
        raise _invalid(f"{address!r} is no address of a replica; write it as IP:PORT or [IPV6]:PORT")
