"""Objects of one kind by uid, with indexes, after client-go's Indexer.

Every answer is a list of its own, so the objects may change while somebody goes through it. The objects themselves are
shared and must not be changed.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Mapping
from typing import TypeVar

from remit.kube.client import Object, Objects

_Value = TypeVar("_Value", bound=Hashable)

IndexFunc = Callable[[Object], Iterable[Hashable]]
"""The values under which an object is found. It must not fail, whatever is in the object."""

CONTROLLER = "controller"
"""The index by the uid of the controller that an object names."""
PHASE = "phase"
"""The index by `status.phase`; an object that has none is `Pending`, as in `kubectl get`."""


def key_of(obj: Object) -> str:
    """`namespace/name`."""
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def by_controller(obj: Object) -> list[Hashable]:
    """The uid of the owner that manages `obj`. Whoever creates an object may name any owner in it."""
    references = obj["metadata"].get("ownerReferences")
    if not isinstance(references, list):
        return []
    uids = [each.get("uid") for each in references if isinstance(each, dict) and each.get("controller") is True]
    return [uid for uid in uids if isinstance(uid, str)]


def by_phase(obj: Object) -> list[Hashable]:
    """Whoever may write status writes any phase."""
    status = obj.get("status")
    phase = status.get("phase") if isinstance(status, dict) else None
    return [phase if isinstance(phase, str) and phase else "Pending"]


class Indexer:
    """Not thread-safe: it lives on the event loop. `indexers` are the indexes besides that by name and by namespace."""

    def __init__(self, indexers: Mapping[str, IndexFunc] | None = None) -> None:
        self._indexers = dict(indexers or {})
        self._objects: dict[str, Object] = {}
        self._uids: dict[str, str] = {}
        """Uids by `namespace/name`."""
        self._namespaces: dict[str, dict[str, Object]] = {}
        self._indexes: dict[str, dict[Hashable, dict[str, Object]]] = {name: {} for name in self._indexers}

    def __len__(self) -> int:
        return len(self._objects)

    def __contains__(self, uid: str) -> bool:
        return uid in self._objects

    def get(self, key: str) -> Object | None:
        """The object of this `namespace/name`."""
        uid = self._uids.get(key)
        return None if uid is None else self._objects[uid]

    def get_by_uid(self, uid: str) -> Object | None:
        return self._objects.get(uid)

    def list(self, namespace: str | None = None) -> Objects:
        """All objects, or those of one namespace."""
        found = self._objects if namespace is None else self._namespaces.get(namespace, {})
        return [*found.values()]

    def count(self, namespace: str | None = None) -> int:
        """How many there are, or are in one namespace."""
        return len(self._objects if namespace is None else self._namespaces.get(namespace, ()))

    def by_index(self, index: str, value: Hashable) -> Objects:
        """The objects that the index `index` has under `value`."""
        return [*self._indexes[index].get(value, {}).values()]

    def count_by_index(self, index: str, value: Hashable) -> int:
        """How many objects the index `index` has under `value`."""
        return len(self._indexes[index].get(value, ()))

    def put(self, obj: Object) -> Object | None:
        """Add an object, or replace the one with its uid, which is returned. Its name must not be another object's."""
        uid, key = obj["metadata"]["uid"], key_of(obj)
        known = self.remove(uid)
        if key in self._uids:
            raise ValueError(f"{key} is the name of two objects")
        self._objects[uid] = obj
        self._uids[key] = uid
        self._namespaces.setdefault(obj["metadata"].get("namespace", ""), {})[uid] = obj
        for name, values in self._indexers.items():
            for value in values(obj):
                self._indexes[name].setdefault(value, {})[uid] = obj
        return known

    def remove(self, uid: str) -> Object | None:
        """Remove the object `uid` and return it; None where there is none."""
        obj = self._objects.pop(uid, None)
        if obj is not None:
            del self._uids[key_of(obj)]
            _remove(self._namespaces, obj["metadata"].get("namespace", ""), uid)
            for name, values in self._indexers.items():
                for value in {*values(obj)}:
                    _remove(self._indexes[name], value, uid)
        return obj


def _remove(index: dict[_Value, dict[str, Object]], value: _Value, uid: str) -> None:
    del index[value][uid]
    if not index[value]:
        del index[value]
