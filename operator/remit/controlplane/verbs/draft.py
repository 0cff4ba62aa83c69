"""A write that is decided in a thread while the event loop goes on, and stored if nothing that it read has changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime

from remit.controlplane.schema.celcost import Budget
from remit.controlplane.storage import Object, Record, Store


@dataclass(frozen=True)
class _Operation:
    act: Callable[[str, Object], Record]
    resource: str
    obj: Object
    drafted: Record


class Draft:
    """The part of `Store` that a write uses: it reads the store, and notes what it would change."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._read: dict[tuple[str, str, str], Record | None] = {}
        self._operations: list[_Operation] = []

    def latest(self, resource: str, namespace: str, name: str) -> Record | None:
        key = (resource, namespace, name)
        if key not in self._read:
            self._read[key] = self._store.latest(*key)
        return self._read[key]

    def put(self, resource: str, obj: Object) -> Record:
        return self._note(self._store.put, resource, obj)

    def remove(self, resource: str, obj: Object) -> Record:
        return self._note(self._store.remove, resource, obj)

    def _note(self, act: Callable[[str, Object], Record], resource: str, obj: Object) -> Record:
        drafted = Record.of(obj, 0)
        self._operations.append(_Operation(act, resource, obj, drafted))
        return drafted

    def commit(self) -> bool:
        """Hand the changes to the store, on its loop. False, without doing so, when what was read is not the latest."""
        if any(self._store.latest(*key) is not record for key, record in self._read.items()):
            return False
        for operation in self._operations:
            record = operation.act(operation.resource, operation.obj)
            if operation.drafted.shown is not None:
                record.remember_shown(operation.drafted.shown[0], record.raw)
        return True


@dataclass(frozen=True)
class Aside:
    """The environment of verbs that write in a thread: see `cluster.Writer`."""

    store: Draft
    now: Callable[[], datetime]

    def rule_budget(self) -> Budget:
        return Budget()
