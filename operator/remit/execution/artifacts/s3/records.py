"""Which artifacts each task has, as objects in the store itself, so that every replica of the operator sees the same.

    tasks/<namespace>/<task>/<uid>.<time>.json      the artifacts; its time, in microseconds, orders records
    tasks/<namespace>/<task>/<uid>.released         there since the task was deleted; for how long
    staged/<attempt id>/<namespace>/<task>.json     of an attempt whose end is not on record yet; nobody finds it

What replaces a record is written before that is removed, and the newest counts.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

import orjson
import structlog

from remit.backends.elapsed import ElapsedTime
from remit.execution.artifacts.s3.bucket import Bucket, Entry
from remit.execution.artifacts.store import StoreUnavailable
from remit.execution.artifacts.stored import Record, StoredArtifact, read_mark, read_record, record_of

log = structlog.get_logger(__name__)
_STAGED_SECONDS: Final = 7 * 86400.0
"""Seconds after which no operator is left that would record the end of the attempt."""
_REMEMBERED: Final = 2000
_REMEMBERED_BYTES: Final = 16 << 10
"""Records that are not read again as long as they are the same, and how large each may be."""


@dataclass(frozen=True, slots=True)
class _Place:
    """The place of a record."""

    key: str
    namespace: str
    task: str
    uid: str
    moment: int
    written: float
    """When it was written, by the store's clock, in seconds since 1970."""
    etag: str


