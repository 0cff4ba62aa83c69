"""A release in a few lines."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from remit.web.rows import moment

Object = dict[str, Any]


@dataclass(frozen=True)
class SideCard:
    slot: str
    revision: int
    artifact: str
    ready: int
    wanted: int
    live: bool
    draining: bool
    restarts: int
    message: str


@dataclass(frozen=True)
class Card:
    namespace: str
    name: str
    phase: str
    stage: str
    message: str
    target: str
    strategy: str
    sides: Sequence[SideCard]
    """Blue and green, as far as there is something on them."""
    stages: Sequence[tuple[str, str]]
    """Name and state of each, while a release goes on."""
    changed: float | None

    @property
    def both(self) -> Sequence[tuple[str, SideCard | None]]:
        """Blue and green, each with what is on it."""
        found = {side.slot: side for side in self.sides}
        return [(slot, found.get(slot)) for slot in ("blue", "green")]

    @property
    def path(self) -> str:
        return f"/releases/{self.namespace}/{self.name}"


def card(obj: Object) -> Card:
    metadata, spec, status = obj["metadata"], obj.get("spec") or {}, obj.get("status") or {}
    artifacts = {each.get("revision"): str(each.get("artifact", "")) for each in status.get("history") or []}
    sides = [
        SideCard(
            slot=str(each.get("name")),
            revision=int(each.get("revision") or 0),
            artifact=artifacts.get(each.get("revision"), ""),
            ready=int(each.get("readyReplicas") or 0),
            wanted=int(each.get("replicas") or 0),
            live=each.get("name") == status.get("activeSlot"),
            draining=bool(each.get("draining")),
            restarts=int(each.get("restarts") or 0),
            message=str(each.get("message") or ""),
        )
        for each in status.get("slots") or []
    ]
    stages = [(str(each.get("name")), str(each.get("state"))) for each in status.get("stages") or []]
    began = [moment(each.get("startedAt")) for each in status.get("stages") or []]
    return Card(
        namespace=str(metadata.get("namespace")),
        name=str(metadata["name"]),
        phase=str(status.get("phase") or "Pending"),
        stage=str(status.get("stage") or ""),
        message=str(status.get("message") or ""),
        target=next(iter(spec.get("target") or {"": None}), ""),
        strategy=str((spec.get("strategy") or {}).get("type") or "BlueGreen"),
        sides=sorted(sides, key=lambda side: side.slot),
        stages=stages,
        changed=max((each for each in began if each is not None), default=moment(metadata.get("creationTimestamp"))),
    )
