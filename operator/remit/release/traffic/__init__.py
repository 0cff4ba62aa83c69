"""The traffic switch: which side of a Deployment gets the requests, for targets that have no Service."""

from remit.release.traffic.probe import Probe, ProbeReport
from remit.release.traffic.route import Entry, Pool, Route
from remit.release.traffic.runtime import Port, ProxySnapshot, Server, SideStatus
from remit.release.traffic.traffic import Traffic

__all__ = ["Entry", "Pool", "Port", "Probe", "ProbeReport", "ProxySnapshot", "Route", "Server", "SideStatus", "Traffic"]
