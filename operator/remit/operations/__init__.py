"""Floor 3: what can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remit.operations.base import Performer, Work
from remit.operations.failure import OperationFailed

if TYPE_CHECKING:
    from remit.backends.docker import Engine

__all__ = ["OperationFailed", "Performer", "Work", "performers"]


def performers(*, protected: Sequence[Path] = (), engine: Engine | None = None) -> Mapping[str, Performer]:
    """What performs each of the operations that no backend runs. `protected` are the operator's own directories;
    without an `engine` there are no containers."""
    # The drivers take long to import, and who only asks policy does not need them.
    from remit.operations.container import ContainerPerformer
    from remit.operations.database import PostgresPerformer, RedisPerformer
    from remit.operations.file import FilePerformer
    from remit.operations.http import HttpPerformer

    return {
        **({"container": ContainerPerformer(engine)} if engine else {}),
        "file": FilePerformer(protected),
        "http": HttpPerformer(),
        "postgres": PostgresPerformer(),
        "redis": RedisPerformer(),
    }
