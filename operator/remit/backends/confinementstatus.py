"""Which layers of confinement a backend enforces for an attempt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from remit.sandbox import Layer


@dataclass(frozen=True, slots=True)
class ConfinementStatus:
    """The layers that are in force, those that are missing, and by limit or `network`, what enforces it."""

    layers: tuple[Layer, ...] = ()
    missing: tuple[Layer, ...] = ()
    enforced_by: Mapping[str, str] = field(default_factory=dict)
