"""Tests the reflector with an API server whose events arrive late, twice, out of order and with gaps.

What it must know after each message follows from the messages alone, whatever their order: `expected` says it the slow
way, from all of them.
"""

from __future__ import annotations

from collections.abc import Coroutine
from dataclasses import dataclass, field
from typing import Any, cast

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from remit.api.endpoint import Resource
from remit.kube import reflector as module
from remit.kube.indexer import CONTROLLER, by_controller, key_of
from remit.kube.reflector import ListBegun, Reflector, ResourceEventHandler
from support import repetitions

THINGS = Resource("example.com", "v1", "things")
NAMESPACES = ("red", "blue")
KEYS = [f"{namespace}/{name}" for namespace in (*NAMESPACES, "unserved") for name in ("a", "b")]
OWNERS = ("o1", "o2")
Object = dict[str, Any]


def uid_of(obj: Object) -> str:
    return str(obj["metadata"]["uid"])


def version_of(obj: Object) -> int:
    return int(obj["metadata"]["resourceVersion"])


@dataclass
class Server:
    """The current objects, and the whole history."""

    version: int = 0
    uids: int = 0
    live: dict[str, Object] = field(default_factory=dict)
    log: list[tuple[str, Object]] = field(default_factory=list)

    def put(self, key: str, owner: str | None) -> Object:
        self.version += 1
        namespace, _, name = key.partition("/")
        if key in self.live:
            type_, uid = "MODIFIED", uid_of(self.live[key])
        else:
            self.uids += 1
            type_, uid = "ADDED", f"u{self.uids}"
        metadata: Object = {
            "namespace": namespace,
            "name": name,
            "uid": uid,
            "resourceVersion": str(self.version),
            "ownerReferences": [{"uid": owner, "controller": True}] if owner else [],
        }
        self.live[key] = {"metadata": metadata}
        self.log.append((type_, self.live[key]))
        return self.live[key]

    def delete(self, key: str) -> None:
        self.version += 1
        obj = self.live.pop(key)
        self.log.append(("DELETED", {"metadata": obj["metadata"] | {"resourceVersion": str(self.version)}}))

    def list(self, namespace: str | None) -> list[Object]:
        return [obj for obj in self.live.values() if namespace in (None, obj["metadata"]["namespace"])]


@dataclass(eq=False)
class Listing:
    """A list in progress: requested, read by the server, and applied step by step. A list from before a restart may
    have the same content, but is another one."""

    namespace: str | None
    begun: ListBegun
    version: int = -1
    objects: list[Object] = field(default_factory=list)
    taking: Coroutine[Any, Any, None] | None = None


@dataclass
class Evidence:
    """Everything that the reflector was told since it began."""

    scoped: bool
    sightings: dict[str, list[tuple[int, int, Object]]] = field(default_factory=dict)
    """By uid: the version of the object, the version at which it existed, and the object."""
    deleted: dict[str, tuple[str, int]] = field(default_factory=dict)
    """By uid: its name, and when it was deleted."""
    lists: list[tuple[str | None, int, set[str]]] = field(default_factory=list)

    def saw(self, obj: Object, at: int | None = None) -> None:
        if not self.scoped or obj["metadata"]["namespace"] in NAMESPACES:
            version = version_of(obj)
            self.sightings.setdefault(uid_of(obj), []).append((version, at or version, obj))

    def expected(self) -> dict[str, Object]:
        newest = {uid: max(seen, key=lambda each: each[0])[2] for uid, seen in self.sightings.items()}
        there = {uid: (key_of(newest[uid]), max(at for _, at, _ in seen)) for uid, seen in self.sightings.items()}
        names = [*((uid, *where) for uid, where in there.items()), *((u, *where) for u, where in self.deleted.items())]

        def alive(uid: str) -> bool:
            key, at = there[uid]
            return (
                uid not in self.deleted
                and all(
                    uid in uids or version_of(newest[uid]) > version
                    for scope, version, uids in self.lists
                    if scope in (None, key.partition("/")[0])
                )
                and not any(other != uid and name == key and when > at for other, name, when in names)
            )

        return {uid: obj for uid, obj in newest.items() if alive(uid)}


