"""The filtering proxy for `network: restricted`."""

from remit.backends.egress.dialing import Resolver, system_resolver
from remit.backends.egress.door import ENVIRONMENT, Door
from remit.backends.egress.ledger import DestinationUse, NetworkUse
from remit.backends.egress.proxy import Connections, EgressProxy, ProxyLimits

__all__ = [
    "ENVIRONMENT",
    "Connections",
    "DestinationUse",
    "Door",
    "EgressProxy",
    "NetworkUse",
    "ProxyLimits",
    "Resolver",
    "system_resolver",
]
