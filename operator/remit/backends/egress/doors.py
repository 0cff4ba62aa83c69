"""Where doors come from: all of an operator share its descriptors and its look-ups of names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from remit.policy import Egress

if TYPE_CHECKING:
    from remit.backends.egress.dialing import Resolver
    from remit.backends.egress.door import Door
    from remit.backends.egress.ledger import NetworkUse
    from remit.backends.egress.proxy import Connections


class Doors:
    """`resolve` tells where the hosts are that a policy names; by default as the system does."""

    def __init__(self, resolve: Resolver | None = None) -> None:
        self._resolve = resolve
        self.connections: Connections | None = None
        """What the doors made so far hold together; None before the first."""

    def door(self, egress: Sequence[Egress], bytes_per_second: int | None, used: NetworkUse | None = None) -> Door:
        """The way out for one attempt, which `used` so much of it already."""
        # Most runs need none of it.
        from remit.backends.egress.dialing import system_resolver
        from remit.backends.egress.door import Door
        from remit.backends.egress.proxy import Connections, EgressProxy

        self.connections = self.connections or Connections()
        return Door(
            EgressProxy(
                egress,
                bytes_per_second=bytes_per_second,
                resolve=self._resolve or system_resolver,
                connections=self.connections,
                used=used,
            ),
            egress,
        )