class Machine(RuleBasedStateMachine):
    """The state machine. With a small `max_tombstones`, the expected state is known at the end only."""

    max_tombstones = module.MAX_TOMBSTONES
    answers = Bundle("answers")

    @initialize(scoped=st.booleans())
    def begin(self, scoped: bool) -> None:
        self.server = Server()
        self.scoped = scoped
        self.on_their_way: list[Listing] = []
        self.start()

    def start(self) -> None:
        self.reflector = Reflector(
            THINGS,
            namespaces=NAMESPACES if self.scoped else (),
            indexers={CONTROLLER: by_controller},
            max_tombstones=self.max_tombstones,
        )
        self.evidence = Evidence(self.scoped)
        self.told: dict[str, Object] = {}
        self.ended: set[str] = set()
        self.reflector.add_handler(ResourceEventHandler(self.on_add, self.on_update, self.on_delete))
        self.cursor = len(self.server.log)

    def on_add(self, obj: Object) -> None:
        assert uid_of(obj) not in self.told and uid_of(obj) not in self.ended
        assert all(key_of(other) != key_of(obj) for other in self.told.values())
        self.told[uid_of(obj)] = obj

    def on_update(self, before: Object, after: Object) -> None:
        assert self.told[uid_of(after)] is before
        assert version_of(before) < version_of(after)
        self.told[uid_of(after)] = after

    def on_delete(self, obj: Object) -> None:
        assert version_of(self.told.pop(uid_of(obj))) <= version_of(obj)
        self.ended.add(uid_of(obj))

    # What happens at the server.

    @rule(key=st.sampled_from(KEYS), owner=st.sampled_from([None, *OWNERS]))
    def put(self, key: str, owner: str | None) -> None:
        self.server.put(key, owner)

    @rule(key=st.sampled_from(KEYS), again=st.booleans())
    def delete(self, key: str, again: bool) -> None:
        if key in self.server.live:
            self.server.delete(key)
            if again:
                self.server.put(key, None)

    # What is heard of it.

    def hear(self, type_: str, obj: Object) -> None:
        if type_ == "DELETED":
            self.reflector.observe_deletion(obj)
            if not self.scoped or obj["metadata"]["namespace"] in NAMESPACES:
                self.evidence.deleted[uid_of(obj)] = key_of(obj), version_of(obj)
        else:
            self.reflector.observe(obj)
            self.evidence.saw(obj)

    @rule()
    def next_event(self) -> None:
        if self.cursor < len(self.server.log):
            self.hear(*self.server.log[self.cursor])
            self.cursor += 1

    @precondition(lambda self: self.server.log)
    @rule(data=st.data())
    def late_or_repeated_event(self, data: st.DataObject) -> None:
        self.hear(*data.draw(st.sampled_from(self.server.log)))

    @rule()
    def gap(self) -> None:
        """The watch expired. It begins anew, with what is there and without what was deleted."""
        self.cursor = len(self.server.log)
        for obj in self.server.list(None):
            self.hear("ADDED", obj)

    @rule(target=answers, key=st.sampled_from(KEYS), owner=st.sampled_from([None, *OWNERS]))
    def own_write(self, key: str, owner: str | None) -> Object:
        return self.server.put(key, owner)

    @rule(answer=answers)
    def answered(self, answer: Object) -> None:
        self.hear("MODIFIED", answer)

    @rule(key=st.sampled_from(KEYS))
    def looked_for_in_vain(self, key: str) -> None:
        """As after a write that is answered with 404."""
        known = self.reflector.objects.get(key)
        if known is not None and key not in self.server.live:
            self.reflector.observe_absence(known)
            self.evidence.deleted[uid_of(known)] = key, -1

    @rule(namespace=st.sampled_from(NAMESPACES), read=st.booleans())
    def ask_for_list(self, namespace: str, read: bool) -> None:
        listing = Listing(namespace if self.scoped else None, self.reflector.begin_list())
        self.on_their_way.append(listing)
        if read:
            self.read_list(listing)

    def read_list(self, listing: Listing) -> None:
        if listing.version < 0:
            listing.version, listing.objects = self.server.version, self.server.list(listing.namespace)

    @precondition(lambda self: self.on_their_way)
    @rule(data=st.data(), turns=st.integers(1, 5))
    def take_some_of_a_list(self, data: st.DataObject, turns: int) -> None:
        listing = data.draw(st.sampled_from(self.on_their_way))
        self.read_list(listing)
        self.take_list(listing, turns)

    def take_list(self, listing: Listing, turns: int) -> None:
        if listing.taking is None:
            version = str(listing.version)
            listing.taking = self.reflector.replace(listing.objects, version, listing.begun, listing.namespace)
        for _ in range(turns):
            try:
                listing.taking.send(None)
            except StopIteration:
                self.on_their_way.remove(listing)
                for obj in listing.objects:
                    self.evidence.saw(obj, listing.version)
                uids = {uid_of(obj) for obj in listing.objects}
                self.evidence.lists.append((listing.namespace, listing.version, uids))
                return

    @rule()
    def restart(self) -> None:
        for listing in self.on_their_way:
            if listing.taking is not None:
                listing.taking.close()
        self.on_their_way.clear()
        self.start()

    # What must be so.

    @invariant()
    def handlers_were_told_what_is_known(self) -> None:
        known = {uid_of(obj): obj for obj in self.reflector.objects.list()}
        assert known == self.told
        assert len(self.reflector._tombstones) <= self.max_tombstones
        assert self.reflector._moments.keys() == known.keys()

    @invariant()
    def every_index_holds_what_it_should(self) -> None:
        objects, known = self.reflector.objects, self.reflector.objects.list()
        for key in KEYS:
            assert objects.get(key) == next((obj for obj in known if key_of(obj) == key), None)
        for namespace in NAMESPACES:
            there = [obj for obj in known if obj["metadata"]["namespace"] == namespace]
            assert same(objects.list(namespace), there) and objects.count(namespace) == len(there)
        for owner in OWNERS:
            owned = [obj for obj in known if [owner] == [each["uid"] for each in obj["metadata"]["ownerReferences"]]]
            assert same(objects.by_index(CONTROLLER, owner), owned)

    @invariant()
    def what_is_known_follows_from_what_was_heard(self) -> None:
        exact = self.max_tombstones == module.MAX_TOMBSTONES
        if exact and not any(listing.taking for listing in self.on_their_way):
            assert {uid_of(obj): obj for obj in self.reflector.objects.list()} == self.evidence.expected()

    def teardown(self) -> None:
        """In the end all is heard, in whatever order, and a list is read: then what is known is what is so."""
        if not hasattr(self, "server"):
            return
        for listing in [*self.on_their_way]:
            self.read_list(listing)
            self.take_list(listing, 1000)
        while self.cursor < len(self.server.log):
            self.next_event()
        for namespace in NAMESPACES if self.scoped else NAMESPACES[:1]:
            self.ask_for_list(namespace, read=True)
            self.take_list(self.on_their_way[-1], 1000)
        served = [
            obj for obj in self.server.list(None) if not self.scoped or obj["metadata"]["namespace"] in NAMESPACES
        ]
        assert same(self.reflector.objects.list(), served)
        self.handlers_were_told_what_is_known()
        self.every_index_holds_what_it_should()
        self.what_is_known_follows_from_what_was_heard()


class FewTombstones(Machine):
    max_tombstones = 1

    def looked_for_in_vain(self, key: str) -> None:  # its moment is not known, so that no version can stand for it
        pass


def same(some: list[Object], others: list[Object]) -> bool:
    return sorted(some, key=uid_of) == sorted(others, key=uid_of)


@pytest.mark.no_cover
@pytest.mark.parametrize("machine", [Machine, FewTombstones])
def test_what_is_known_is_what_is_so(machine: type[Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_OBJECTS_PER_TURN", 1)
    run_state_machine_as_test(
        cast(Any, machine),
        settings=settings(
            max_examples=repetitions(40, soak=3000),
            stateful_step_count=40,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
