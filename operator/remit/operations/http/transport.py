"""Connections to judged addresses: the name is resolved here, once, and what is connected to is what was judged."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import httpcore
import httpx

from remit.backends.egress.dialing import Resolver, look_up, own_addresses
from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.policy.egress import Egress, Forbidden, permits
from remit.policy.hosts import Address, Destination

RESOLVE_SECONDS = 5.0


class JudgedNetwork(httpcore.AsyncNetworkBackend):
    """Resolves, judges and connects to one destination. TLS goes by the name, the connection by the address.

    `sending` is called before anything of a request is sent: with https, once TLS is up.
    """

    def __init__(
        self,
        destination: Destination,
        egress: Sequence[Egress],
        resolve: Resolver,
        lookups: asyncio.Semaphore,
        sending: Callable[[], None],
    ) -> None:
        self._destination = destination
        self._egress = egress
        self._resolve = resolve
        self._lookups = lookups
        self._sending = sending
        self._network = httpcore.AnyIOBackend()
        self.address: str | None = None
        """What was connected to."""

    async def connect_tcp(
        self,
        host: str,
        port: int,
        timeout: float | None = None,  # noqa: ASYNC109  # httpcore's signature
        local_address: str | None = None,
        socket_options: Iterable[Any] | None = None,
    ) -> httpcore.AsyncNetworkStream:
        addresses = await self._judged()
        problem: Exception = OperationFailed("ConnectFailed", f"{self._destination} has no address")
        for address in addresses:
            try:
                stream = await self._network.connect_tcp(
                    str(address), self._destination.port, timeout, local_address, socket_options
                )
            except (httpcore.ConnectError, httpcore.ConnectTimeout) as error:
                problem = error
            else:
                self.address = str(address)
                return _RequestStream(stream, self._sending)
        raise problem

    async def _judged(self) -> list[Address]:
        permit = permits(self._destination, self._egress)
        if isinstance(permit, Forbidden):
            raise PolicyDenied(permit.message)
        addresses = await self._addresses()
        usable, objection = permit.screen(addresses, own_addresses(addresses))
        if not usable:
            raise PolicyDenied(objection or f"{self._destination.host} has no address")
        return usable

    async def _addresses(self) -> Sequence[Address]:
        host = self._destination.host
        if not isinstance(host, str):
            return [host]
        try:
            async with asyncio.timeout(RESOLVE_SECONDS):
                return await look_up(self._resolve, host, self._destination.port, self._lookups)
        except TimeoutError:
            message = f"no name server told where {host} is in {RESOLVE_SECONDS:g} s"
            raise OperationFailed("ResolveFailed", message) from None
        except OSError as error:
            message = f"{host} cannot be resolved: {error.strerror or error}"
            raise OperationFailed("ResolveFailed", message) from None


class _RequestStream(httpcore.AsyncNetworkStream):
    """A stream that calls `sending` before each write. A TLS handshake does not write through it."""

    def __init__(self, stream: httpcore.AsyncNetworkStream, sending: Callable[[], None]) -> None:
        self._stream = stream
        self._sending = sending

    async def read(self, max_bytes: int, timeout: float | None = None) -> bytes:  # noqa: ASYNC109
        return await self._stream.read(max_bytes, timeout)

    async def write(self, buffer: bytes, timeout: float | None = None) -> None:  # noqa: ASYNC109
        self._sending()
        await self._stream.write(buffer, timeout)

    async def aclose(self) -> None:
        await self._stream.aclose()

    async def start_tls(
        self,
        ssl_context: ssl.SSLContext,
        server_hostname: str | None = None,
        timeout: float | None = None,  # noqa: ASYNC109
    ) -> httpcore.AsyncNetworkStream:
        return _RequestStream(await self._stream.start_tls(ssl_context, server_hostname, timeout), self._sending)

    def get_extra_info(self, info: str) -> Any:
        return self._stream.get_extra_info(info)


class JudgedTransport(httpx.AsyncHTTPTransport):
    """httpx over one `JudgedNetwork`, without proxies and without reuse of connections."""

    def __init__(self, network: JudgedNetwork, context: ssl.SSLContext) -> None:
        self._pool = httpcore.AsyncConnectionPool(
            ssl_context=context, max_connections=1, max_keepalive_connections=0, network_backend=network
        )
