"""What a target was told, kept on disk: it is the wish that `observe` compares the instances and the proxy with."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import orjson

from remit.api.deployment import protocol_of
from remit.api.deploymentstatus import Slot
from remit.privatefiles import write_private
from remit.release.model import Revision, other

LOOPBACK: Final = "127.0.0.1"


def address(host: str, port: int) -> str:
    """`IP:PORT`, an IPv6 one in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the program: its `name`, where it is published, and what is spoken there."""

    name: str
    port: int
    protocol: Literal["http", "tcp"] = "http"


@dataclass(frozen=True, slots=True)
class Side:
    """One slot: a revision, its published ports, and for each instance where it listens instead."""

    revision: int
    published: tuple[Published, ...] = ()
    preview: int | None = None
    """The port where this revision wants to be previewed."""
    wanted: int = 0
    ports: tuple[Mapping[str, int], ...] = ()
    """By instance, then by the port's name. Those beyond `wanted` get no new requests, and are stopped when idle."""
    leaving_since: float = 0.0
    """When those beyond `wanted` became so, in seconds since the epoch."""
    hosts: tuple[str, ...] = ()
    """By instance, the IP address; empty where all are on this host."""
    drain_seconds: int = 30
    """How long an instance that is too many may finish the requests that it has."""
    max_header_bytes: int = 32_768
    draining: bool = False
    restarts: int = 0
    """Of instances whose supervisor was killed: how often they had been started again before, this one included."""

    @classmethod
    def of(cls, revision: Revision) -> Side:
        """A side that is to hold `revision`, and has no instance yet."""
        spec = revision.snapshot.spec
        published = tuple(
            Published(port.name, port.published or port.container_port, protocol_of(spec, port)) for port in spec.ports
        )
        blue_green = spec.strategy.blue_green
        return cls(
            revision.number,
            published,
            blue_green.preview_port if blue_green else None,
            drain_seconds=spec.drain_seconds,
            max_header_bytes=spec.proxy.max_header_bytes,
        )

    def host(self, index: int) -> str:
        return self.hosts[index] if self.hosts else LOOPBACK

    def addresses(self, published: int) -> tuple[str, ...]:
        """Where the wanted instances listen for what is published there. Its name may be another on each side."""
        name = next((port.name for port in self.published if port.port == published), "")
        listening = enumerate(self.ports[: self.wanted])
        return tuple(address(self.host(index), ports[name]) for index, ports in listening if name in ports)

    def finished(self, busy: frozenset[str], now: float) -> bool:
        """Whether those beyond `wanted` can be stopped: the proxy has no request with them, at the `busy` addresses,
        or has had them for too long. `now` is in seconds of CLOCK_BOOTTIME: where it is before `leaving_since`, the
        machine has started anew, and what was with them is over."""
        leaving = {each for index in range(self.wanted, len(self.ports)) for each in self.addresses_of(index)}
        return not leaving & busy or not 0 <= now - self.leaving_since < self.drain_seconds

    def addresses_of(self, index: int) -> frozenset[str]:
        """Where one instance listens."""
        return frozenset(address(self.host(index), port) for port in self.ports[index].values())


@dataclass(frozen=True, slots=True)
class Told:
    """All that one Deployment's target was told."""

    live: Slot | None = None
    share: int = 0
    failover: bool = False
    """Whether requests that cannot be brought to `live` go to the other side."""
    preview: Slot | None = None
    sides: Mapping[Slot, Side] = field(default_factory=dict)

    def having(self, slot: Slot, side: Side | None) -> Told:
        rest = {name: kept for name, kept in self.sides.items() if name != slot}
        return replace(self, sides=rest if side is None else {**rest, slot: side})

    @property
    def ports(self) -> frozenset[int]:
        """All that are spoken for, also by instances that are down just now."""
        sides = self.sides.values()
        own = {port for side in sides for ports in side.ports for port in ports.values()}
        shown = {side.preview for side in sides if side.preview is not None}
        return frozenset(own | shown | {port.port for side in sides for port in side.published})

    def weights(self) -> dict[Slot, int]:
        """In percent; all 0 while nothing is live."""
        if self.live is None:
            return {"blue": 0, "green": 0}
        return {self.live: 100 - self.share, other(self.live): self.share}


def read(path: Path) -> Told:
    """What was written last; nothing where nothing was."""
    try:
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return Told()
    sides = {
        slot: Side(
            **{
                **side,
                "published": tuple(Published(**port) for port in side["published"]),
                "ports": tuple(side["ports"]),
                "hosts": tuple(side.get("hosts", ())),
            }
        )
        for slot, side in document.pop("sides").items()
    }
    return Told(**document, sides=sides)


def write(path: Path, told: Told) -> None:
    """Whole or not at all, and on the disk when it returns."""
    write_private(path, orjson.dumps(asdict(told)))
