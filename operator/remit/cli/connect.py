"""To the API server, and to the run store where it is on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from remit.cli.kubeconfig import state_dir_of
from remit.errors import RemitError
from remit.reconcilers.kube import TASKS, Access, Kube
from remit.reconcilers.settings import default_state_dir, fallback_kubeconfig


@dataclass(frozen=True, slots=True)
class Connection:
    """An open client, the namespace that is meant, and where to look for run stores."""

    kube: Kube
    namespace: str
    state_dirs: tuple[Path, ...]

    def run_directory(self, namespace: str, uid: str, attempt_id: str) -> Path | None:
        """Where the output of an attempt is kept, if that is on this machine and may be read."""
        for state_dir in self.state_dirs:
            directory = state_dir / "runs" / namespace / uid / attempt_id
            with contextlib.suppress(OSError):
                if directory.is_dir() and os.access(directory, os.R_OK | os.X_OK):
                    return directory
        return None


@contextlib.asynccontextmanager
async def connected(
    kubeconfig: Path | None, context: str | None = None, namespace: str | None = None, state_dir: Path | None = None
) -> AsyncIterator[Connection]:
    """Raises `RemitError` when there is no API server to talk to."""
    kubeconfig = kubeconfig or fallback_kubeconfig()
    if kubeconfig is not None and not kubeconfig.is_file():
        raise RemitError(f"there is no kubeconfig {kubeconfig}; 'remit up' writes one where its --kubeconfig says")
    access = await Access.load(kubeconfig, context)
    known = (state_dir, state_dir_of(kubeconfig, context), default_state_dir())
    async with Kube(access) as kube:
        yield Connection(kube, namespace or access.namespace, tuple(path for path in known if path is not None))


def task_names(options: Mapping[str, Any]) -> Iterator[str]:
    """For completion: at most a few seconds, and no complaints."""

    async def fetch() -> list[str]:
        async with (
            asyncio.timeout(3),
            connected(options.get("kubeconfig"), options.get("context"), options.get("namespace")) as connection,
        ):
            return [task["metadata"]["name"] for task in await connection.kube.list(TASKS, connection.namespace)]

    with contextlib.suppress(RemitError, TimeoutError, OSError):
        yield from asyncio.run(fetch())
