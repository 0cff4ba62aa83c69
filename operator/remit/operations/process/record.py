"""What is on disk of a supervised process, in a folder of its own:

    <root>/<namespace>/<name>/
        lock            held by the supervisor for as long as it lives
        state.json      what it last said; never a value of the environment
        control         the Unix socket that it listens on
        stdout.log stderr.log, and the older half of each with .1

That a supervisor lives is known by its lock alone: no pid is trusted for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from remit.privatefiles import open_private, replace_private
from remit.sandbox import ProcessHandle, boot_id, start_time

STATE, LOCK, SOCKET = "state.json", "lock", "control"
PROCESSES: Final = "processes"
"""The folder, below the operator's state, of the processes that tasks started, by their namespace."""
INSTANCES: Final = "instances"
"""The folder of the instances of releases, by the namespace and the name of their Deployment."""


@dataclass(frozen=True, slots=True)
class ProcessIdentity:
    """One process for ever: a pid may be given to another process, but not with this start time in this boot."""

    pid: int
    start_time: int
    boot_id: str

    @classmethod
    def of(cls, pid: int) -> ProcessIdentity | None:
        started = start_time(pid)
        return None if started is None else cls(pid, started, boot_id())

    @classmethod
    def parse(cls, raw: Any) -> ProcessIdentity | None:
        match raw:
            case {"pid": int(pid), "startTime": int(started), "bootId": str(boot)}:
                return cls(pid, started, boot)
        return None

    def show(self) -> dict[str, Any]:
        return {"pid": self.pid, "startTime": self.start_time, "bootId": self.boot_id}

    def open(self) -> ProcessHandle | None:
        """A pidfd of that very process; None if it is gone, whoever has its pid now."""
        if self.pid <= 0 or self.boot_id != boot_id():
            return None
        try:
            handle = ProcessHandle(self.pid)
        except (ProcessLookupError, OSError):
            return None
        if start_time(self.pid) == self.start_time:  # checked while the pidfd is held, so it refers to the same process
            return handle
        handle.close()
        return None


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[int | None]:
    """Hold the lock, whose descriptor it gives; None while a supervisor lives. Who inherits the descriptor keeps it."""
    with os.fdopen(open_private(folder / LOCK), "rb") as file:
        yield file.fileno() if _try_lock(file.fileno()) else None


def _try_lock(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def supervised(folder: Path) -> bool:
    """Whether a supervisor lives."""
    try:
        with locked(folder) as lock:
            return lock is None
    except FileNotFoundError:
        return False


def read_state(folder: Path) -> dict[str, Any]:
    """Read the supervisor's last report; empty if it never made one."""
    try:
        state = orjson.loads((folder / STATE).read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return {}
    return state if isinstance(state, dict) else {}


def write_state(folder: Path, state: dict[str, Any]) -> None:
    replace_private(folder / STATE, orjson.dumps(state), sync=False)


def supervisor_lives(folder: Path) -> bool:
    """`supervised` for who only looks. The lock is not touched: a supervisor that starts must not find it taken."""
    identity = ProcessIdentity.parse(read_state(folder).get("supervisor"))
    handle = identity.open() if identity else None
    if handle is None:
        return False
    handle.close()
    return True


def process_folders(state_dirs: Sequence[Path], kind: str, place: str) -> dict[str, Path]:
    """The folders of processes by their names, in the first state directory that has any and may be read."""
    for state_dir in state_dirs:
        try:
            folders = sorted((state_dir / kind / place).iterdir(), key=_by_number)
        except OSError:
            continue
        found = {each.name: each for each in folders if not each.name.startswith(".") and not each.is_symlink()}
        if found:
            return found
    return {}


def _by_number(folder: Path) -> tuple[str, int]:
    word, _, number = folder.name.rpartition("-")
    return (word, int(number)) if number.isdigit() else (folder.name, 0)
