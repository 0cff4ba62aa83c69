"""The filtering proxy for `network: restricted`."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.backends.egress.dialing import Resolver, system_resolver
    from remit.backends.egress.gatewayconfig import GatewayConfig
    from remit.backends.egress.gatewayrecords import GatewayRecord
    from remit.backends.egress.listener import PORT, EgressListener, proxy_environment, proxy_variables
    from remit.backends.egress.listeners import EgressListeners
    from remit.backends.egress.proxy import Connections, EgressProxy, ProxyLimits
    from remit.backends.egress.usage import DestinationUse, NetworkUse
    from remit.backends.egress.usagestore import UsageStore
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = [
    "PORT",
    "Connections",
    "DestinationUse",
    "EgressListener",
    "EgressListeners",
    "EgressProxy",
    "GatewayConfig",
    "GatewayRecord",
    "NetworkUse",
    "ProxyLimits",
    "Resolver",
    "UsageStore",
    "proxy_environment",
    "proxy_variables",
    "system_resolver",
]
