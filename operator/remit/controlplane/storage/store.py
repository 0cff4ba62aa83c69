"""The store: writes are decided in memory, made durable in groups, and only then seen by anyone.

A write has three steps, and the first two happen without an `await` between them:

1. read `latest(…)`, which includes writes still on their way to the disk, and decide;
2. `put(…)` or `remove(…)`: the new revision joins the open batch;
3. `await durable()`: the batch is committed, visible to `collection(…)` and published to watchers.

One writer at a time takes the whole open batch to the disk in one transaction (group commit). When the disk fails the
store stops for good: nobody knows what the disk holds, so nothing more may be acknowledged. Any other error belongs to
the writes of its batch: they are abandoned, nothing of them is on the disk or in memory, and the store goes on.
"""

from __future__ import annotations

import asyncio
import contextlib
import sqlite3
from collections import defaultdict, deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import structlog

from remit.controlplane.storage.collection import Collection, Subscription
from remit.controlplane.storage.journal import Check, Journal
from remit.controlplane.storage.records import Change, Object, Record, Unreadable, object_key
from remit.errors import BackendError

HISTORY_CHANGES = 20_000
"""How many changes a watch can resume over."""
HISTORY_BYTES = 128 * 1024 * 1024
"""Memory that history holds: see `Change.held_bytes`."""
SUBSCRIPTION_LIMIT = 10_000
"""A watcher this many changes behind is cut off; it resumes from the history, or lists again."""
COMPACT_EVERY = 1_000

Listener = Callable[[Change], None]

log = structlog.get_logger(__name__)


class StoreFailed(BackendError):
    """The disk refused a write: the store accepts nothing more and the process must be restarted."""


class WriteAbandoned(BackendError):
    """A write failed for another reason than the disk. Nothing of it was kept; the store goes on."""


@dataclass(slots=True)
class _Batch:
    done: asyncio.Future[None]
    changes: list[Change] = field(default_factory=list)


