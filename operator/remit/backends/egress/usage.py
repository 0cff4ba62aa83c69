"""Counts the network use of an attempt by destination, for status and the audit trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from remit.policy.hosts import Destination

_KEPT_DESTINATIONS: Final = 64
_MOST_REASON: Final = 500
"""Characters of a reason that are kept."""
OTHERS: Final = "(others)"
"""Stands for all destinations after the first `_KEPT_DESTINATIONS`."""
_MALFORMED: Final = "(malformed)"


@dataclass(frozen=True, slots=True)
class DestinationUse:
    """The traffic of one destination, such as `api.example.com:443`."""

    destination: str
    connections: int
    denied: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """The network use of an attempt. `last_denied` says why the last refused connection was refused."""

    connections: int = 0
    denied: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    last_denied: str = ""
    destinations: tuple[DestinationUse, ...] = ()

    @classmethod
    def restored(cls, kept: Mapping[str, Any]) -> Self:
        """Restore from its JSON form. Raises TypeError or LookupError if the JSON has another form."""
        destinations = tuple(DestinationUse(**use) for use in kept["destinations"])
        return cls(**{**kept, "destinations": destinations})


@dataclass(slots=True)
class DestinationCounter:
    """The counters of one destination."""

    connections: int = 0
    denied: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(slots=True)
class UsageCounter:
    """Counts the network use of one attempt, with one `DestinationCounter` for all destinations after the first 64."""

    last_denied: str = ""
    _counts: dict[str, DestinationCounter] = field(default_factory=dict)

    @classmethod
    def carried_on(cls, use: NetworkUse) -> UsageCounter:
        """Continue from an earlier count."""
        counts = {
            each.destination: DestinationCounter(each.connections, each.denied, each.sent_bytes, each.received_bytes)
            for each in use.destinations
        }
        return cls(use.last_denied, counts)

    def connected(self, destination: Destination) -> DestinationCounter:
        counts = self._counts_of(str(destination))
        counts.connections += 1
        return counts

    def denied(self, destination: Destination | None, why: str) -> bool:
        """Count a refusal; `destination` is None if the request named none. True if it is the destination's first."""
        counts = self._counts_of(str(destination) if destination else _MALFORMED)
        counts.denied += 1
        self.last_denied = why if len(why) <= _MOST_REASON else f"{why[:_MOST_REASON]}…"
        return counts.denied == 1

    @property
    def use(self) -> NetworkUse:
        counts = self._counts.values()
        return NetworkUse(
            connections=sum(counts.connections for counts in counts),
            denied=sum(counts.denied for counts in counts),
            sent_bytes=sum(counts.sent_bytes for counts in counts),
            received_bytes=sum(counts.received_bytes for counts in counts),
            last_denied=self.last_denied,
            destinations=tuple(
                DestinationUse(name, counts.connections, counts.denied, counts.sent_bytes, counts.received_bytes)
                for name, counts in self._counts.items()
            ),
        )

    def _counts_of(self, name: str) -> DestinationCounter:
        if name not in self._counts and len(self._counts) >= _KEPT_DESTINATIONS:
            name = OTHERS
        return self._counts.setdefault(name, DestinationCounter())
