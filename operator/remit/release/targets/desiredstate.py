"""The desired state of a target, kept on disk. `observe` compares the instances and the proxy with it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Final, Literal

import orjson

from remit.api.deployment import protocol_of
from remit.api.slots import Slot, other
from remit.privatefiles import write_private
from remit.release.model import Revision

LOOPBACK: Final = "127.0.0.1"


def address(host: str, port: int) -> str:
    """`IP:PORT`, an IPv6 one in brackets."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the program: its `name`, the port where it is published, and the protocol."""

    name: str
    port: int
    protocol: Literal["http", "tcp"] = "http"


@dataclass(frozen=True, slots=True)
class DesiredSide:
    """One slot: a revision, its published ports, and the ports where each instance listens."""

    revision: int
    published: tuple[Published, ...] = ()
    preview: int | None = None
    """The port that previews this revision."""
    wanted: int = 0
    ports: tuple[Mapping[str, int], ...] = ()
    """Ports by instance and name. Instances beyond `wanted` get no new requests and stop once idle."""
    leaving_since: float = 0.0
    """When instances last became superfluous, in seconds of CLOCK_BOOTTIME."""
    hosts: tuple[str, ...] = ()
    """The IP address of each instance; empty if all are on this host."""
    drain_seconds: int = 30
    """How long a superfluous instance may finish its requests."""
    max_header_bytes: int = 32_768
    draining: bool = False
    restarts: int = 0
    """Restarts by earlier supervisors of these instances, which were killed, and restarts of those supervisors."""

    @classmethod
    def of(cls, revision: Revision) -> DesiredSide:
        """A side that shall hold `revision` and has no instance yet."""
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
        """The addresses of wanted instances for the port `published`, whose name may differ between the sides."""
        name = next((port.name for port in self.published if port.port == published), "")
        listening = enumerate(self.ports[: self.wanted])
        return tuple(address(self.host(index), ports[name]) for index, ports in listening if name in ports)

    def finished(self, busy: frozenset[str], now: float) -> bool:
        """Whether instances beyond `wanted` can be stopped: none of them has requests (`busy` has the addresses that
        do), or their time to drain is over. `now` is in seconds of CLOCK_BOOTTIME; if it is before `leaving_since`, the
        machine has been rebooted and no request is left."""
        leaving = {each for index in range(self.wanted, len(self.ports)) for each in self.addresses_of(index)}
        return not leaving & busy or not 0 <= now - self.leaving_since < self.drain_seconds

    def addresses_of(self, index: int) -> frozenset[str]:
        """The addresses at which one instance listens."""
        return frozenset(address(self.host(index), port) for port in self.ports[index].values())


@dataclass(frozen=True, slots=True)
class DesiredState:
    """The instances that the target of one Deployment shall hold, and where its requests shall go."""

    live: Slot | None = None
    share: int = 0
    failover: bool = False
    """Whether requests go to the other side when `live` cannot be reached."""
    preview: Slot | None = None
    sides: Mapping[Slot, DesiredSide] = field(default_factory=dict)

    def having(self, slot: Slot, side: DesiredSide | None) -> DesiredState:
        rest = {name: kept for name, kept in self.sides.items() if name != slot}
        return replace(self, sides=rest if side is None else {**rest, slot: side})

    @property
    def ports(self) -> frozenset[int]:
        """All ports in use or reserved, including those of instances that are down at the moment."""
        sides = self.sides.values()
        own = {port for side in sides for ports in side.ports for port in ports.values()}
        shown = {side.preview for side in sides if side.preview is not None}
        return frozenset(own | shown | {port.port for side in sides for port in side.published})

    def weights(self) -> dict[Slot, int]:
        """Weights in percent; all 0 while nothing is live."""
        if self.live is None:
            return {"blue": 0, "green": 0}
        return {self.live: 100 - self.share, other(self.live): self.share}


def read(path: Path) -> DesiredState:
    """The state that was written last; an empty one if none was."""
    try:
        document = orjson.loads(path.read_bytes())
    except FileNotFoundError:
        return DesiredState()
    sides = {
        slot: DesiredSide(
            **{
                **side,
                "published": tuple(Published(**port) for port in side["published"]),
                "ports": tuple(side["ports"]),
                "hosts": tuple(side.get("hosts", ())),
            }
        )
        for slot, side in document.pop("sides").items()
    }
    return DesiredState(**document, sides=sides)


def write(path: Path, desired: DesiredState) -> None:
    """Write atomically; the state is on disk when this returns."""
    write_private(path, orjson.dumps(asdict(desired)))
