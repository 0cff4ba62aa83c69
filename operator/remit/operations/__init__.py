"""Floor 3: what can be run."""

from __future__ import annotations

from collections.abc import Mapping

from remit.operations.base import OperationFailed, Performer, Work

__all__ = ["OperationFailed", "Performer", "Work", "performers"]


def performers() -> Mapping[str, Performer]:
    """What performs each of the operations that no backend runs."""
    return {}