class S3Records:
    """Every method blocks and may raise `StoreUnavailable`."""

    def __init__(self, bucket: Bucket, elapsed: ElapsedTime) -> None:
        self._bucket, self._elapsed = bucket, elapsed
        self._guard = threading.Lock()
        self._tasks: dict[tuple[str, str], str] | None = None
        """The task that has a record, by namespace and uid; None: not looked for yet."""
        self._attempts: set[str] | None = None
        """The ids of those with something staged."""
        self._marks = set[str]()
        """Records of deleted tasks, as of the last list."""
        self._known: dict[tuple[str, str], Record] = {}

    def stage(self, namespace: str, task: str, attempt_id: str, artifacts: Sequence[StoredArtifact]) -> None:
        self._look()
        self._bucket.put(f"staged/{attempt_id}/{namespace}/{task}.json", record_of(artifacts))
        with self._guard:
            if self._attempts is not None:
                self._attempts.add(attempt_id)

    def commit(self, uid: str, attempt_id: str) -> None:
        for entry in self._bucket.list(f"staged/{attempt_id}"):
            *_, namespace, name = entry.key.split("/")
            task = name.removesuffix(".json")
            content, others = self._bucket.get(entry.key), self._places(f"tasks/{namespace}/{task}")
            if content is None:
                continue
            if any(each.uid == uid and each.written > entry.time for each in others):
                continue  # a later attempt finished first, or the work was done before
            moment = max(time.time_ns() // 1000, others[0].moment + 1 if others else 0)
            self._bucket.put(f"tasks/{namespace}/{task}/{uid}.{moment:016}.json", content)
            self._bucket.delete([each.key for each in others if each.uid == uid])
            self._look()
            with self._guard:
                if self._tasks is not None:
                    self._tasks[namespace, uid] = task
        self.discard(attempt_id)

    def discard(self, attempt_id: str) -> None:
        self._bucket.delete([entry.key for entry in self._bucket.list(f"staged/{attempt_id}")])
        with self._guard:
            if self._attempts is not None:
                self._attempts.discard(attempt_id)

    def release(self, namespace: str, uid: str) -> None:
        self._look()
        with self._guard:
            attempts = [each for each in self._attempts or () if each.startswith(f"{uid}-")]
            task = (self._tasks or {}).get((namespace, uid))
        for attempt in attempts:
            self.discard(attempt)
        if task is None:
            return
        mark, kept = f"tasks/{namespace}/{task}/{uid}.released", False
        for place in self._places(f"tasks/{namespace}/{task}"):
            if place.uid != uid:
                continue
            record = None if kept else self._read(place)
            left = [each for each in record.artifacts if each.retain_seconds > 0] if record else []
            if not left:
                self._bucket.delete([place.key])
                continue
            kept = True
            if self._bucket.get(mark) is None:
                self._bucket.put(place.key, record_of(left))
                self._bucket.put(mark, orjson.dumps(self._elapsed.mark()))
        if not kept:
            with self._guard:
                (self._tasks or {}).pop((namespace, uid), None)

    def of_task(self, namespace: str, task: str) -> Iterator[Record]:
        """The records of tasks of that name, the newest first."""
        return self._records(self._places(f"tasks/{namespace}/{task}"))

    def all(self) -> Iterator[Record]:
        """The newest first."""
        places = self._places("tasks", marks=self._marks)
        with self._guard:
            known = {(place.key, place.etag) for place in places}
            self._known = {at: record for at, record in self._known.items() if at in known}
        return self._records(places)

    def staged(self) -> Iterator[Record]:
        for entry in list(self._bucket.list("staged")):
            if (content := self._bucket.get(entry.key)) is not None:
                with contextlib.suppress(ValueError):
                    yield Record(entry.key, read_record(content), len(content), entry.time)

    def is_over(self, record: Record) -> bool:
        """Whether its task was deleted, and all its artifacts were kept as long as they were to be."""
        folder, _, name = record.name.rpartition("/")
        mark = f"{folder}/{name.split('.')[0]}.released"
        if mark not in self._marks or (content := self._bucket.get(mark)) is None:
            return False
        seconds, stale = self._elapsed.seconds(read_mark(content))
        if stale:
            with contextlib.suppress(StoreUnavailable):  # this operator may only have read access
                self._bucket.put(mark, orjson.dumps(self._elapsed.mark(seconds)))
        return all(seconds >= each.retain_seconds for each in record.artifacts)

    def remove(self, record: Record) -> None:
        self._bucket.delete([record.name])
        _, namespace, _, name = record.name.split("/")
        with self._guard:
            (self._tasks or {}).pop((namespace, name.split(".")[0]), None)

    def clean_up(self, now: float) -> None:
        """Remove what belongs to no record, or to no attempt any more. `now` is in seconds since 1970."""
        marks = set[str]()
        places = self._places("tasks", marks=marks)
        newest = {(each.namespace, each.task, each.uid): each for each in reversed(places)}
        tasks = {f"tasks/{namespace}/{task}/{uid}.released" for namespace, task, uid in newest}
        late = [each.key for each in self._bucket.list("staged") if each.time < now - _STAGED_SECONDS]
        superseded = [each.key for each in places if newest[each.namespace, each.task, each.uid] is not each]
        self._bucket.delete([*(marks - tasks), *superseded, *late])

    def _look(self) -> None:
        """Learn once which records there are; from then on it is known."""
        if self._tasks is None:
            tasks = {(each.namespace, each.uid): each.task for each in self._places("tasks")}
            attempts = {entry.key.split("/")[-3] for entry in self._bucket.list("staged")}
            with self._guard:
                self._tasks, self._attempts = tasks, attempts

    def _places(self, folder: str, *, marks: set[str] | None = None) -> list[_Place]:
        """The places of records, the newest first. Fills `marks`."""
        found = []
        if marks is not None:
            marks.clear()
        for entry in self._bucket.list(folder):
            if marks is not None and entry.key.endswith(".released"):
                marks.add(entry.key)
            if (place := _place(entry)) is not None:
                found.append(place)
        return sorted(found, key=lambda place: place.moment, reverse=True)

    def _records(self, places: Iterable[_Place]) -> Iterator[Record]:
        seen = set[tuple[str, str, str]]()
        for place in places:
            whose = (place.namespace, place.task, place.uid)
            if whose not in seen and (record := self._read(place)) is not None:
                seen.add(whose)
                yield record

    def _read(self, place: _Place) -> Record | None:
        """Returns the record, or None if it was removed or is damaged, which is logged."""
        at = place.key, place.etag
        if (known := self._known.get(at)) is not None:
            return known
        if (content := self._bucket.get(place.key)) is None:
            return None
        try:
            record = Record(place.key, read_record(content), len(content), place.moment / 1e6)
        except ValueError as error:
            log.warning("the record of a task's artifacts is damaged; remove it", key=place.key, error=str(error))
            return None
        with self._guard:
            if place.etag and len(content) <= _REMEMBERED_BYTES and len(self._known) < _REMEMBERED:
                self._known[at] = record
        return record


def _place(entry: Entry) -> _Place | None:
    parts = entry.key.split("/")
    names = parts[-1].split(".")
    if len(parts) != 4 or len(names) != 3 or names[2] != "json" or not names[1].isdecimal():
        return None
    return _Place(entry.key, parts[1], parts[2], names[0], int(names[1]), entry.time, entry.etag)
