"""The filtering proxy for `network: restricted`."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.backends.egress.books import Books
    from remit.backends.egress.dialing import Resolver, system_resolver
    from remit.backends.egress.door import PORT, Door, proxy_environment, proxy_variables
    from remit.backends.egress.doors import Doors
    from remit.backends.egress.gatewayconfig import GatewayConfig
    from remit.backends.egress.gatewayrecords import GatewayRecord
    from remit.backends.egress.ledger import DestinationUse, NetworkUse
    from remit.backends.egress.proxy import Connections, EgressProxy, ProxyLimits
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "PORT",
    "Books",
    "Connections",
    "DestinationUse",
    "Door",
    "Doors",
    "EgressProxy",
    "GatewayConfig",
    "GatewayRecord",
    "NetworkUse",
    "ProxyLimits",
    "Resolver",
    "proxy_environment",
    "proxy_variables",
    "system_resolver",
]
