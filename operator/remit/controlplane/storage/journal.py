"""Durable storage: an append-only journal of object revisions in SQLite.

Like etcd, the journal keeps every revision since the last compaction, and the newest of each object for ever. One
table therefore holds both the state and the history that lets a watch go on after a restart.

    journal(rv, resource, namespace, name, deleted, raw)    one row per write; rv is the resourceVersion
    meta(key, value)                                        format; compacted: the newest revision ever removed; store:
                                                            its identity
"""

from __future__ import annotations

import os
import sqlite3
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import orjson
import structlog

from remit.controlplane.startup import lock_state
from remit.controlplane.storage.mark import Mark, Position
from remit.controlplane.storage.records import Change, Object, Record, Unreadable
from remit.errors import InvalidInput
from remit.privatefiles import open_private

FORMAT = 1
REVISIONS_SKIPPED = 1_000_000
"""When the end of the journal is lost, revisions go on this far behind the last one known: none comes twice."""

log = structlog.get_logger(__name__)


def _anything_goes(resource: str, obj: Object) -> None:
    """The check of stores without schemas, which accepts everything."""


T = TypeVar("T", int, str)
Check = Callable[[str, Object], None]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    rv INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    deleted INTEGER NOT NULL, raw BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class Journal:
    """The file. Every method blocks; the store calls them from its one writer thread.

    Raises `InvalidInput` when the file cannot be used: held by another process, damaged, or written by a newer Remit.
    """

    def __init__(self, path: Path, *, check: Check = _anything_goes, locked: bool = False) -> None:
        """`check` raises an error for an object that cannot be served, and may bring its parts into their usual form.

        `locked`: the caller holds the lock of the state directory.
        """
        self.path = path
        self._check = check
        self._lock = -1 if locked else lock_state(path)
        self._db: sqlite3.Connection | None = None
        self._mark: Mark | None = None
        try:
            with self._explained():
                os.close(open_private(path))
                self._mark = Mark(path.with_suffix(".mark"))
                self._open()
                self.identity = self._identify(self._mark)
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        self._db = db = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False)
        db.text_factory = _text
        self._check_format(db)
        db.execute("PRAGMA journal_mode = WAL")
        db.execute("PRAGMA synchronous = FULL")
        db.execute("PRAGMA journal_size_limit = 67108864")
        db.executescript(_SCHEMA)
        db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))

    def _check_format(self, db: sqlite3.Connection) -> None:
        """Before anything is written. Raises `InvalidInput` where another version wrote the file."""
        if not db.execute("SELECT 1 FROM sqlite_master WHERE name = 'meta'").fetchone():
            return
        written = self._meta("format", FORMAT)
        if written != FORMAT:
            raise InvalidInput(
                f"{self.path} has format {written}, this Remit reads {FORMAT}; use the Remit that wrote it"
            )

    def _identify(self, mark: Mark) -> str:
        """The identity of the store: a new one where the mark tells of another database, or of more than is here."""
        noted, known = mark.read(), self._meta("store", "")
        newest = self._newest()
        if known and (noted is None or (noted.identity == known and noted.revision <= newest)):
            mark.write(Position(known, newest))
            return known
        identity = str(uuid.uuid4())
        if noted is not None:
            log.error(
                "store_lost_writes",
                database=str(self.path),
                newest=newest,
                acknowledged=noted.revision,
                store=identity,
                remedy="what was written last, or all, is gone from the database: restore a backup of state.db and "
                "state.db-wal if there is one; until then, remove nothing elsewhere for not being in here",
            )
            newest = max(newest, noted.revision) + REVISIONS_SKIPPED
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES ('store', ?)", (identity,))
            if noted is not None:
                db.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (newest,))
        mark.write(Position(identity, newest))
        return identity

    def _newest(self) -> int:
        (written,) = self._connection.execute("SELECT max(rv) FROM journal").fetchone()
        return max(written or 0, self.compacted)

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Tell the user what is wrong with the file. Raises `InvalidInput`."""
        try:
            yield
        except (sqlite3.Error, OSError) as error:
            if getattr(error, "sqlite_errorcode", 0) & 0xFF in (sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CORRUPT):
                remedy = (
                    "it is damaged: restore a backup of it, or move it, its -wal and its -shm away to start with an "
                    "empty one"
                )
            else:
                remedy = "make room on its disk, make it writable, and end other programs that have it open"
            raise InvalidInput(f"{self.path} cannot be used: {error}; {remedy}") from None

    @property
    def _connection(self) -> sqlite3.Connection:
        if self._db is None:
            raise RuntimeError("the journal is closed")
        return self._db

    def _meta(self, key: str, default: T) -> T:
        """A value of the type of `default`, which stands for one that is missing or of another type."""
        row = self._connection.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return row[0] if row and isinstance(row[0], type(default)) else default

    @property
    def compacted(self) -> int:
        """The newest revision that was removed: history is complete after it."""
        return self._meta("compacted", 0)

    def changes(self) -> Iterator[Change | Unreadable]:
        """Everything in the journal, oldest first, as it was written. Raises `InvalidInput` where it is damaged."""
        newest: dict[tuple[str, str, str], Record] = {}
        for revision, *names, deleted, raw in self._rows():
            key = resource, namespace, name = str(names[0]), str(names[1]), str(names[2])
            try:
                obj = orjson.loads(raw)
                if not deleted:
                    self._check(resource, obj)
                record = _record(obj, revision, namespace, name)
            except Exception as error:  # one faulty object must not keep the others from being served
                newest.pop(key, None)
                yield Unreadable(resource, namespace, name, revision, bool(deleted), str(error) or type(error).__name__)
                continue
            yield Change(resource, record, newest.get(key), bool(deleted))
            if deleted:
                newest.pop(key, None)
            else:
                newest[key] = record

    def _rows(self) -> Iterator[Any]:
        with self._explained():
            yield from self._connection.execute(
                "SELECT rv, resource, namespace, name, deleted, raw FROM journal ORDER BY rv"
            )

    def append(self, changes: Sequence[Change]) -> None:
        """Make the changes durable, all or none: on return they are on the disk.

        A deletion without a previous record is that of an unreadable object, whose revisions are removed with it.
        """
        rows: list[tuple[object, ...]] = []
        unreadable: list[tuple[object, ...]] = []
        for c in changes:
            key = (c.resource, c.record.namespace, c.record.name)
            rows.append((c.record.revision, *key, int(c.deleted), c.record.raw))
            if c.deleted and c.previous is None:
                unreadable.append((*key, c.record.revision))
        with self._transaction() as db:
            db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", rows)
            forget = "DELETE FROM journal WHERE resource = ? AND namespace = ? AND name = ? AND rv < ?"
            db.executemany(forget, unreadable)
        if self._mark is not None and changes:
            self._mark.write(Position(self.identity, changes[-1].record.revision))

    def compact(self, through: int, revisions: Iterable[int]) -> None:
        """Forget superseded `revisions`, and remember that history up to `through` is no longer complete."""
        with self._transaction() as db:
            db.executemany("DELETE FROM journal WHERE rv = ?", [(rv,) for rv in revisions])
            db.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (through,))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        db = self._connection
        db.execute("BEGIN IMMEDIATE")
        try:
            yield db
            db.execute("COMMIT")
        except BaseException:
            if db.in_transaction:
                db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Give the file back. May be called twice."""
        if self._db is not None:
            self._db.close()
        if self._mark is not None:
            self._mark.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _text(written: bytes) -> str:
    """Decode a text. One that is no UTF-8 belongs to one damaged row, and does not end the reading of all."""
    return written.decode("utf-8", "replace")


def _record(obj: Any, revision: int, namespace: str, name: str) -> Record:
    if isinstance(obj, dict) and isinstance(obj.get("metadata"), dict):
        obj["metadata"]["resourceVersion"] = str(revision)
    record = Record.of(obj, revision)
    if (record.namespace, record.name) != (namespace, name):
        raise ValueError(f"its metadata names {record.key!r}")
    return record
