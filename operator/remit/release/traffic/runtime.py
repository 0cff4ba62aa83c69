"""HAProxy's runtime API: commands through a Unix socket to the running process, and what it says of itself."""

from __future__ import annotations

import asyncio
import contextlib
import csv
import os
import re
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from remit.api.slots import Slot, other
from remit.errors import DeploymentError
from remit.release.traffic.configuration import CHANGES, COUNTS, FAILOVER, WEIGHTS, backend
from remit.release.traffic.route import CLOSED, POOLS, Pool

PROXY_FAILED: Final = "ProxyFailed"
_NEVER_CHECKED: Final = "INI"
_WELL: Final = "L4OK"
_PATIENCE: Final = 5.0
_LINE_BYTES: Final = 1 << 24
_TURN: Final = re.compile(rb"(Backup )?Server \S+ is (UP|DOWN)[,/. ]")
_STOPPED: Final = re.compile(rb"Proxy \S+ stopped")
_COUNTED: Final = re.compile(r"key=(\d+)\.(blue|green) .*gpc0=(\d+) gpc1=(\d+)")


@dataclass(frozen=True)
class Server:
    """One replica as the proxy sees it. `leaving`: it gets no new requests and is removed once it is idle."""

    address: str
    up: bool
    leaving: bool
    in_flight: int
    """Requests and open tunnels such as WebSockets."""
    checked: bool = True
    """Whether `up` is what a check has found, and not what it began as."""
    backup: bool = False
    """It belongs to the other side, and is used while none of this one's is up."""
    connections: int = 0
    """All that there were, and how many could not be made."""
    failed: int = 0


@dataclass(frozen=True)
class SideStatus:
    """The observed state of a pool, or of a side: of its own pools, and of where it is the other one's backup."""

    servers: tuple[Server, ...] = ()
    in_flight: int = 0
    """Requests and open tunnels, those that wait for a connection included."""
    connections: int = 0
    """Connections that were passed through since the proxy started; requests, where it speaks HTTP."""
    failed: int = 0
    """How many connections could not be made."""

    def part(self, *, backup: bool) -> SideStatus:
        """The part that belongs to its backups, or all the rest."""
        backups = [each for each in self.servers if each.backup]
        theirs = SideStatus(
            tuple(backups),
            sum(each.in_flight for each in backups),
            sum(each.connections for each in backups),
            sum(each.failed for each in backups),
        )
        if backup:
            return theirs
        return SideStatus(
            tuple(each for each in self.servers if not each.backup),
            max(0, self.in_flight - theirs.in_flight),
            max(0, self.connections - theirs.connections),
            max(0, self.failed - theirs.failed),
        )

    def __add__(self, more: SideStatus) -> SideStatus:
        return SideStatus(
            self.servers + more.servers,
            self.in_flight + more.in_flight,
            self.connections + more.connections,
            self.failed + more.failed,
        )


@dataclass(frozen=True)
class Port:
    """One published port. Weights are percentages; all 0 where the port is closed."""

    weights: Mapping[Slot, int]
    pools: Mapping[Pool, SideStatus]
    fails_over: bool = False
    counts: Mapping[Slot, tuple[int, int]] | None = None
    """How many requests each side answered, and how many failed; None where connections are passed through."""

    def served(self, slot: Slot) -> tuple[int, int]:
        """How many requests that side answered, and how many of them with a status of 500 and above, but for those of
        the probe; where connections are passed through, how many there were and how many could not be made."""
        if self.counts is not None:
            return self.counts.get(slot, (0, 0))
        side = self.side(slot)
        return side.connections, side.failed

    def side(self, slot: Slot) -> SideStatus:
        own, backups = (
            self.pools.get(Pool(slot, True), SideStatus()),
            self.pools.get(Pool(other(slot), True), SideStatus()),
        )
        return self.pools.get(Pool(slot), SideStatus()) + own.part(backup=False) + backups.part(backup=True)


@dataclass(frozen=True)
class ProxySnapshot:
    """The route that is in force, as reported by the proxy itself."""

    pid: int
    uptime_seconds: int
    ports: Mapping[int, Port]
    left: Mapping[str, int] = field(default_factory=dict)
    """How many connections proxies still have whose place it took, by the addresses of replicas."""

    def in_flight(self, slot: Slot) -> int:
        """Requests and open tunnels of that side."""
        sides = [port.side(slot) for port in self.ports.values()]
        addresses = {each.address for side in sides for each in side.servers}
        return sum(side.in_flight for side in sides) + sum(self.left.get(address, 0) for address in addresses)

    @property
    def busy(self) -> frozenset[str]:
        """The addresses that have requests."""
        return frozenset(each.address for each in self.servers if each.in_flight) | self.left.keys()

    @property
    def servers(self) -> Iterator[Server]:
        """All replicas, once for each pool of each port."""
        return (each for port in self.ports.values() for pool in port.pools.values() for each in pool.servers)

    @property
    def reached(self) -> frozenset[str]:
        """The addresses of replicas that are up at each port, which the proxy checks on its own, and are to stay."""
        staying = [each for each in self.servers if not each.leaving]
        down = {each.address for each in staying if not each.up}
        return frozenset(each.address for each in staying) - down

    @property
    def closed(self) -> frozenset[str]:
        """The addresses of replicas that its checks have found down."""
        return frozenset(each.address for each in self.servers if each.checked and not each.up and not each.leaving)


