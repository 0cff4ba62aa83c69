"""One kind of objects as the API server has them, kept by lists, watch events and the answers to our own writes.

These arrive in any order and more than once. After each, the store depends on what has arrived and not on the order:

- Of one object, the form with the highest resourceVersion is kept.
- A uid that was deleted never comes back. Deletions are remembered until a list covers them.
- A list deletes what it does not hold, unless that was seen with a higher resourceVersion than the list's.
- What is not known, and not newer than the newest list, which did not hold it, is dropped: it is gone already.
- When two uids have one name, the one with the lower resourceVersion was deleted before the other was created.

resourceVersions are compared as integers, which Kubernetes promises (KEP-5504) and etcd always gave. Where one of two
is not an integer, what arrives later counts as newer, and a list is as old as the moment when it was asked for. Then a
late event may bring back an object that another one of its name replaced, until the next list.

A list below what was known before it was asked for means that the server's history went back, because somebody restored
etcd from a backup or began with an empty state. That list is taken over as it is.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import Enum, auto
from typing import NamedTuple

import structlog

from remit.api.endpoint import Resource
from remit.kube.client import Kube, Object
from remit.kube.indexer import Indexer, IndexFunc, key_of

log = structlog.get_logger(__name__)

MAX_TOMBSTONES = 10_000
"""Deletions that are remembered between two lists."""
_MAX_DIGITS = 20
"""The digits of an unsigned 64-bit integer."""
_OBJECTS_PER_TURN = 100
"""Objects of a list that are taken over before others have a turn on the event loop."""


class _Moment(NamedTuple):
    """When something was so: by resourceVersion where it can be compared, else by the order of arrival."""

    version: int | None
    arrival: int

    def after(self, other: _Moment) -> bool:
        if self.version is None or other.version is None:
            return self.arrival > other.arrival
        return self.version > other.version


_BEFORE = _Moment(-1, 0)
"""The moment of objects that were known when the server's history went back, whose resourceVersions are void now."""


class _Deletion(Enum):
    """How it is known that an object is gone."""

    SEEN = auto()
    VANISHED = auto()
    """Nobody saw its deletion."""
    SEEN_LATE = auto()
    """After it was told of as vanished."""


class _Tombstone(NamedTuple):
    """A record that an object was gone at a moment."""

    scope: str | None
    key: str
    at: _Moment


class ListBegun(NamedTuple):
    """A list that was asked for."""

    arrival: int
    newest: int
    """The highest version that was known. A list is a consistent read, so it is not below that."""


@dataclass(frozen=True, slots=True)
class ResourceEventHandler:
    """Is told of each uid: one `on_add`, any number of `on_update(before, after)`, and one `on_delete` with the form
    that was told last. They are called on the event loop, in the order of the changes, after the store has changed.

    Where `on_vanish` is given, it is called instead of `on_delete` for an object whose deletion nobody saw: the server
    just does not have it any more, and may have lost it. If its deletion is seen later, `on_delete` follows."""

    on_add: Callable[[Object], None] = lambda obj: None
    on_update: Callable[[Object, Object], None] = lambda before, after: None
    on_delete: Callable[[Object], None] = lambda obj: None
    on_vanish: Callable[[Object], None] | None = None


