"""The proxy of one attempt: the only way out of a sandbox with `network: restricted`.

It runs in the operator, outside the sandbox, and accepts on sockets that are inside: what it connects to it resolves,
judges and opens by itself.
"""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import structlog

from remit.backends.egress.client import Patience, serve
from remit.backends.egress.dialing import Dialer, Lookups, Resolver, system_resolver
from remit.backends.egress.pacing import Pace
from remit.backends.egress.targets import refusal
from remit.backends.egress.usage import NetworkUse, UsageCounter
from remit.policy.egress import Egress

log = structlog.get_logger(__name__)

_DESCRIPTORS: Final = 2
"""File descriptors of one connection through the proxy."""


@dataclass(frozen=True, slots=True)
class ProxyLimits:
    """The operator's resources that one attempt may hold."""

    connections: int = 64
    resolve_seconds: float = 5.0
    connect_seconds: float = 10.0
    patience: Patience = field(default_factory=Patience)


class Connections:
    """The limits that all proxies share: how many connections they may hold together, at most half of the operator's
    descriptors, and how many names may be looked up for each namespace."""

    def __init__(self, most: int | None = None) -> None:
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
        self.most = soft // 2 // _DESCRIPTORS if most is None else most
        self.now = 0
        self.lookups = Lookups()


class EgressProxy:
    """`start` it with the sockets to accept on, which become its own; `close` it when the attempt is dead."""

    def __init__(
        self,
        egress: Sequence[Egress],
        *,
        bytes_per_second: int | None = None,
        resolve: Resolver = system_resolver,
        limits: ProxyLimits | None = None,
        connections: Connections | None = None,
        used: NetworkUse | None = None,
        token: str = "",
    ) -> None:
        """`used` is what went over before, by an earlier proxy of the same attempt. `token`: the password without which
        nobody is served; empty: whoever reaches it is."""
        self._counter = UsageCounter.carried_on(used) if used else UsageCounter()
        self._token = token
        self._limits = limits or ProxyLimits()
        self._all = connections or Connections()
        self._dialer = Dialer(
            egress=tuple(egress),
            counter=self._counter,
            pace=Pace(bytes_per_second),
            resolve=resolve,
            resolve_seconds=self._limits.resolve_seconds,
            connect_seconds=self._limits.connect_seconds,
            lookups=self._all.lookups.share(egress),
        )
        self._servers: list[asyncio.Server] = []
        self._clients: set[asyncio.Task[None]] = set()

    @property
    def use(self) -> NetworkUse:
        """The traffic so far."""
        return self._counter.use

    async def start(self, *listeners: socket.socket) -> None:
        """Accept on sockets that listen already, TCP or Unix."""
        for listener in listeners:
            start = asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
            server = await start(self._accepted, sock=listener, start_serving=False)
            # Appended before the await, so that `close` also closes it if the start is cancelled.
            self._servers.append(server)
            await server.start_serving()

    async def close(self) -> None:
        """Cut every connection."""
        for server in self._servers:
            server.close()
        for client in self._clients:
            client.cancel()
        await asyncio.gather(*self._clients, return_exceptions=True)

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.create_task(self._serve(reader, writer))
        self._clients.add(client)
        client.add_done_callback(self._clients.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._all.now += 1
        # Data that the client has not read keeps this task waiting, so the connection stays counted.
        writer.transport.set_write_buffer_limits(0)
        try:
            if len(self._clients) > self._limits.connections or self._all.now > self._all.most:
                # The refusal is written without waiting, so that excess connections cost nothing.
                busy = self._dialer.denied(None, 503, f"more than {self._limits.connections} connections at once")
                writer.write(refusal(busy.status, busy.message))
            else:
                await serve(reader, writer, self._dialer, self._limits.patience, self._token)
        except Exception:
            log.exception("egress proxy failed to serve a connection")
        finally:
            self._all.now -= 1
            writer.transport.abort()
