"""The filtering proxy for `network: restricted`."""

from remit.backends.egress.dialing import Resolver
from remit.backends.egress.ledger import DestinationUse, NetworkUse
from remit.backends.egress.proxy import Connections, EgressProxy, ProxyLimits

__all__ = ["Connections", "DestinationUse", "EgressProxy", "NetworkUse", "ProxyLimits", "Resolver"]
