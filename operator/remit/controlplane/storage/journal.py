"""Durable storage: an append-only journal of object revisions in SQLite.

Like etcd, the journal keeps every revision since the last compaction, and the newest of each object for ever. One
table therefore holds both the state and the history that lets a watch go on after a restart.

    journal(rv, resource, namespace, name, deleted, raw)    one row per write; rv is the resourceVersion
    meta(key, value)                                        format; compacted: the newest revision ever removed
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import orjson

from remit.controlplane.startup import lock_state
from remit.controlplane.storage.records import Change, Record, Unreadable
from remit.errors import InvalidInput
from remit.privatefiles import open_private

FORMAT = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS journal (
    rv INTEGER PRIMARY KEY, resource TEXT NOT NULL, namespace TEXT NOT NULL, name TEXT NOT NULL,
    deleted INTEGER NOT NULL, raw BLOB NOT NULL
);
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value INTEGER NOT NULL);
"""


class Journal:
    """The file. Every method blocks; the store calls them from its one writer thread.

    Raises `InvalidInput` when the file cannot be used: held by another process, or written by a newer Remit.
    """

    def __init__(self, path: Path, *, locked: bool = False) -> None:
        """`locked`: the caller holds the lock of the state directory."""
        self.path = path
        self._lock = -1 if locked else lock_state(path)
        os.close(open_private(path))
        self._db = sqlite3.connect(path, isolation_level=None, check_same_thread=False)
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        self._db.execute("PRAGMA journal_size_limit = 67108864")
        self._db.executescript(_SCHEMA)
        written = self._meta("format", FORMAT)
        if written != FORMAT:
            self.close()
            raise InvalidInput(f"{path} has format {written}, this Remit reads {FORMAT}; use the Remit that wrote it")
        self._db.execute("INSERT OR IGNORE INTO meta VALUES ('format', ?)", (FORMAT,))

    def _meta(self, key: str, default: int) -> int:
        row = self._db.execute("SELECT value FROM meta WHERE key = ?", (key,)).fetchone()
        return int(row[0]) if row else default

    @property
    def compacted(self) -> int:
        """The newest revision that was removed: history is complete after it."""
        return self._meta("compacted", 0)

    def changes(self) -> Iterator[Change | Unreadable]:
        """Everything in the journal, oldest first, as it was written."""
        newest: dict[tuple[str, str, str], Record] = {}
        rows = self._db.execute("SELECT rv, resource, namespace, name, deleted, raw FROM journal ORDER BY rv")
        for revision, resource, namespace, name, deleted, raw in rows:
            key = (resource, namespace, name)
            try:
                record = _read(raw, revision, namespace, name)
            except (ValueError, TypeError) as error:
                newest.pop(key, None)
                yield Unreadable(resource, namespace, name, revision, bool(deleted), str(error))
                continue
            yield Change(resource, record, newest.get(key), bool(deleted))
            if deleted:
                newest.pop(key, None)
            else:
                newest[key] = record

    def append(self, changes: Iterable[Change]) -> None:
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
        with self._transaction():
            self._db.executemany("INSERT INTO journal VALUES (?, ?, ?, ?, ?, ?)", rows)
            forget = "DELETE FROM journal WHERE resource = ? AND namespace = ? AND name = ? AND rv < ?"
            self._db.executemany(forget, unreadable)

    def compact(self, through: int, revisions: Iterable[int]) -> None:
        """Forget superseded `revisions`, and remember that history up to `through` is no longer complete."""
        with self._transaction():
            self._db.executemany("DELETE FROM journal WHERE rv = ?", [(rv,) for rv in revisions])
            self._db.execute("INSERT OR REPLACE INTO meta VALUES ('compacted', ?)", (through,))

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._db.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._db.execute("COMMIT")
        except BaseException:
            if self._db.in_transaction:
                self._db.execute("ROLLBACK")
            raise

    def close(self) -> None:
        """Give the file back. May be called twice."""
        self._db.close()
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _read(raw: bytes, revision: int, namespace: str, name: str) -> Record:
    record = Record.of(orjson.loads(raw), revision)
    if (record.namespace, record.name) != (namespace, name):
        raise ValueError(f"its metadata names {record.key!r}")
    return record
