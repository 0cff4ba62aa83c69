"""Connects to a destination that policy allows, at an address that policy has seen.

The name is resolved once, here, outside the sandbox. What is connected to is one of the addresses that were judged:
a name that says something else a moment later gains nothing.
"""

from __future__ import annotations

import asyncio
import ipaddress
import socket
from collections.abc import Awaitable, Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Final
from weakref import WeakValueDictionary

import structlog

from remit.backends.egress.pacing import Pace
from remit.backends.egress.usage import DestinationCounter, UsageCounter
from remit.policy.egress import Egress, Forbidden, permits
from remit.policy.hosts import Address, Destination, plain_address
from remit.threads import DaemonThreadPool

log = structlog.get_logger(__name__)

Resolver = Callable[[str, int], Awaitable[Sequence[Address]]]
"""Name and port to addresses. Raises OSError."""

_MOST_ADDRESSES: Final = 4
_NOBODYS: Final = {4: ipaddress.ip_address("192.0.2.1"), 6: ipaddress.ip_address("2001:db8::1")}
"""Addresses for documentation."""
LOOKUPS: Final = 8
"""At once, for one namespace. A name server that does not answer holds a thread for longer than anybody waits."""
# Name resolution has its own threads, so that a name server that does not answer does not delay other work.
_resolving = DaemonThreadPool(max_workers=8 * LOOKUPS, thread_name_prefix="egress-resolver")


class Lookups:
    """Divides concurrent DNS lookups among namespaces."""

    def __init__(self) -> None:
        self._shares: WeakValueDictionary[str, asyncio.Semaphore] = WeakValueDictionary()

    def share(self, egress: Sequence[Egress]) -> asyncio.Semaphore:
        """The share of the namespace whose policy allowed the task; of several, the first."""
        namespace = egress[0].policy.partition("/")[0] if egress else ""
        return self._shares.setdefault(namespace, asyncio.Semaphore(LOOKUPS))


async def look_up(resolve: Resolver, name: str, port: int, share: asyncio.Semaphore) -> Sequence[Address]:
    """The addresses of a name. Cancelled, it counts towards its share until the name server is given up: nothing takes
    back the thread that asks. Raises OSError."""
    await share.acquire()
    looking = asyncio.ensure_future(resolve(name, port))

    def looked_up(looking: asyncio.Future[Sequence[Address]]) -> None:
        share.release()
        if not looking.cancelled():
            looking.exception()

    looking.add_done_callback(looked_up)
    return await asyncio.shield(looking)


class EgressRefused(Exception):
    """The answer is no: an HTTP status, and a sentence for the user."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.message = message


@dataclass(frozen=True, slots=True)
class Upstream:
    """A connection to a destination, counted and held to the attempt's pace."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    counts: DestinationCounter
    pace: Pace

    async def read(self) -> bytes:
        """Return what came, or nothing at the end."""
        data = await self.reader.read(self.pace.chunk)
        self.counts.received_bytes += len(data)
        await self.pace.passed(len(data))
        return data

    async def write(self, data: bytes) -> None:
        self.writer.write(data)
        self.counts.sent_bytes += len(data)
        await self.writer.drain()
        await self.pace.passed(len(data))

    def close(self) -> None:
        self.writer.transport.abort()


@dataclass(frozen=True, slots=True)
class Dialer:
    """Opens connections for one attempt, by its policies' `egress`."""

    egress: tuple[Egress, ...]
    counter: UsageCounter
    pace: Pace
    resolve: Resolver
    resolve_seconds: float
    connect_seconds: float
    lookups: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(LOOKUPS))

    async def open(self, destination: Destination) -> Upstream:
        """Raises `EgressRefused`: 403 where policy says no, 502 and 504 where nothing answers."""
        permit = permits(destination, self.egress)
        if isinstance(permit, Forbidden):
            raise self.denied(destination, 403, permit.message)
        addresses = await self._addresses(destination)
        usable, objection = permit.screen(addresses, own_addresses(addresses))
        if not usable:
            raise self.denied(destination, 403, objection or f"{destination.host} has no address")
        reader, writer = await self._connect(destination, usable)
        return Upstream(reader, writer, self.counter.connected(destination), self.pace)

    def denied(self, destination: Destination | None, status: int, message: str) -> EgressRefused:
        """The refusal to raise; it is counted, and logged the first time that a destination is refused."""
        if self.counter.denied(destination, message):
            log.warning("egress denied", destination=str(destination or ""), reason=message)
        return EgressRefused(status, message)

    async def _addresses(self, destination: Destination) -> Sequence[Address]:
        if not isinstance(destination.host, str):
            return [destination.host]
        try:
            async with asyncio.timeout(self.resolve_seconds):
                return await look_up(self.resolve, destination.host, destination.port, self.lookups)
        except TimeoutError:
            raise EgressRefused(504, f"no name server told where {destination.host} is in time") from None
        except OSError as error:
            raise EgressRefused(502, f"{destination.host} cannot be resolved: {error.strerror or error}") from None

    async def _connect(
        self, destination: Destination, addresses: Sequence[Address]
    ) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        problem = EgressRefused(502, f"{destination} cannot be reached")
        for address in addresses[:_MOST_ADDRESSES]:
            try:
                async with asyncio.timeout(self.connect_seconds):
                    # The host is an address here, so that no name is resolved a second time.
                    return await asyncio.open_connection(str(address), destination.port)
            except TimeoutError:
                problem = EgressRefused(504, f"{destination} does not answer at {address}")
            except OSError as error:
                problem = EgressRefused(502, f"{destination} cannot be reached at {address}: {error.strerror or error}")
        raise problem


def own_addresses(addresses: Iterable[Address]) -> frozenset[Address]:
    """Select those of `addresses` that belong to this machine: a socket can be bound to them. Nothing is sent."""
    return frozenset(address for address in map(plain_address, addresses) if _is_own(address))


def _is_own(address: Address) -> bool:
    # With `ip_nonlocal_bind` a socket can be bound to any address, so an address that no host has is tried too.
    return _binds(address) and not _binds(_NOBODYS[address.version])


def _binds(address: Address) -> bool:
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as trying:
            trying.bind((str(address), 0))
    except OSError:
        return False
    return True


async def system_resolver(name: str, port: int) -> Sequence[Address]:
    """Resolve a name as the operator's own machine does, with its hosts file and search domains."""

    def look_up() -> list[Address]:
        found = socket.getaddrinfo(name, port, type=socket.SOCK_STREAM)
        return [ipaddress.ip_address(str(entry[4][0]).partition("%")[0]) for entry in found]

    return await asyncio.get_running_loop().run_in_executor(_resolving, look_up)
