"""Workspaces: named folders of a namespace that are kept from one task to the next.

<root>/<namespace>/<name>/
    workspace.json      how large it may become, and how long it is kept; its time is that of its last use
    data/               what tasks find there
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import orjson
import structlog

from remit.errors import InvalidInput
from remit.privatefiles import replace_private

log = structlog.get_logger(__name__)
_RECORD: Final = "workspace.json"
_DATA: Final = "data"
_REMOVED: Final = ".removed-"
_PRUNE_SECONDS: Final = 600.0


@dataclass(frozen=True, slots=True)
class Workspace:
    """One that is there. `used_at` is in seconds since the epoch, sizes are in bytes."""

    namespace: str
    name: str
    path: Path
    size: int
    ttl_seconds: int | None
    used_at: float

    @property
    def data(self) -> Path:
        """The folder that tasks find."""
        return self.path / _DATA

    def used_bytes(self) -> int:
        """What its files take on the disk, each once. Looks at every one of them, by name only."""
        seen: set[tuple[int, int]] = set()
        total = 0
        for _, folders, files, descriptor in os.fwalk(self.data, onerror=None, follow_symlinks=False):
            for name in (*folders, *files):
                with contextlib.suppress(FileNotFoundError):
                    info = os.stat(name, dir_fd=descriptor, follow_symlinks=False)
                    if info.st_nlink > 1 and (info.st_dev, info.st_ino) in seen:
                        continue
                    if info.st_nlink > 1:
                        seen.add((info.st_dev, info.st_ino))
                    total += info.st_blocks * 512
        return total


class WorkspaceStore:
    """Workspaces under `root`, which is made if need be. Every method may block and raise OSError."""

    def __init__(self, root: Path) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root

    def use(self, namespace: str, name: str, size: int, ttl_seconds: int | None) -> Workspace:
        """The workspace, made if need be, for a task that starts now. What the task says of it holds from now on.

        Raises `InvalidInput` where it is full: then it has more than `size` bytes.
        """
        path = self.root / namespace / name
        data = path / _DATA
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        replace_private(path / _RECORD, orjson.dumps({"size": size, "ttlSeconds": ttl_seconds}))
        workspace = Workspace(namespace, name, path, size, ttl_seconds, time.time())
        if (used := workspace.used_bytes()) > size:
            raise InvalidInput(
                f"workspace {name} has {used} bytes, and {size} are allowed; remove what is not needed, remove it"
                f" with 'remit workspace rm {name}', or allow more",
                field="spec.volumes",
            )
        return workspace

    def touch(self, path: Path) -> None:
        """The task that used the workspace with the data folder `path` has ended."""
        with contextlib.suppress(FileNotFoundError):
            os.utime(path.parent / _RECORD)

    def all(self) -> Iterator[Workspace]:
        """Those that are there, by namespace and name."""
        for path in sorted(self.root.glob(f"*/*/{_RECORD}")):
            if not path.parent.name.startswith(_REMOVED) and (found := self._read(path.parent)) is not None:
                yield found

    def find(self, namespace: str, name: str) -> Workspace | None:
        return self._read(self.root / namespace / name)

    def remove(self, workspace: Workspace) -> None:
        """A task that has it mounted keeps what it sees until it ends; others find it empty from now on."""
        aside = workspace.path.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
        workspace.path.rename(aside)
        shutil.rmtree(aside)

    def prune(self, in_use: Collection[Path]) -> None:
        """Remove those whose time is over, except where a task uses the data folder, and what is left of removals."""
        for workspace in self.all():
            ttl = workspace.ttl_seconds
            if ttl is not None and time.time() >= workspace.used_at + ttl and workspace.data not in in_use:
                self.remove(workspace)
        for left in self.root.glob(f"*/{_REMOVED}*"):
            shutil.rmtree(left, ignore_errors=True)

    def _read(self, path: Path) -> Workspace | None:
        try:
            document = orjson.loads((path / _RECORD).read_bytes())
            used_at = (path / _RECORD).stat().st_mtime
        except FileNotFoundError:
            return None
        return Workspace(path.parent.name, path.name, path, document["size"], document["ttlSeconds"], used_at)


async def keep_pruning_workspaces(store: WorkspaceStore, in_use: Callable[[], Collection[Path]]) -> None:
    """Remove what is out of date now and then, for as long as it is let. `in_use` gives the data folders that tasks
    have mounted. What goes wrong is logged."""
    while True:
        # Not at once: a new operator does not know yet what the one before has running.
        await asyncio.sleep(_PRUNE_SECONDS)
        try:
            await asyncio.to_thread(store.prune, in_use())
        except (OSError, ValueError) as error:
            log.warning("workspaces could not be pruned", error=str(error))
