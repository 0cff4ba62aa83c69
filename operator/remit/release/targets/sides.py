"""What a target was told, kept on disk: it is the wish that `observe` compares the processes and the proxy with."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

import orjson

from remit.api.deploymentstatus import Slot
from remit.release.model import other


@dataclass(frozen=True, slots=True)
class Published:
    """A port of the program: its `name`, and where it is published."""

    name: str
    port: int


@dataclass(frozen=True, slots=True)
class Side:
    """One slot: a revision, its published ports, and for each instance the local ports that it listens on instead."""

    revision: int
    published: tuple[Published, ...] = ()
    preview: int | None = None
    """The port where this revision wants to be previewed."""
    wanted: int = 0
    ports: tuple[Mapping[str, int], ...] = ()
    """By instance, then by the port's name. Those beyond `wanted` get no new requests and are stopped when idle."""
    leaving_since: float = 0.0
    """When those beyond `wanted` became so, in seconds since the epoch."""
    draining: bool = False

    def addresses(self, port: str) -> tuple[str, ...]:
        return tuple(f"127.0.0.1:{ports[port]}" for ports in self.ports[: self.wanted] if port in ports)

    @property
    def leaving(self) -> frozenset[str]:
        """The addresses of the instances beyond `wanted`."""
        return frozenset().union(*(self.addresses_of(index) for index in range(self.wanted, len(self.ports))))

    def addresses_of(self, index: int) -> frozenset[str]:
        """Where one instance listens."""
        return frozenset(f"127.0.0.1:{port}" for port in self.ports[index].values())


@dataclass(frozen=True, slots=True)
class Told:
    """All that one Deployment's target was told."""

    live: Slot | None = None
    share: int = 0
    preview: Slot | None = None
    sides: Mapping[Slot, Side] = field(default_factory=dict)

    def having(self, slot: Slot, side: Side | None) -> Told:
        rest = {name: kept for name, kept in self.sides.items() if name != slot}
        return replace(self, sides=rest if side is None else {**rest, slot: side})

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
            }
        )
        for slot, side in document.pop("sides").items()
    }
    return Told(**document, sides=sides)


def write(path: Path, told: Told) -> None:
    """Whole or not at all, and on the disk when it returns."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    temporary = path.with_suffix(".new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(orjson.dumps(asdict(told)))
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)
