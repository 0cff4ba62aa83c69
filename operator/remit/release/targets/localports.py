"""Ports for instances on this host."""

from __future__ import annotations

import random
import socket
from collections.abc import Collection
from pathlib import Path
from typing import Final

from remit.errors import DeploymentError

_EPHEMERAL: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_MANY: Final = 12_000
_LOWEST: Final = 10_000
_HIGHEST: Final = 65_535


def free_ports(names: Collection[str], taken: Collection[int] = ()) -> dict[str, int]:
    """A port for each name that nobody listens on now, and none of `taken`.

    They are from outside the range that the kernel takes the ports of outgoing connections from. Out of it, any
    connection could get the port of an instance that is only starting, or that is started again; a check of one that
    does not listen could even reach itself.
    """
    candidates = [port for port in _candidates() if port not in taken]
    random.shuffle(candidates)
    found: list[int] = []
    while len(found) < len(names):
        if not candidates:
            raise DeploymentError("no local port is free", reason="PortTaken", retryable=True)
        if _free(port := candidates.pop()):
            found.append(port)
    return dict(zip(names, found, strict=True))


def _candidates() -> range:
    """Below the ephemeral range, or else above it; where that leaves too few, in it."""
    low, high = (int(word) for word in _EPHEMERAL.read_text().split())
    below, above = range(max(_LOWEST, low - _MANY), low), range(high + 1, _HIGHEST + 1)
    return max(below, above, key=len) if max(len(below), len(above)) >= 1000 else range(low, high + 1)


def _free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("", port))
        except OSError:
            return False
    return True
