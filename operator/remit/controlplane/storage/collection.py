"""All objects of one resource in memory, as the last commit left them, and their recent history."""

from __future__ import annotations

from bisect import bisect_left
from collections import deque
from collections.abc import Callable, Iterator

from remit.controlplane.storage.records import Change, Record

_AFTER_SLASH = chr(ord("/") + 1)


class Subscription:
    """The changes that one watcher has still to read. `wake` is called, without arguments, when there are some.

    Once a change did not fit (`overrun`) no later one is taken: a watcher must not see a history with a gap.
    """

    def __init__(self, wake: Callable[[], None], limit: int) -> None:
        self.changes: deque[Change] = deque()
        self.overrun = False
        self._wake = wake
        self._limit = limit

    def push(self, change: Change) -> None:
        if self.overrun:
            return
        if len(self.changes) < self._limit:
            self.changes.append(change)
        else:
            self.overrun = True
        self._wake()

    def forget(self, change: Change) -> None:
        """History forgets `change`. A watcher that has still to read it is cut off, or it would keep history alive."""
        if self.changes and self.changes[0] is change:
            self.changes.clear()
            self.overrun = True
            self._wake()


class Collection:
    """Reads see committed records only. `history` holds committed changes, oldest first."""

    def __init__(self) -> None:
        self.records: dict[str, Record] = {}
        self.history: deque[Change] = deque()
        self.subscriptions: set[Subscription] = set()
        self._keys: list[str] | None = []

    def apply(self, change: Change) -> None:
        key = change.record.key
        if change.deleted:
            self.records.pop(key, None)
            self._keys = None
        else:
            if key not in self.records:
                self._keys = None
            self.records[key] = change.record

    def publish(self, change: Change) -> None:
        self.history.append(change)
        for subscription in self.subscriptions:
            subscription.push(change)

    def forget_oldest(self) -> None:
        """Remove the oldest change from the history."""
        oldest = self.history.popleft()
        for subscription in self.subscriptions:
            subscription.forget(oldest)

    def keys(self) -> list[str]:
        """The keys in the order of lists."""
        if self._keys is None:
            self._keys = sorted(self.records)
        return self._keys

    def select(self, namespace: str = "", start: str = "") -> Iterator[Record]:
        """Records of a namespace (of all, when empty) in list order, from key `start` on."""
        return (self.records[key] for key in self.select_keys(namespace, start))

    def select_keys(self, namespace: str = "", start: str = "") -> list[str]:
        """The keys of what `select` gives."""
        keys = self.keys()
        first = bisect_left(keys, max(f"{namespace}/" if namespace else "", start))
        end = bisect_left(keys, f"{namespace}{_AFTER_SLASH}") if namespace else len(keys)
        return keys[first:end]

    def at(self, revision: int) -> Collection:
        """The collection as it was at `revision`, which must lie within the history."""
        past = Collection()
        past.records = dict(self.records)
        past._keys = None
        for change in reversed(self.history):
            if change.record.revision <= revision:
                break
            if change.previous:
                past.records[change.previous.key] = change.previous
            else:
                past.records.pop(change.record.key, None)
        return past
