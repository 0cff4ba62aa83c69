"""The output on this disk that may be removed: that of attempts whose end is on record, and of processes that ended.

    <state>/runs/<namespace>/<task uid>/<attempt id>/     its output goes; what it did stays on record
    <state>/processes/<namespace>/<name>/                 goes as a whole, once no supervisor lives

Names come from the disk, and a folder may have been replaced by a link. Each folder is therefore opened from the one
above it, links are not followed, and files are removed below the descriptor that was examined.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from remit.execution.output import RAW
from remit.execution.retention import Item
from remit.operations.process.record import LOCK, PROCESSES, STATE, supervisor_lives

RUNS: Final = "runs"
PRUNED: Final = "pruned"
"""There in the directory of a run since its output was removed."""
_OUTPUT: Final = re.compile(r"(stdout|stderr)\.(head|times|[0-9]+)|redactions")
_ENDED: Final = "outcome.json"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def attempts(state_dir: Path) -> Iterator[Item]:
    """The output of attempts whose end is on record, as far as there is any."""
    with _opened(state_dir / RUNS) as top:
        for namespace in _folders(top):
            with _opened(namespace, top) as second:
                for task in _folders(second):
                    with _opened(task, second) as third:
                        for attempt in _folders(third):
                            with _opened(attempt, third) as run:
                                found = dict(_entries(run))
                                # Most runs have no output any more, so only file names are read.
                                if _ENDED not in found or not (RAW in found or any(map(_OUTPUT.fullmatch, found))):
                                    continue
                                ended = _lstat(_ENDED, run)
                                size = sum(size for _, size in _output(run)) if ended else 0
                                if ended and size:
                                    yield Item("output", f"{RUNS}/{namespace}/{task}/{attempt}", size, ended.st_mtime)


def processes(state_dir: Path) -> Iterator[Item]:
    """Supervised processes whose supervisor is gone."""
    with _opened(state_dir / PROCESSES) as top:
        for namespace in _folders(top):
            with _opened(namespace, top) as second:
                for name in _folders(second):
                    with _opened(name, second) as folder:
                        state = _lstat(STATE, folder)
                        if state and not name.startswith(".") and _is_free(folder):
                            size = sum(found.st_size for each in _names(folder) if (found := _lstat(each, folder)))
                            yield Item("process", f"{PROCESSES}/{namespace}/{name}", size, state.st_mtime)


def remove_output(state_dir: Path, item: Item) -> bool:
    """Remove the output of an attempt. False where its end is not on record, or it is gone. Raises OSError."""
    with _below(state_dir, item) as run:
        if run < 0 or not _lstat(_ENDED, run):
            return False
        # Created first, so that a reader can explain why the output is incomplete.
        os.close(os.open(PRUNED, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=run))
        for (folder, name), _ in _output(run):
            with _opened(folder, run) if folder else _same(run) as inside, contextlib.suppress(FileNotFoundError):
                os.unlink(name, dir_fd=inside)
        with contextlib.suppress(OSError):
            os.rmdir(RAW, dir_fd=run)
        return True


def remove_process(state_dir: Path, item: Item) -> bool:
    """Remove a process that has ended, under its lock. False where it lives, or is gone. Raises OSError."""
    namespace, name = item.name.split("/")[1:]
    with _opened(state_dir / PROCESSES) as top, _opened(namespace, top) as second, _opened(name, second) as folder:
        if folder < 0 or not _lstat(STATE, folder):
            return False
        try:
            lock = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder)
        except OSError:
            return False
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        else:
            aside = f".{name}-removed"
            with contextlib.suppress(FileNotFoundError):
                shutil.rmtree(aside, dir_fd=second)  # left by a removal that was killed
            os.rename(name, aside, src_dir_fd=second, dst_dir_fd=second)  # pathlib has no dir_fd
            shutil.rmtree(aside, dir_fd=second)
            return True
        finally:
            os.close(lock)


def is_pruned(directory: Path) -> bool:
    """Whether the output of the run in `directory` was removed to make room."""
    return (directory / PRUNED).exists()


@contextlib.contextmanager
def _opened(path: str | Path, above: int | None = None) -> Iterator[int]:
    """A descriptor of the folder, or -1 where there is none or it is a link."""
    try:
        descriptor = -1 if above == -1 else os.open(path, _FOLDER, dir_fd=above)
    except OSError:
        descriptor = -1
    try:
        yield descriptor
    finally:
        if descriptor >= 0:
            os.close(descriptor)


@contextlib.contextmanager
def _same(descriptor: int) -> Iterator[int]:
    yield descriptor


@contextlib.contextmanager
def _below(state_dir: Path, item: Item) -> Iterator[int]:
    with contextlib.ExitStack() as stack:
        first, *rest = item.name.split("/")
        folder = stack.enter_context(_opened(state_dir / first))
        for name in rest:
            folder = stack.enter_context(_opened(name, folder)) if name not in {"", ".", ".."} else -1
        yield folder


def _names(folder: int) -> list[str]:
    try:
        return sorted(os.listdir(folder)) if folder >= 0 else []  # pathlib cannot list a descriptor
    except OSError:
        return []


def _folders(folder: int) -> list[str]:
    return sorted(name for name, is_folder in _entries(folder) if is_folder)


def _entries(folder: int) -> list[tuple[str, bool]]:
    """The names in a folder, and whether each is a folder itself and no link."""
    try:
        with os.scandir(folder) if folder >= 0 else contextlib.nullcontext(()) as entries:
            return [(entry.name, entry.is_dir(follow_symlinks=False)) for entry in entries]
    except OSError:
        return []


def _lstat(name: str, folder: int) -> os.stat_result | None:
    try:
        return os.stat(name, dir_fd=folder, follow_symlinks=False)
    except OSError:
        return None


def _output(run: int) -> Iterator[tuple[tuple[str, str], int]]:
    """The folder, which is empty or `raw`, the name and the size of each file."""
    for folder in ("", RAW):
        with _opened(folder, run) if folder else _same(run) as inside:
            for name in _names(inside):
                if _OUTPUT.fullmatch(name) and (status := _lstat(name, inside)):
                    yield (folder, name), status.st_size


def _is_free(folder: int) -> bool:
    """Whether no supervisor lives. The lock is not touched: one that starts must not find it taken."""
    try:
        return not supervisor_lives(Path(f"/proc/self/fd/{folder}"))
    except OSError:
        return False
