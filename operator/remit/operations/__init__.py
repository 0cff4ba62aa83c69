"""The operations that Remit runs itself, without a backend."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from remit.backends.docker.engine import Engine
    from remit.operations.base import OperationExecutor
    from remit.sandbox import Host


def load_drivers() -> None:
    """Import what `executors` uses. It takes long, so a standby does it while it waits for the lease."""
    from remit.operations.database.postgres import PostgresExecutor  # noqa: F401
    from remit.operations.database.redis import RedisExecutor  # noqa: F401


def executors(
    state_dir: Path, host: Host, *, read_only_paths: Sequence[str] = (), engine: Engine | None = None
) -> Mapping[str, OperationExecutor]:
    """The executor of each operation that no backend runs, by the operation's name.

    No operation reaches into `state_dir`, which is the operator's own. Supervised processes may also read
    `read_only_paths`. Without an `engine` there is no `container` operation.
    """
    # Imported here because the drivers take long to import, and callers that only evaluate policies do not need them.
    from remit.operations.container.executor import ContainerExecutor
    from remit.operations.database.postgres import PostgresExecutor
    from remit.operations.database.redis import RedisExecutor
    from remit.operations.file.executor import FileExecutor
    from remit.operations.http.executor import HttpExecutor
    from remit.operations.process.executor import ProcessExecutor
    from remit.operations.process.record import PROCESSES
    from remit.operations.process.supervision import Supervision

    http = HttpExecutor()
    return {
        **({"container": ContainerExecutor(engine)} if engine else {}),
        "file": FileExecutor([state_dir], http.download),
        "http": http,
        "postgres": PostgresExecutor(),
        "process": ProcessExecutor(Supervision(state_dir / PROCESSES, host, read_only_paths)),
        "redis": RedisExecutor(),
    }
