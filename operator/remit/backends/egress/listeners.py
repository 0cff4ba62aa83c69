"""Creates the egress listeners of an operator's attempts, which share a limit of connections and of DNS lookups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from remit.policy.egress import Egress

if TYPE_CHECKING:
    from remit.backends.egress.dialing import Resolver
    from remit.backends.egress.listener import EgressListener
    from remit.backends.egress.proxy import Connections
    from remit.backends.egress.usage import NetworkUse


class EgressListeners:
    """Creates a listener for each attempt. `resolve` resolves host names; by default, the system does."""

    def __init__(self, resolve: Resolver | None = None) -> None:
        self._resolve = resolve
        self.connections: Connections | None = None
        """The connections of all listeners so far; None before the first listener."""

    def create(
        self, egress: Sequence[Egress], bytes_per_second: int | None, used: NetworkUse | None = None
    ) -> EgressListener:
        """A listener for one attempt. `used` is the network use that the attempt had before."""
        # Imported here because most runs do not need it.
        from remit.backends.egress.dialing import system_resolver
        from remit.backends.egress.listener import EgressListener
        from remit.backends.egress.proxy import Connections, EgressProxy

        self.connections = self.connections or Connections()
        return EgressListener(
            EgressProxy(
                egress,
                bytes_per_second=bytes_per_second,
                resolve=self._resolve or system_resolver,
                connections=self.connections,
                used=used,
            ),
            egress,
        )
