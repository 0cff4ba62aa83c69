"""Floor 3: what can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from remit.operations.base import OperationFailed, Performer, Work
from remit.operations.file import FilePerformer

__all__ = ["OperationFailed", "Performer", "Work", "performers"]


def performers(*, protected: Sequence[Path] = ()) -> Mapping[str, Performer]:
    """What performs each of the operations that no backend runs. `protected` are the operator's own directories."""
    return {"file": FilePerformer(protected)}