class Reflector:
    """Keeps `objects` up to date with what is observed. Not thread-safe: it lives on the event loop.

    `namespaces` are those that are listed, and objects of others are ignored; empty: all. `field_selector` and
    `label_selector` must select by what never changes of an object, because an object that leaves the selection is
    deleted for good.
    """

    def __init__(
        self,
        resource: Resource,
        *,
        namespaces: Iterable[str] = (),
        field_selector: str = "",
        label_selector: str = "",
        indexers: Mapping[str, IndexFunc] | None = None,
        max_tombstones: int = MAX_TOMBSTONES,
        transform: Callable[[Object], Object] | None = None,
    ) -> None:
        """`transform` makes of each object what is kept of it and told, as client-go's TransformFunc. What it gives has
        the object's metadata, but for what nobody here looks at."""
        self.resource = resource
        self.namespaces = tuple(namespaces)
        self.objects = Indexer(indexers)
        self._field_selector, self._label_selector = field_selector, label_selector
        self._max_tombstones = max_tombstones
        self._transform = transform
        self._handlers: list[ResourceEventHandler] = []
        self._moments: dict[str, _Moment] = {}
        """When each object of `objects` was changed last."""
        self._tombstones: dict[str, _Tombstone] = {}
        """Tombstones by deleted uid, oldest first."""
        self._last_holders: dict[str, str] = {}
        """The last deleted uid of each `namespace/name`, of those that were deleted at a known version."""
        self._listed: dict[str | None, int] = {}
        """The version of the newest list of each scope: a namespace, or None for all of them."""
        self._vanished: dict[str, None] = {}
        """The last uids whose deletion nobody has seen yet, oldest first."""
        self._untold: deque[tuple[Object | None, Object | None, _Deletion]] = deque()
        """Changes, before and after, of which the handlers have not been told yet."""
        self._telling = False
        self._arrivals = 0
        self._newest = 0
        """The highest version that was seen."""

    def add_handler(self, handler: ResourceEventHandler) -> None:
        """Tell `handler` of what is there, and of every change from now on."""
        self._handlers.append(handler)
        for obj in self.objects.list():
            _call(handler, None, obj)

    def observe(self, obj: Object) -> None:
        """A watch event that is not a deletion, or the answer to a request about an object."""
        if self._in_scope(obj):
            obj = self._kept(obj)
            now = self._now(obj)
            listed = self._listed.get(self._scope(obj))
            gone = listed is not None and now.version is not None and now.version <= listed
            self._take(obj, changed=now, seen=now, gone=gone)

    def observe_deletion(self, obj: Object) -> None:
        """A watch event that tells of a deletion. `obj` is the last form of the object."""
        if self._in_scope(obj):
            obj = self._kept(obj)
            now = self._now(obj)
            self._bury(obj, now)
            if self._was_vanished(obj["metadata"]["uid"]):
                self._tell(obj, None, _Deletion.SEEN_LATE)
            self._remove(obj["metadata"]["uid"], obj if self._is_news(obj, now) else None)
            self._replace_namesake(obj, now)

    def observe_absence(self, obj: Object) -> None:
        """`obj` was there, and the server has answered since that there is no object of its name."""
        if self._in_scope(obj):
            self._bury(obj, _Moment(None, self._arrive()))
            self._remove(obj["metadata"]["uid"], how=_Deletion.VANISHED)

    async def list(self, kube: Kube) -> None:
        """List everything and take it over. Raises `ApiError`."""
        for namespace in self.namespaces or (None,):
            await self.list_in(kube, namespace)

    async def list_in(self, kube: Kube, namespace: str | None) -> str:
        """List one of the namespaces (None: all of them). Gives the resourceVersion that a watch goes on from."""
        begun = self.begin_list()
        objects, version = await kube.snapshot(
            self.resource,
            namespace,
            field_selector=self._field_selector,
            label_selector=self._label_selector,
            transform=self._transform,
        )
        oldest_first = sorted(objects, key=lambda obj: str(obj["metadata"].get("creationTimestamp", "")))
        await self.replace(oldest_first, version, begun, namespace)
        return version

    def begin_list(self) -> ListBegun:
        """Call it before a list is asked for. `replace` wants the answer."""
        return ListBegun(self._arrive(), self._newest)

    async def replace(
        self, listed: Iterable[Object], version: str, begun: ListBegun, namespace: str | None = None
    ) -> None:
        """Take over a list of `namespace` (None: all of them) as of resourceVersion `version`."""
        at, uids = _Moment(_number(version), begun.arrival), set()
        if at.version is not None and at.version < begun.newest:
            self._forget_order()
        self._newest = max(self._newest, at.version or 0)
        for count, obj in enumerate(listed, 1):
            uids.add(obj["metadata"]["uid"])
            newest = self._listed.get(namespace)
            gone = newest is not None and at.version is not None and at.version < newest
            self._take(obj, changed=_Moment(_version(obj), begun.arrival), seen=at, gone=gone)
            if count % _OBJECTS_PER_TURN == 0:
                await asyncio.sleep(0)
        self._cover(namespace, at)
        for count, obj in enumerate(self.objects.list(namespace), 1):
            uid = obj["metadata"]["uid"]
            if uid not in uids and uid in self._moments and not self._moments[uid].after(at):
                self._bury(obj, at)
                self._remove(uid, how=_Deletion.VANISHED)
            if count % _OBJECTS_PER_TURN == 0:
                await asyncio.sleep(0)

    def _forget_order(self) -> None:
        """The server's history went back: all that is known is older than what comes now."""
        log.warning("the API server's history went back; its list is taken over", resource=self.resource.plural)
        self._newest = 0
        self._listed.clear()
        self._tombstones.clear()
        self._last_holders.clear()
        self._moments = dict.fromkeys(self._moments, _BEFORE)

    def _take(self, obj: Object, *, changed: _Moment, seen: _Moment, gone: bool) -> None:
        """`obj` was changed last at `changed`, and was there at `seen`. `gone`: a newer list did not hold it."""
        uid = obj["metadata"]["uid"]
        if uid in self._tombstones:
            return
        if uid in self.objects:
            if self._is_news(obj, changed):
                self._put(obj, changed)
            return
        if gone:
            return
        if (newer := self._replace_namesake(obj, seen)) is None:
            self._put(obj, changed)
        elif newer.version is not None:
            self._bury(obj, newer)

    def _replace_namesake(self, obj: Object, seen: _Moment) -> _Moment | None:
        """Delete another uid that had the name before `obj` had it at `seen`. Gives the moment of one that has had it
        since."""
        last = self._last_holders.get(key_of(obj))
        if last is not None and seen.version is not None and self._tombstones[last].at.after(seen):
            return self._tombstones[last].at
        namesake = self.objects.get(key_of(obj))
        if namesake is None or (uid := namesake["metadata"]["uid"]) == obj["metadata"]["uid"]:
            return None
        if self._moments[uid].after(seen):
            return self._moments[uid]
        # Otherwise the deletion is not proven, and the next list must be able to restore the object.
        if seen.version is not None:
            self._bury(namesake, seen)
        self._remove(uid, how=_Deletion.VANISHED)
        return None

    def _is_news(self, obj: Object, changed: _Moment) -> bool:
        """Whether it is a newer form of an object that is known."""
        known = self.objects.get_by_uid(obj["metadata"]["uid"])
        if known is None:
            return False
        moment = self._moments[obj["metadata"]["uid"]]
        if moment is not _BEFORE and known["metadata"].get("resourceVersion") == obj["metadata"].get("resourceVersion"):
            return False
        return changed.after(moment)

    def _put(self, obj: Object, changed: _Moment) -> None:
        self._moments[obj["metadata"]["uid"]] = changed
        before = self.objects.put(obj)
        self._tell(before, obj)

    def _remove(self, uid: str, last: Object | None = None, how: _Deletion = _Deletion.SEEN) -> None:
        """Delete the object `uid` if it is known. `last` is its last form, where that is newer than what is known."""
        self._moments.pop(uid, None)
        known = self.objects.remove(uid)
        if known is None:
            return
        if how is _Deletion.VANISHED:
            self._vanished[uid] = None
            if len(self._vanished) > self._max_tombstones:
                del self._vanished[next(iter(self._vanished))]
        if last is not None:
            self._tell(known, last)
        self._tell(last or known, None, how)

    def _was_vanished(self, uid: str) -> bool:
        """Whether it was told of as vanished, and not asked for since."""
        known = uid in self._vanished
        self._vanished.pop(uid, None)
        return known

    def _bury(self, obj: Object, at: _Moment) -> None:
        """Remember that `obj` was gone by `at`, unless the newest list covers that."""
        uid, key, scope = obj["metadata"]["uid"], key_of(obj), self._scope(obj)
        if at.version is not None and at.version <= self._listed.get(scope, -1):
            return
        before = self._tombstones.get(uid)
        if before is not None and before.at.version is not None and not at.after(before.at):
            return
        self._tombstones[uid] = _Tombstone(scope, key, at)
        last = self._last_holders.get(key)
        if at.version is not None and (last is None or at.after(self._tombstones[last].at)):
            self._last_holders[key] = uid
        if len(self._tombstones) > self._max_tombstones:
            oldest = self._exhume(next(iter(self._tombstones)))
            if oldest.at.version is not None:
                self._listed[oldest.scope] = max(oldest.at.version, self._listed.get(oldest.scope, -1))

    def _exhume(self, uid: str) -> _Tombstone:
        tombstone = self._tombstones.pop(uid)
        if self._last_holders.get(tombstone.key) == uid:
            del self._last_holders[tombstone.key]
        return tombstone

    def _cover(self, scope: str | None, at: _Moment) -> None:
        """A list as of `at` was taken over. It tells of every deletion before."""
        if at.version is None:
            return
        self._listed[scope] = max(at.version, self._listed.get(scope, -1))
        for uid, tombstone in list(self._tombstones.items()):
            if tombstone.scope == scope and not tombstone.at.after(at):
                self._exhume(uid)

    def _tell(self, before: Object | None, after: Object | None, how: _Deletion = _Deletion.SEEN) -> None:
        """Call the handlers, one change after the other: what a handler changes is told once all have heard of this."""
        self._untold.append((before, after, how))
        if self._telling:
            return
        self._telling = True
        try:
            while self._untold:
                before, after, how = self._untold.popleft()
                for handler in self._handlers:
                    _call(handler, before, after, how)
        finally:
            self._telling = False

    def _now(self, obj: Object) -> _Moment:
        """The moment that `obj` tells of, as it arrives."""
        now = _Moment(_version(obj), self._arrive())
        self._newest = max(self._newest, now.version or 0)
        return now

    def _arrive(self) -> int:
        self._arrivals += 1
        return self._arrivals

    def _kept(self, obj: Object) -> Object:
        return self._transform(obj) if self._transform is not None else obj

    def _in_scope(self, obj: Object) -> bool:
        return not self.namespaces or obj["metadata"].get("namespace") in self.namespaces

    def _scope(self, obj: Object) -> str | None:
        return obj["metadata"].get("namespace", "") if self.namespaces else None


def _call(
    handler: ResourceEventHandler, before: Object | None, after: Object | None, how: _Deletion = _Deletion.SEEN
) -> None:
    try:
        if before is None and after is not None:
            handler.on_add(after)
        elif before is not None and after is None:
            if how is _Deletion.VANISHED and handler.on_vanish is not None:
                handler.on_vanish(before)
            elif how is not _Deletion.SEEN_LATE or handler.on_vanish is not None:
                handler.on_delete(before)
        elif before is not None and after is not None:
            handler.on_update(before, after)
    except Exception:  # an error in one handler must not keep the change from the others
        log.exception("a handler of events failed")


def _version(obj: Object) -> int | None:
    return _number(obj["metadata"].get("resourceVersion", ""))


def _number(version: str) -> int | None:
    return int(version) if version.isascii() and version.isdecimal() and len(version) <= _MAX_DIGITS else None
