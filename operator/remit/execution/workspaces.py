"""Workspaces: named folders of a namespace that are kept from one task to the next.

<root>/<namespace>/<name>/
    workspace.json      how large it may become, how long it is kept, and since when no task has used it
    data/               what tasks find there
"""

from __future__ import annotations

import contextlib
import time
import uuid
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

import orjson
import structlog

from remit.backends.elapsed import ElapsedTime
from remit.errors import InvalidInput
from remit.execution.foldertree import disk_usage, remove_tree
from remit.privatefiles import replace_private

log = structlog.get_logger(__name__)
_RECORD: Final = "workspace.json"
_DATA: Final = "data"
_REMOVED: Final = ".removed-"


@dataclass(frozen=True, slots=True)
class Workspace:
    """One that is there. `used_at` is in seconds since the epoch, for people; sizes are in bytes. `idle` is a mark of
    `ElapsedTime`: for how long no task has used it."""

    namespace: str
    name: str
    path: Path
    size: int
    ttl_seconds: int | None
    used_at: float
    idle: object = None

    @property
    def data(self) -> Path:
        """The folder that tasks find."""
        return self.path / _DATA

    def used_bytes(self) -> int:
        """The bytes that its files take on the disk. Raises as `disk_usage`."""
        return disk_usage(self.data)

    def excess(self) -> str:
        """Describe what exceeds the size and what to do, or return the empty string. Raises OSError."""
        remedy = f"remove what is not needed, or remove it with 'remit workspace rm {self.name}'"
        try:
            used = self.used_bytes()
        except InvalidInput as error:
            return f"workspace {self.name}: {error}; {remedy}"
        except PermissionError:  # a program could hide its files in a folder that is closed to the operator
            return f"workspace {self.name}: a folder is closed to the operator, so its size is not known; {remedy}"
        if used > self.size:
            return f"workspace {self.name} has {used} bytes, and {self.size} are allowed; {remedy}, or allow more"
        return ""


class WorkspaceStore:
    """Workspaces under `root`, which is made if need be. Every method may block and raise OSError."""

    def __init__(self, root: Path, elapsed: ElapsedTime | None = None) -> None:
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root = root
        self._elapsed = elapsed or ElapsedTime()

    def data(self, namespace: str, name: str) -> Path:
        """The folder that tasks find, whether it is there or not."""
        return self.root / namespace / name / _DATA

    def use(self, namespace: str, name: str, size: int, ttl_seconds: int | None, *, running: bool = False) -> Workspace:
        """The workspace, made if need be, for a task that starts now. What the task says of it holds from now on.

        Raises `InvalidInput` where it has more than `size` bytes, or more files than can be counted. A task that is
        `running` is not refused; see `WorkspaceWatch`.
        """
        data = self.data(namespace, name)
        data.mkdir(mode=0o700, parents=True, exist_ok=True)
        workspace = Workspace(namespace, name, data.parent, size, ttl_seconds, time.time(), self._elapsed.mark())
        self._write(workspace)
        if not running and (excess := workspace.excess()):
            raise InvalidInput(excess, field="spec.volumes")
        return workspace

    def touch(self, path: Path) -> None:
        """The task that used the workspace with the data folder `path` has ended."""
        if (workspace := self._read(path.parent)) is not None:
            self._write(replace(workspace, used_at=time.time(), idle=self._elapsed.mark()))

    def all(self) -> Iterator[Workspace]:
        """The existing workspaces, by namespace and name."""
        for path in sorted(self.root.glob(f"*/*/{_RECORD}")):
            if not path.parent.name.startswith(_REMOVED) and (found := self._read(path.parent)) is not None:
                yield found

    def find(self, namespace: str, name: str) -> Workspace | None:
        return self._read(self.root / namespace / name)

    def remove(self, workspace: Workspace) -> None:
        """A task that has it mounted finds nothing in it any more, and the next one another, which is empty."""
        aside = workspace.path.with_name(f"{_REMOVED}{uuid.uuid4().hex}")
        workspace.path.rename(aside)
        remove_tree(aside)

    def prune(self, in_use: Collection[Path]) -> None:
        """Remove those whose time is over, except where a task uses the data folder, and what is left of removals. What
        goes wrong with one is logged."""
        for workspace in self.all():
            if workspace.ttl_seconds is not None and workspace.data not in in_use:
                with _logged(workspace.path):
                    self._prune(workspace, workspace.ttl_seconds)
        for left in self.root.glob(f"*/{_REMOVED}*"):
            with _logged(left):
                remove_tree(left)

    def _prune(self, workspace: Workspace, ttl_seconds: int) -> None:
        idle, is_stale = self._elapsed.seconds(workspace.idle)
        if idle >= ttl_seconds:
            self.remove(workspace)
        elif is_stale:
            self._write(replace(workspace, idle=self._elapsed.mark(idle)))

    def _write(self, workspace: Workspace) -> None:
        document = {
            "size": workspace.size,
            "ttlSeconds": workspace.ttl_seconds,
            "usedAt": workspace.used_at,
            "idle": workspace.idle,
        }
        replace_private(workspace.path / _RECORD, orjson.dumps(document))

    def _read(self, path: Path) -> Workspace | None:
        """None: it is not there, or its record is damaged, which is logged."""
        try:
            content = (path / _RECORD).read_bytes()
        except FileNotFoundError:
            return None
        try:
            document: dict[str, Any] = orjson.loads(content)
            size, ttl, used_at = document["size"], document["ttlSeconds"], document["usedAt"]
            return Workspace(path.parent.name, path.name, path, size, ttl, used_at, document["idle"])
        except (ValueError, TypeError, KeyError) as error:
            log.warning(
                "the record of a workspace is damaged; the next task that uses it makes it anew",
                path=str(path / _RECORD),
                error=str(error),
            )
            return None


@contextlib.contextmanager
def _logged(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        log.warning("a workspace could not be removed", path=str(path), error=str(error))
