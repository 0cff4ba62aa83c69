"""Live traffic of releases: what their proxies count, asked for once a second while somebody looks.

A proxy says who it is only to the user that started it, through a socket in the operator's state directory. So it is
asked only about Deployments that the viewer may get, and nothing but what it shows.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from remit.api.slots import SLOTS, Slot
from remit.errors import DeploymentError

if TYPE_CHECKING:
    from remit.release.traffic.runtime import ProxySnapshot

SECONDS: Final = 60
_APART: Final = 0.8
_MOST_RELEASES: Final = 50
_LOOK_SECONDS: Final = 2.0
_LONGEST_APART: Final = 10.0
"""Between two looks that a rate is made of."""


@dataclass(frozen=True, slots=True)
class SideTraffic:
    """The traffic of one side, over all published ports."""

    rate: float
    """Requests or connections a second, between the last two looks."""
    failed_rate: float
    """Requests a second that were answered with a 5xx status."""
    total: int
    failed: int
    in_flight: int
    weight: int
    """Percent of the new requests that it gets."""
    history: Sequence[float]
    """The rates of the last minute, the newest last."""


@dataclass
class _Watched:
    at: float = 0.0
    pid: int = 0
    counts: Mapping[Slot, tuple[int, int]] = field(default_factory=dict)
    rates: dict[Slot, deque[float]] = field(default_factory=lambda: {slot: deque(maxlen=SECONDS) for slot in SLOTS})
    sides: Mapping[Slot, SideTraffic] = field(default_factory=dict)


class TrafficMeter:
    """`state_dirs` are those of operators on this machine."""

    def __init__(self, state_dirs: Sequence[Path]) -> None:
        self._state_dirs = state_dirs
        self._watched: dict[str, _Watched] = {}
        self._turn = asyncio.Lock()

    async def look(self, key: str, ports: Collection[int]) -> Mapping[Slot, SideTraffic]:
        """Measure the requests of each side of a Deployment, `namespace/name`, at its published `ports`; empty if no
        proxy of it is on this machine."""
        async with self._turn:
            watched = self._watched.setdefault(key, _Watched())
            if len(self._watched) > _MOST_RELEASES:
                del self._watched[min(self._watched, key=lambda each: self._watched[each].at)]
            if time.monotonic() - watched.at >= _APART:
                seen = await self._ask(key)
                watched.sides = _measured(watched, seen, ports, time.monotonic()) if seen is not None else {}
            return watched.sides

    async def _ask(self, key: str) -> ProxySnapshot | None:
        from remit.release.traffic.traffic import live_proxy  # only pages of releases need it

        for state_dir in self._state_dirs:
            try:
                async with asyncio.timeout(_LOOK_SECONDS):
                    return await live_proxy(state_dir / "traffic", key)
            except (OSError, DeploymentError):  # TimeoutError is a subclass of OSError
                continue
        return None


def _measured(
    watched: _Watched, seen: ProxySnapshot, published: Collection[int], now: float
) -> Mapping[Slot, SideTraffic]:
    ports = [port for number, port in seen.ports.items() if number in published]
    counts = {slot: _total([port.served(slot) for port in ports]) for slot in SLOTS}
    apart = now - watched.at
    known = watched.counts if watched.pid == seen.pid and 0 < apart < _LONGEST_APART else counts
    sides = {}
    for slot in SLOTS:
        rate, failed = (
            max(0, new - old) / max(apart, _APART) for new, old in zip(counts[slot], known[slot], strict=True)
        )
        watched.rates[slot].append(rate)
        weights = [port.weights.get(slot, 0) for port in ports]
        sides[slot] = SideTraffic(
            rate, failed, *counts[slot], seen.in_flight(slot), max(weights, default=0), list(watched.rates[slot])
        )
    watched.at, watched.pid, watched.counts = now, seen.pid, counts
    return sides


def _total(served: Sequence[tuple[int, int]]) -> tuple[int, int]:
    return sum(each[0] for each in served), sum(each[1] for each in served)
