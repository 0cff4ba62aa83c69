"""What went where, counted: for status, for the audit trail, and never with more than the destination's name."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from remit.policy import Destination

_KEPT_DESTINATIONS: Final = 64
_MOST_WORDS: Final = 500
"""In characters, of a reason."""
OTHERS: Final = "(others)"
"""In the place of the destinations after those that are kept."""
_MALFORMED: Final = "(malformed)"


@dataclass(frozen=True, slots=True)
class DestinationUse:
    """What went to one destination, such as `api.example.com:443`."""

    destination: str
    connections: int
    denied: int
    sent_bytes: int
    received_bytes: int


@dataclass(frozen=True, slots=True)
class NetworkUse:
    """What an attempt did with its network. `last_denied` says in a sentence why a connection was refused."""

    connections: int = 0
    denied: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0
    last_denied: str = ""
    destinations: tuple[DestinationUse, ...] = ()

    @classmethod
    def restored(cls, kept: Mapping[str, Any]) -> Self:
        """From JSON that was made of one. Raises TypeError or LookupError where it is none."""
        destinations = tuple(DestinationUse(**use) for use in kept["destinations"])
        return cls(**{**kept, "destinations": destinations})


@dataclass(slots=True)
class Account:
    """One destination's counters."""

    connections: int = 0
    denied: int = 0
    sent_bytes: int = 0
    received_bytes: int = 0


@dataclass(slots=True)
class Ledger:
    """The accounts of one attempt: one a destination, and one for all that come after the first 64."""

    last_denied: str = ""
    _accounts: dict[str, Account] = field(default_factory=dict)

    @classmethod
    def carried_on(cls, use: NetworkUse) -> Ledger:
        """The ledger that came so far."""
        accounts = {
            each.destination: Account(each.connections, each.denied, each.sent_bytes, each.received_bytes)
            for each in use.destinations
        }
        return cls(use.last_denied, accounts)

    def connected(self, destination: Destination) -> Account:
        account = self._account(str(destination))
        account.connections += 1
        return account

    def denied(self, destination: Destination | None, why: str) -> bool:
        """Count a refusal; None where the request named no destination. True if it is the first of its destination."""
        account = self._account(str(destination) if destination else _MALFORMED)
        account.denied += 1
        self.last_denied = why if len(why) <= _MOST_WORDS else f"{why[:_MOST_WORDS]}…"
        return account.denied == 1

    @property
    def use(self) -> NetworkUse:
        accounts = self._accounts.values()
        return NetworkUse(
            connections=sum(account.connections for account in accounts),
            denied=sum(account.denied for account in accounts),
            sent_bytes=sum(account.sent_bytes for account in accounts),
            received_bytes=sum(account.received_bytes for account in accounts),
            last_denied=self.last_denied,
            destinations=tuple(
                DestinationUse(name, account.connections, account.denied, account.sent_bytes, account.received_bytes)
                for name, account in self._accounts.items()
            ),
        )

    def _account(self, name: str) -> Account:
        if name not in self._accounts and len(self._accounts) >= _KEPT_DESTINATIONS:
            name = OTHERS
        return self._accounts.setdefault(name, Account())
