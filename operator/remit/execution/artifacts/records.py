"""Which artifacts each task has: one record for what its latest attempt left that left any.

<root>/
    tasks/<namespace>/<task>/<uid>.json         the artifacts; its time orders records, and is always a later one
    tasks/<namespace>/<task>/<uid>.released     there since the task was deleted; for how long
    staged/<attempt id>/<namespace>/<task>      of an attempt whose end is not on record yet; nobody finds it
"""

from __future__ import annotations

import contextlib
import os
import shutil
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

import orjson
import structlog

from remit.backends.elapsed import ElapsedTime
from remit.execution.artifacts.stored import Record, StoredArtifact, read_mark, read_record, record_of
from remit.privatefiles import replace_private

log = structlog.get_logger(__name__)


class Records:
    """Records under `root`, which is made if need be. Every method may block and raise OSError."""

    def __init__(self, root: Path, elapsed: ElapsedTime) -> None:
        self._root = root
        self._tasks, self._staged = root / "tasks", root / "staged"
        for folder in (self._tasks, self._staged):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._elapsed = elapsed
        self._latest = 0
        self._guard = threading.Lock()
        """Held while folders are created and filled, or removed, so that none is removed before it is filled."""
        self._paths: dict[tuple[str, str], Path] | None = None
        """The record of each task by namespace and uid; None: not looked for yet."""

    def stage(self, namespace: str, task: str, attempt_id: str, artifacts: Sequence[StoredArtifact]) -> None:
        """Record what an attempt leaves, for `commit`."""
        path = self._staged / attempt_id / namespace / task
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        with path.open("wb") as file:
            file.write(record_of(artifacts))
            file.flush()
            os.fsync(file.fileno())

    def commit(self, uid: str, attempt_id: str) -> None:
        """Make what was staged the task's record from now on; where it was already, or nothing was, nothing happens."""
        for path in _inside([self._staged / attempt_id], levels=2):
            target = self._path(path.parent.name, path.name, uid)
            with self._guard:
                target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
                self._put_last(path)
                path.replace(target)
                if self._paths is not None:
                    self._paths[_key(target)] = target
        self.discard(attempt_id)

    def discard(self, attempt_id: str) -> None:
        """The attempt has left nothing."""
        shutil.rmtree(self._staged / attempt_id, ignore_errors=True)

    def release(self, namespace: str, uid: str) -> None:
        """The task was deleted: what is not to be kept longer goes."""
        for attempt in _inside([self._staged]):
            if attempt.name.startswith(f"{uid}-"):
                shutil.rmtree(attempt, ignore_errors=True)
        path = self._find(namespace, uid)
        if path is None:
            return
        record = self._read(path)
        kept = [each for each in record.artifacts if each.retain_seconds > 0] if record else []
        mark = path.with_suffix(".released")
        if not kept:
            self._unlink(path)
        elif not mark.exists():
            order = path.stat().st_mtime_ns
            replace_private(path, record_of(kept))
            os.utime(path, ns=(order, order))
            replace_private(mark, orjson.dumps(self._elapsed.mark()))

    def of_task(self, namespace: str, task: str) -> Iterator[Record]:
        """The records of tasks of that name, the newest first."""
        for path in _newest_first(_inside([self._tasks / namespace / task])):
            if (record := self._read(path)) is not None:
                yield record

    def all(self) -> Iterator[Record]:
        """The newest first."""
        for path in _newest_first(_inside([self._tasks], levels=3)):
            if (record := self._read(path)) is not None:
                yield record

    def staged(self) -> Iterator[Record]:
        for path in _inside([self._staged], levels=3):
            if (record := self._read(path)) is not None:
                yield record

    def is_over(self, record: Record) -> bool:
        """Whether its task was deleted, and all its artifacts were kept as long as they were to be."""
        mark = self._file(record).with_suffix(".released")
        try:
            content = mark.read_bytes()
        except FileNotFoundError:
            return False
        seconds, stale = self._elapsed.seconds(read_mark(content))
        if stale:
            replace_private(mark, orjson.dumps(self._elapsed.mark(seconds)))
        return all(seconds >= each.retain_seconds for each in record.artifacts)

    def remove(self, record: Record) -> None:
        self._unlink(self._file(record))

    def clean_up(self) -> None:
        """Remove what belongs to no record."""
        for mark in _inside([self._tasks], levels=3):
            if mark.suffix == ".released" and not mark.with_suffix(".json").exists():
                mark.unlink(missing_ok=True)
        for levels in (2, 1):
            for folder in _inside([self._tasks], levels=levels):
                with self._guard, contextlib.suppress(OSError):
                    folder.rmdir()  # succeeds only for an empty folder

    def _find(self, namespace: str, uid: str) -> Path | None:
        """Returns the record of a task, or None. The first call reads all records; after that the set is known."""
        with self._guard:
            if self._paths is None:
                records = (path for path in _inside([self._tasks], levels=3) if path.suffix == ".json")
                self._paths = {_key(path): path for path in records}
            path = self._paths.get((namespace, uid))
        return path if path is not None and path.exists() else None

    def _unlink(self, path: Path) -> None:
        with self._guard:
            path.unlink(missing_ok=True)
            if self._paths is not None:
                self._paths.pop(_key(path), None)

    def _path(self, namespace: str, task: str, uid: str) -> Path:
        return self._tasks / namespace / task / f"{uid}.json"

    def _put_last(self, path: Path) -> None:
        """Give it a time after that of all records, wherever the clock is."""
        if not self._latest:
            others = _newest_first(each for each in _inside([self._tasks], levels=3) if each != path)
            self._latest = others[0].stat().st_mtime_ns if others else 0
        self._latest = max(time.time_ns(), self._latest + 1_000)
        os.utime(path, ns=(self._latest, self._latest))

    def _read(self, path: Path) -> Record | None:
        """Returns the record, or None if it was removed or is damaged, which is logged."""
        try:
            content = path.read_bytes()
            time = path.stat().st_mtime
        except FileNotFoundError:
            return None
        try:
            artifacts = read_record(content)
        except ValueError as error:
            log.warning("the record of a task's artifacts is damaged; remove it", path=str(path), error=str(error))
            return None
        return Record(f"{self._root.name}/{path.relative_to(self._root)}", artifacts, len(content), time)

    def _file(self, record: Record) -> Path:
        return self._root.parent / record.name


def _key(path: Path) -> tuple[str, str]:
    """The namespace and the uid of the task whose record is at `path`."""
    return path.parent.parent.name, path.stem


def _inside(folders: Iterable[Path], levels: int = 1) -> Iterator[Path]:
    """The entries so many levels below `folders`, of which others may remove some meanwhile."""
    for folder in folders:
        try:
            entries = list(folder.iterdir())
        except (FileNotFoundError, NotADirectoryError):
            continue
        yield from entries if levels == 1 else _inside(entries, levels - 1)


def _newest_first(paths: Iterable[Path]) -> list[Path]:
    """The names among them that are records."""
    found: list[tuple[int, Path]] = []
    for path in paths:
        with contextlib.suppress(FileNotFoundError):
            if path.suffix == ".json":
                found.append((path.stat().st_mtime_ns, path))
    return [path for _, path in sorted(found, reverse=True)]
