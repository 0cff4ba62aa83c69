"""The egress proxy's port inside a sandbox: it is on the sandbox's own loopback, and the operator accepts on it."""

from __future__ import annotations

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Iterable, Sequence
from typing import Final

from remit.backends.egress.proxy import EgressProxy
from remit.backends.egress.usage import NetworkUse
from remit.policy.egress import Egress
from remit.policy.hosts import Address, canonical_host
from remit.sandbox import Listen, ProcessHandle, fork_server

PORT: Final = 3128
_SECONDS: Final = 10.0
_URL: Final = f"http://127.0.0.1:{PORT}"
_LOOPBACK: Final = {
    "localhost": (ipaddress.ip_address("127.0.0.1"), ipaddress.ip_address("::1")),
    "127.0.0.1": (ipaddress.ip_address("127.0.0.1"),),
    "::1": (ipaddress.ip_address("::1"),),
}
"""Names of the loopback, and their addresses."""


def proxy_environment(egress: Sequence[Egress]) -> dict[str, str]:
    """The variables by which programs find the proxy.

    `NO_PROXY` has the names of the sandbox's own loopback, on which the attempt's own servers listen. A name that
    `egress` lets through means the operator's host, and is left to the proxy. Programs take `localhost` for all names
    below it too, so one of these that is let through keeps it out.
    """
    listed = {
        name
        for name, addresses in _LOOPBACK.items()
        if any(_is_listed(each, addresses, egress) for each in (name, *_names_below(name, egress)))
    }
    return proxy_variables(_URL, [name for name in _LOOPBACK if name not in listed])


def proxy_variables(url: str, own: Iterable[str] = tuple(_LOOPBACK)) -> dict[str, str]:
    """The variables that lead to the proxy at `url`, except for the hosts `own`."""
    proxies = {f"{scheme}_PROXY": url for scheme in ("HTTP", "HTTPS", "ALL")}
    upper = {**proxies, "NO_PROXY": ",".join(own)}
    return {**upper, **{name.lower(): value for name, value in upper.items()}}


def _names_below(name: str, egress: Sequence[Egress]) -> set[str]:
    """Names below `name` that rules mean: for a wildcard, some name that it matches."""
    patterns = [pattern for policy in egress for rule in policy.rules for pattern in rule.hosts]
    hosts = {f"any.{pattern.host}" if pattern.below else str(pattern.host) for pattern in patterns}
    return {host for host in hosts if host.endswith(f".{name}")}


def _is_listed(name: str, addresses: Sequence[Address], egress: Sequence[Egress]) -> bool:
    """Whether all policies let through some port of `name` at one of `addresses`."""
    host = canonical_host(name)
    for address in addresses:
        ports = [
            {
                port
                for rule in policy.rules
                if any(pattern.matches(host) for pattern in rule.hosts) and rule.admits(address, own=True)
                for port in rule.ports
            }
            for policy in egress
        ]
        if ports and set.intersection(*ports):
            return True
    return False


class EgressListener:
    """The port of one attempt. Open it once the network namespace exists and before the command starts; close it when
    the attempt is dead."""

    def __init__(self, proxy: EgressProxy, egress: Sequence[Egress]) -> None:
        self._proxy = proxy
        self.environment = proxy_environment(egress)
        """Variables that point programs to the proxy. A program that ignores them reaches nothing."""

    @property
    def use(self) -> NetworkUse:
        """The network use so far."""
        return self._proxy.use

    async def open(self, init: ProcessHandle, *, owned: bool = True) -> None:
        """Listen inside the network namespace of `init`. See `Listen` for `owned`. Raises OSError."""
        await self._proxy.start(await asyncio.to_thread(_listening_socket, init, owned))

    async def close(self) -> NetworkUse:
        await self._proxy.close()
        return self._proxy.use


def _listening_socket(init: ProcessHandle, owned: bool) -> socket.socket:
    """Create the socket inside the namespace. A socket stays in the namespace where it was created, whoever accepts."""
    with contextlib.closing(fork_server().begin(Listen(init.pid, PORT, owned=owned))) as job:
        job.wait(_SECONDS)
        if not job.descriptors:
            raise OSError("no socket could be made in the sandbox")
        listener = socket.socket(fileno=job.descriptors[0])
    if init.dead:
        listener.close()
        raise ProcessLookupError("the sandbox ended before it began")  # another process may already have its PID
    return listener