class Store:
    def __init__(self, path: Path, *, history: int = HISTORY_CHANGES, locked: bool = False, **more: Check) -> None:
        """`check` is that of `Journal`."""
        self._journal = Journal(path, locked=locked, **more)
        self.identity = self._journal.identity
        """Another one since the store was made anew or lost writes that it had acknowledged."""
        self._collections: defaultdict[str, Collection] = defaultdict(Collection)
        self._history: deque[Change] = deque()
        self._history_limit = history
        self._history_bytes = 0
        self._uncommitted: dict[tuple[str, str], Change] = {}
        self._superseded: list[int] = []
        self._dependents: defaultdict[str, dict[tuple[str, str], None]] = defaultdict(dict)
        self._unreadable: dict[tuple[str, str], Unreadable] = {}
        self._listeners: list[Listener] = []
        self._executor = ThreadPoolExecutor(1, thread_name_prefix="journal")
        self._open: _Batch | None = None
        self._flushing: _Batch | None = None
        self._wanted = asyncio.Event()
        self._writer: asyncio.Task[None] | None = None
        self.failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Ends with `StoreFailed` when the disk has refused a write."""
        self.floor = self._journal.compacted
        """History is complete after this revision."""
        self.revision = self.floor
        """The newest committed revision."""
        try:
            self._load()
        except BaseException:
            self._executor.shutdown()
            self._journal.close()
            raise
        self._next = self.revision

    def _load(self) -> None:
        for change in self._journal.changes():
            self._unreadable.pop(
                (change.resource, change.record.key if isinstance(change, Change) else change.key), None
            )
            if isinstance(change, Unreadable):
                self._skip(change)
                continue
            self._absorb(change)
            self.revision = max(self.revision, change.record.revision)
            if change.record.revision > self.floor:
                self._collections[change.resource].history.append(change)
                self._remember(change)
            elif change.previous:
                self._superseded.append(change.previous.revision)

        for skipped in self._unreadable.values():
            log.error(
                "object_unreadable",
                resource=skipped.resource,
                namespace=skipped.namespace,
                name=skipped.name,
                revision=skipped.revision,
                error=skipped.error,
                remedy="it is not served and stays in the database until it is deleted or replaced",
            )

    def _skip(self, revision: Unreadable) -> None:
        """Leave out an object whose newest revision cannot be read."""
        self.revision = max(self.revision, revision.revision)
        earlier = self._collections[revision.resource].records.get(revision.key)
        if earlier is not None:
            self._absorb(Change(revision.resource, earlier, earlier, deleted=True))
        if not revision.deleted:
            self._unreadable[revision.resource, revision.key] = revision

    def start(self) -> None:
        self._writer = asyncio.create_task(self._write_batches(), name="store-writer")

    async def stop(self) -> None:
        """Commit what is on its way, then close the file. May be called twice."""
        if not self.failed.done():
            with contextlib.suppress(StoreFailed):
                await self.durable()
        if self._writer:
            self._writer.cancel()
            await asyncio.gather(self._writer, return_exceptions=True)
        self._executor.shutdown()
        self._journal.close()
        self.failed.cancel()

    # ---- reading -------------------------------------------------------------------------------------------------

    def collection(self, resource: str) -> Collection:
        """Committed state: what answers to readers are made of."""
        return self._collections[resource]

    def get(self, resource: str, namespace: str, name: str) -> Record | None:
        return self._collections[resource].records.get(object_key(namespace, name))

    def latest(self, resource: str, namespace: str, name: str) -> Record | None:
        """The record that a writer must build upon: the committed record, or the uncommitted one that will replace
        it."""
        key = object_key(namespace, name)
        change = self._uncommitted.get((resource, key))
        if change is not None:
            return None if change.deleted else change.record
        collection = self._collections.get(resource)  # does not create a collection, because threads read here too
        return collection.records.get(key) if collection is not None else None

    def is_unreadable(self, resource: str, namespace: str, name: str) -> bool:
        """Whether the database holds an object of this name that could not be read when the store was loaded."""
        return (resource, object_key(namespace, name)) in self._unreadable

    def latest_all(self, resource: str, namespace: str = "") -> list[Record]:
        """Like `latest`, for every object of the resource in the namespace."""
        records = {r.key: r for r in self._collections[resource].select(namespace)}
        for (changed, key), change in self._uncommitted.items():
            if changed == resource and (not namespace or change.record.namespace == namespace):
                if change.deleted:
                    records.pop(key, None)
                else:
                    records[key] = change.record
        return list(records.values())

    def resources(self) -> list[str]:
        return [name for name, collection in self._collections.items() if collection.records]

    def dependents(self, owner_uid: str) -> list[tuple[str, Record]]:
        """Committed objects that name the uid in their ownerReferences, each with its resource."""
        found = []
        for resource, key in self._dependents.get(owner_uid, ()):
            record = self._collections[resource].records.get(key)
            if record:
                found.append((resource, record))
        return found

    def subscribe(self, resource: str, after: int, wake: Callable[[], None]) -> Subscription:
        """Changes after a revision, past and future. `after` must not lie before `floor`."""
        collection = self._collections[resource]
        subscription = Subscription(wake, SUBSCRIPTION_LIMIT)
        missed = []
        for change in reversed(collection.history):
            if change.record.revision <= after:
                break
            missed.append(change)
        subscription.changes.extend(reversed(missed))
        collection.subscriptions.add(subscription)
        return subscription

    def unsubscribe(self, resource: str, subscription: Subscription) -> None:
        self._collections[resource].subscriptions.discard(subscription)

    def listen(self, listener: Listener) -> None:
        """Call the listener after each commit, once per change, on the loop. For the controllers."""
        self._listeners.append(listener)

    # ---- writing -------------------------------------------------------------------------------------------------

    def put(self, resource: str, obj: Object) -> Record:
        """Create or replace. Sets `metadata.resourceVersion`; not yet durable nor visible to readers."""
        return self._enqueue(resource, obj, deleted=False)

    def remove(self, resource: str, obj: Object) -> Record:
        """Delete; `obj` is the last state, which watchers are shown."""
        return self._enqueue(resource, obj, deleted=True)

    def remove_unreadable(self, resource: str, namespace: str, name: str) -> None:
        """Delete an object that could not be read: see `is_unreadable`."""
        self._enqueue(resource, {"metadata": {"namespace": namespace, "name": name}}, deleted=True)

    def _enqueue(self, resource: str, obj: Object, *, deleted: bool) -> Record:
        self._check()
        metadata = obj["metadata"]
        previous = self.latest(resource, metadata.get("namespace") or "", metadata["name"])
        metadata["resourceVersion"] = str(self._next + 1)
        record = Record.of(obj, self._next + 1)
        self._next += 1
        change = Change(resource, record, previous, deleted)
        self._uncommitted[resource, record.key] = change
        if self._open is None:
            self._open = _Batch(asyncio.get_running_loop().create_future())
            self._wanted.set()
        self._open.changes.append(change)
        return record

    async def durable(self) -> None:
        """Wait until everything written so far is committed and visible. Raises `StoreFailed`."""
        self._check()
        batch = self._open or self._flushing
        if batch is not None:
            await asyncio.shield(batch.done)

    def _check(self) -> None:
        if self.failed.done():
            raise StoreFailed("the control plane's storage has failed; free the disk and restart it")

    async def _write_batches(self) -> None:
        loop = asyncio.get_running_loop()
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            batch, self._open = self._open, None
            if batch is None:
                continue
            self._flushing = batch
            try:
                await loop.run_in_executor(self._executor, self._journal.append, batch.changes)
            except (sqlite3.Error, OSError) as error:
                self._fail(batch, error)
                return
            except Exception as error:
                self._abandon(batch, error)
                continue
            finally:
                self._flushing = None
            for change in batch.changes:
                try:
                    self._commit(change)
                except Exception:  # the write is on the disk, and a restart will show it
                    log.exception("commit_not_applied", resource=change.resource, object=change.record.key)
            batch.done.set_result(None)
            if len(self._superseded) >= COMPACT_EVERY:
                forget, self._superseded = self._superseded, []
                try:
                    await loop.run_in_executor(self._executor, self._journal.compact, self.floor, forget)
                except Exception as error:
                    self._fail(batch, error)
                    return

    def _abandon(self, batch: _Batch, error: Exception) -> None:
        """Forget every write that is not committed: later ones may build upon those that failed."""
        log.error("writes_abandoned", error=str(error), writes=len(self._uncommitted), exc_info=error)
        failure = WriteAbandoned(f"the write could not be stored: {error}")
        batches, self._open = (batch, self._open), None
        self._uncommitted.clear()
        for waiting in batches:
            if waiting is not None:
                waiting.done.set_exception(failure)
                waiting.done.exception()

    def _fail(self, batch: _Batch, error: Exception) -> None:
        failure = StoreFailed(f"cannot write {self._journal.path}: {error}")
        failure.__cause__ = error
        for waiting in (batch, self._open):
            if waiting is not None and not waiting.done.done():
                waiting.done.set_exception(failure)
                waiting.done.exception()
        self.failed.set_exception(failure)
        self.failed.exception()

    def _commit(self, change: Change) -> None:
        """Show a durable change to everyone. What goes wrong in an observer is the observer's: the change stands."""
        where = (change.resource, change.record.key)
        self._absorb(change)
        self.revision = change.record.revision
        if self._uncommitted.get(where) is change:
            del self._uncommitted[where]
        self._unreadable.pop(where, None)
        self._collections[change.resource].publish(change)
        self._remember(change)
        for listener in self._listeners:
            try:
                listener(change)
            except Exception:
                log.exception("listener_failed", resource=change.resource, object=change.record.key)

    def _absorb(self, change: Change) -> None:
        """Bring records and owner index up to date."""
        where = (change.resource, change.record.key)
        for uid in change.previous.owners if change.previous else ():
            self._dependents[uid].pop(where, None)
            if not self._dependents[uid]:
                del self._dependents[uid]
        if not change.deleted:
            for uid in change.record.owners:
                self._dependents[uid][where] = None
        self._collections[change.resource].apply(change)

    def _remember(self, change: Change) -> None:
        """Add to the history window; what falls out of it is superseded on disk too."""
        self._history.append(change)
        self._history_bytes += change.held_bytes
        while len(self._history) > self._history_limit or self._history_bytes > HISTORY_BYTES:
            oldest = self._history.popleft()
            self._history_bytes -= oldest.held_bytes
            self._collections[oldest.resource].forget_oldest()
            self.floor = oldest.record.revision
            if oldest.previous:
                self._superseded.append(oldest.previous.revision)
            if oldest.deleted:
                self._superseded.append(oldest.record.revision)

    def scan(self) -> Iterator[tuple[str, Record]]:
        """Every committed object with its resource."""
        for resource, collection in list(self._collections.items()):
            for record in list(collection.records.values()):
                yield resource, record
