"""What can be run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.backends.docker import Engine
    from remit.operations.base import Performer, Work
    from remit.sandbox import Host
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["Performer", "Work", "load_drivers", "performers"]


def load_drivers() -> None:
    """Import what `performers` will use. It takes long, and who waits for the lease has the time."""
    from remit.operations.database import PostgresPerformer, RedisPerformer  # noqa: F401


def performers(
    state_dir: Path, host: Host, *, read_only_paths: Sequence[str] = (), engine: Engine | None = None
) -> Mapping[str, Performer]:
    """What performs each of the operations that no backend runs. `state_dir` is the operator's own and closed to all of
    them; `read_only_paths` are what supervised processes may read besides; without an `engine` there are no containers.
    """
    # The drivers take long to import, and who only asks policy does not need them.
    from remit.operations.container import ContainerPerformer
    from remit.operations.database import PostgresPerformer, RedisPerformer
    from remit.operations.file import FilePerformer
    from remit.operations.http import HttpPerformer
    from remit.operations.process import ProcessPerformer, Supervision
    from remit.operations.process.record import PROCESSES

    http = HttpPerformer()
    return {
        **({"container": ContainerPerformer(engine)} if engine else {}),
        "file": FilePerformer([state_dir], http.download),
        "http": http,
        "postgres": PostgresPerformer(),
        "process": ProcessPerformer(Supervision(state_dir / PROCESSES, host, read_only_paths)),
        "redis": RedisPerformer(),
    }
