"""The traffic switch: which side of a Deployment gets the requests, for targets that have no Service."""

from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.release.traffic.probe import Probe, ProbeReport
    from remit.release.traffic.route import Entry, Pool, Route
    from remit.release.traffic.runtime import Port, ProxySnapshot, Server, SideStatus
    from remit.release.traffic.traffic import Traffic
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["Entry", "Pool", "Port", "Probe", "ProbeReport", "ProxySnapshot", "Route", "Server", "SideStatus", "Traffic"]