def socket_of(folder: Path) -> str:
    """The name of the socket in a proxy's folder: that of the folder, which has more in front of it once it leaves."""
    return folder.name.rpartition("-")[2]


async def ask(folder: Path, *commands: str) -> list[str]:
    """The answer to each command, from the proxy in `folder`.

    Raises ConnectionRefusedError or FileNotFoundError if none runs there, DeploymentError if it does not answer.
    """
    try:
        async with asyncio.timeout(_PATIENCE), _connected(folder) as (reader, writer):
            answers = []
            writer.write(b"prompt\n")
            await reader.readuntil(b"> ")
            for command in commands:
                writer.write(command.encode() + b"\n")
                answers.append((await reader.readuntil(b"\n> "))[:-2].decode().strip())
    except (TimeoutError, asyncio.IncompleteReadError, ConnectionResetError, BrokenPipeError) as error:
        message = f"the traffic proxy in {folder} does not answer: {error!r}"
        raise DeploymentError(message, reason=PROXY_FAILED, retryable=True) from error
    return answers


async def changes(folder: Path) -> AsyncGenerator[None, None]:
    """Yields whenever the proxy in `folder` has found a replica up or down, until it ends; first of all for what it has
    found already. Raises OSError if none runs there."""
    async with _connected(folder) as (reader, writer):
        writer.write(f"show events {CHANGES} -w\n".encode())
        with contextlib.suppress(ConnectionError):
            # A proxy that is stopping would otherwise keep running as long as a client listens.
            while (line := await reader.readline()) and not _STOPPED.match(line):
                if _TURN.match(line):
                    yield


async def listens(folder: Path) -> bool:
    """Whether the proxy in `folder` takes commands, which it does for as long as it takes anything."""
    try:
        async with _connected(folder):
            return True
    except OSError:
        return False


@contextlib.asynccontextmanager
async def _connected(folder: Path) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    directory = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Connects through the descriptor, because the path of a socket is limited to 107 bytes.
        path = f"/proc/self/fd/{directory}/{socket_of(folder)}"
        async with asyncio.timeout(_PATIENCE):
            reader, writer = await asyncio.open_unix_connection(path, limit=_LINE_BYTES)
    finally:
        os.close(directory)
    try:
        yield reader, writer
    finally:
        writer.close()


async def look(folder: Path) -> ProxySnapshot:
    """Raises as `ask` does."""
    commands = ("show info", "show stat", f"show map {WEIGHTS}", f"show table {COUNTS}")
    return parse(*await ask(folder, *commands))


def parse(info: str, stat: str, weights: str, counts: str) -> ProxySnapshot:
    about = dict(line.partition(": ")[::2] for line in info.splitlines())
    rows = list(csv.DictReader(stat.removeprefix("# ").splitlines()))
    shares = {int(port): int(green) for _, port, green in (line.split() for line in weights.splitlines())}
    counted: dict[int, dict[Slot, tuple[int, int]]] = {}
    for port, slot, requests, failed in _COUNTED.findall(counts):
        counted.setdefault(int(port), {})[slot] = int(requests), int(failed)
    ports = {
        int(row["pxname"]): Port(
            _weights(shares.get(int(row["pxname"]), -1)),
            {pool: _pool(backend(int(row["pxname"]), pool), rows) for pool in POOLS},
            shares.get(int(row["pxname"]), -1) >= FAILOVER,
            counted.get(int(row["pxname"]), {}) if row["mode"] == "http" else None,
        )
        for row in rows
        if row["svname"] == "FRONTEND"
    }
    return ProxySnapshot(int(about["Pid"]), int(about["Uptime_sec"]), ports)


def _weights(green: int) -> Mapping[Slot, int]:
    if green < 0:
        return CLOSED
    share = green - FAILOVER if green >= FAILOVER else green
    return {"blue": 100 - share, "green": share}


def _pool(name: str, rows: Sequence[Mapping[str, str]]) -> SideStatus:
    own = [row for row in rows if row["pxname"] == name]
    total = next((row for row in own if row["svname"] == "BACKEND"), None)
    if total is None:
        return SideStatus()
    servers = tuple(_server(row) for row in own if row["svname"] != "BACKEND")
    return SideStatus(servers, _count(total, "scur"), _count(total, "stot"), _count(total, "econ"))


def _server(row: Mapping[str, str]) -> Server:
    up, leaving = (row["status"].startswith(word) for word in ("UP", "MAINT"))
    # The result of a check may be from before the server was set to down, which lasts until the next check.
    checked = row["check_status"] not in ({_NEVER_CHECKED} if up else {_NEVER_CHECKED, _WELL})
    return Server(
        row["addr"],
        up,
        leaving,
        _count(row, "scur"),
        checked,
        backup=_count(row, "bck") > 0,
        connections=_count(row, "stot"),
        failed=_count(row, "econ"),
    )


def _count(row: Mapping[str, str], column: str) -> int:
    return int(row[column] or 0)
