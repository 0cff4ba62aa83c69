"""The operations that Remit runs itself, without a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from remit.lazily import lazily

if TYPE_CHECKING:
    from remit.backends.docker import Engine
    from remit.operations.base import OperationExecutor, OperationRequest
    from remit.sandbox import Host
else:
    __getattr__ = lazily(__name__, __file__)

__all__ = ["OperationExecutor", "OperationRequest", "executors", "load_drivers"]


def load_drivers() -> None:
    """Import what `executors` uses. It takes long, so a standby does it while it waits for the lease."""
    from remit.operations.database import PostgresExecutor, RedisExecutor  # noqa: F401


def executors(
    state_dir: Path, host: Host, *, read_only_paths: Sequence[str] = (), engine: Engine | None = None
) -> Mapping[str, OperationExecutor]:
    """The executor of each operation that no backend runs, by the operation's name.

    No operation reaches into `state_dir`, which is the operator's own. Supervised processes may also read
    `read_only_paths`. Without an `engine` there is no `container` operation.
    """
    # Imported here because the drivers take long to import, and callers that only judge by policy do not need them.
    from remit.operations.container import ContainerExecutor
    from remit.operations.database import PostgresExecutor, RedisExecutor
    from remit.operations.file import FileExecutor
    from remit.operations.http import HttpExecutor
    from remit.operations.process import ProcessExecutor, Supervision
    from remit.operations.process.record import PROCESSES

    http = HttpExecutor()
    return {
        **({"container": ContainerExecutor(engine)} if engine else {}),
        "file": FileExecutor([state_dir], http.download),
        "http": http,
        "postgres": PostgresExecutor(),
        "process": ProcessExecutor(Supervision(state_dir / PROCESSES, host, read_only_paths)),
        "redis": RedisExecutor(),
    }
