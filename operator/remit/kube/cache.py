"""The world as the watches tell it: the newest object of each kind, by `namespace/name`.

Deletions that fall into the gap of an expired watch are never reported; `replace` prunes them.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator
from typing import Any

Object = dict[str, Any]


def key_of(obj: Object) -> str:
    return f"{obj['metadata'].get('namespace', '')}/{obj['metadata']['name']}"


def _version(obj: Object) -> int:
    # Opaque by the letter, an ordered integer in every server there is (and by KEP-5504 in the letter too).
    text = obj["metadata"].get("resourceVersion", "0")
    return int(text) if text.isdigit() else 0


class Cache:
    """Objects of several kinds. Not thread-safe: it lives on the event loop."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Object]] = defaultdict(dict)

    def get(self, plural: str, key: str) -> Object | None:
        return self._objects[plural].get(key)

    def all(self, plural: str, namespace: str | None = None) -> Iterator[Object]:
        for key, obj in self._objects[plural].items():
            if namespace is None or key.startswith(f"{namespace}/"):
                yield obj

    def store(self, plural: str, obj: Object) -> bool:
        """Keep `obj` unless a newer one is known. Says whether anything changed."""
        known = self._objects[plural].get(key_of(obj))
        same = known is not None and known["metadata"].get("uid") == obj["metadata"].get("uid")
        if known is not None and same and _version(known) >= _version(obj):
            return False
        self._objects[plural][key_of(obj)] = obj
        return True

    def remove(self, plural: str, key: str, uid: str | None = None) -> Object | None:
        """Forget an object; only if it is the one with `uid`, where that is given."""
        known = self._objects[plural].get(key)
        if known is None or (uid and known["metadata"].get("uid") != uid):
            return None
        return self._objects[plural].pop(key)

    def keys(self, plural: str) -> frozenset[str]:
        return frozenset(self._objects[plural])

    def replace(self, plural: str, listed: Iterable[Object], known: frozenset[str]) -> set[str]:
        """Take over a whole list. Gives the keys of what is new, changed or gone.

        `known` are the keys from before the list was asked for: what came in the meantime is not gone.
        """
        objects = {key_of(obj): obj for obj in listed}
        changed = {key for key, obj in objects.items() if self.store(plural, obj)}
        gone = (known - objects.keys()) & self._objects[plural].keys()
        for key in gone:
            del self._objects[plural][key]
        return changed | gone
