"""Floor 3: what can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from remit.operations.base import Performer, Work
from remit.operations.failure import OperationFailed

__all__ = ["OperationFailed", "Performer", "Work", "performers"]


def performers(*, protected: Sequence[Path] = ()) -> Mapping[str, Performer]:
    """What performs each of the operations that no backend runs. `protected` are the operator's own directories."""
    # The drivers take long to import, and who only asks policy does not need them.
    from remit.operations.database import PostgresPerformer, RedisPerformer
    from remit.operations.file import FilePerformer
    from remit.operations.http import HttpPerformer

    return {
        "file": FilePerformer(protected),
        "http": HttpPerformer(),
        "postgres": PostgresPerformer(),
        "redis": RedisPerformer(),
    }
