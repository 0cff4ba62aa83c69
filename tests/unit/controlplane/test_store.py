"""Tests the store: nothing is visible before it is durable, history is kept, and a failing disk stops everything."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import os
import sqlite3
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from remit.controlplane.storage import Change, Store, StoreFailed, WriteAbandoned
from remit.controlplane.storage.mark import Mark
from remit.errors import InvalidInput


def thing(name: str, namespace: str = "default", **metadata: Any) -> dict[str, Any]:
    metadata = {"name": name, "namespace": namespace, "uid": f"uid-{name}", **metadata}
    return {"apiVersion": "v1", "kind": "Thing", "metadata": metadata}


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    store = Store(tmp_path / "state.db")
    store.start()
    yield store
    await store.stop()


async def reopen(store: Store, path: Path, **options: int) -> Store:
    await store.stop()
    again = Store(path, **options)
    again.start()
    return again


async def test_a_write_is_seen_only_when_it_is_durable(store: Store) -> None:
    record = store.put("things", thing("a"))
    assert store.get("things", "default", "a") is None
    assert store.latest("things", "default", "a") is record
    assert [r.name for r in store.latest_all("things")] == ["a"]
    await store.durable()
    assert store.get("things", "default", "a") is record
    store.remove("things", record.load())
    assert store.get("things", "default", "a") is record and store.latest("things", "default", "a") is None
    assert store.latest_all("things") == []
    await store.durable()
    assert store.get("things", "default", "a") is None


async def test_changes_are_published_in_order_and_after_their_commit(store: Store) -> None:
    seen: list[Change] = []
    store.listen(seen.append)
    subscription = store.subscribe("things", 0, lambda: None)
    for size in range(3):
        store.put("things", thing("a", size=size))
    store.put("others", thing("b"))
    assert not seen and not subscription.changes
    await store.durable()
    assert [c.record.revision for c in seen] == [1, 2, 3, 4]
    assert [(c.type, c.record.revision) for c in subscription.changes] == [
        ("ADDED", 1),
        ("MODIFIED", 2),
        ("MODIFIED", 3),
    ]


async def test_lists_are_in_kubernetes_order(store: Store) -> None:
    for namespace, name in (("b", "x"), ("a-b", "y"), ("a", "z"), ("a", "b")):
        store.put("things", thing(name, namespace))
    await store.durable()
    collection = store.collection("things")
    assert [r.key for r in collection.select()] == ["a-b/y", "a/b", "a/z", "b/x"]
    assert [r.key for r in collection.select("a")] == ["a/b", "a/z"]
    assert [r.key for r in collection.select("a", start="a/c")] == ["a/z"]
    assert [r.key for r in collection.select("nowhere")] == []


async def test_the_past_can_be_listed(store: Store) -> None:
    store.put("things", thing("a"))
    store.put("things", thing("b"))
    store.put("things", thing("a", labels={"new": "yes"}))
    store.remove("things", thing("b"))
    store.put("things", thing("c"))
    await store.durable()
    past = store.collection("things").at(2)
    assert [(r.name, r.labels) for r in past.select()] == [("a", {}), ("b", {})]
    assert [r.name for r in store.collection("things").at(4).select()] == ["a"]


async def test_a_restart_keeps_objects_revision_and_history(store: Store, tmp_path: Path) -> None:
    store.put("things", thing("a", ownerReferences=[{"uid": "owner"}]))
    store.put("things", thing("b"))
    store.remove("things", thing("b"))
    await store.durable()
    again = await reopen(store, tmp_path / "state.db")
    try:
        assert again.revision == 3 and again.put("things", thing("c")).revision == 4
        subscription = again.subscribe("things", 1, lambda: None)
        assert [(c.type, c.record.name) for c in subscription.changes] == [("ADDED", "b"), ("DELETED", "b")]
        assert [record.name for _, record in again.dependents("owner")] == ["a"]
    finally:
        await again.stop()


async def test_history_is_a_window_and_the_disk_forgets_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remit.controlplane.storage.store.COMPACT_EVERY", 5)
    path = tmp_path / "state.db"
    store = Store(path, history=10)
    store.start()
    for size in range(50):
        store.put("things", thing("a", size=size))
        await store.durable()
    store.put("things", thing("b"))
    store.remove("things", thing("b"))
    await store.durable()
    assert store.floor == 42
    again = await reopen(store, path, history=10)
    try:
        assert again.revision == 52
        assert again.floor >= 42 and again.get("things", "default", "a")
        kept = [change.record.revision for change in again.subscribe("things", again.floor, lambda: None).changes]
        assert kept == list(range(again.floor + 1, 53))
    finally:
        await again.stop()


async def test_a_slow_subscriber_is_told_that_it_missed_something(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("remit.controlplane.storage.store.SUBSCRIPTION_LIMIT", 2)
    woken = asyncio.Event()
    subscription = store.subscribe("things", 0, woken.set)
    for name in "abc":
        store.put("things", thing(name))
    await store.durable()
    assert subscription.overrun and len(subscription.changes) == 2 and woken.is_set()
    subscription.changes.clear()
    store.put("things", thing("d"))
    await store.durable()
    assert not subscription.changes, "what comes after a gap must not be shown"


async def test_a_disk_that_fails_stops_the_store(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("things", thing("a"))
    await store.durable()

    def full(changes: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(store._journal, "append", full)
    store.put("things", thing("b"))
    with pytest.raises(StoreFailed, match="disk full"):
        await store.durable()
    assert isinstance(store.failed.exception(), StoreFailed)
    assert store.get("things", "default", "b") is None, "what is not on the disk is never shown"
    with pytest.raises(StoreFailed):
        store.put("things", thing("c"))
    with pytest.raises(StoreFailed):
        await store.durable()


async def test_a_write_that_fails_for_another_reason_fails_alone(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    store.put("things", thing("a"))
    await store.durable()
    append = store._journal.append

    def broken(changes: object) -> None:
        monkeypatch.setattr(store._journal, "append", append)
        raise TypeError("this cannot be bound")

    monkeypatch.setattr(store._journal, "append", broken)
    store.put("things", thing("a", size=2))
    with pytest.raises(WriteAbandoned, match="cannot be bound"):
        await store.durable()
    latest = store.latest("things", "default", "a")
    assert latest is not None and latest.revision == 1, "nothing builds upon what was not written"
    assert not store.failed.done()
    assert store.put("things", thing("b")).revision > 2
    await store.durable()
    assert [r.name for r in store.collection("things").select()] == ["a", "b"]


async def test_an_observer_that_fails_does_not_stop_the_store(store: Store) -> None:
    seen: list[str] = []

    def broken(change: Change) -> None:
        raise KeyError("type")

    store.listen(broken)
    store.listen(lambda change: seen.append(change.record.name))
    for name in "ab":
        store.put("things", thing(name))
        await store.durable()
    assert seen == ["a", "b"] and not store.failed.done()


@pytest.mark.parametrize(
    "metadata",
    [
        {"ownerReferences": [{"uid": ["u"]}]},
        {"ownerReferences": [{}]},
        {"ownerReferences": 5},
        {"labels": {"a": 5}},
        {"labels": ["a"]},
        {"uid": 5},
    ],
)
async def test_malformed_metadata_is_refused_before_anything_is_written(store: Store, metadata: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match=r"metadata\."):
        store.put("things", thing("a") | {"metadata": {**thing("a")["metadata"], **metadata}})
    assert store.latest("things", "default", "a") is None
    assert store.put("things", thing("b")).revision == 1
    await store.durable()


BAD = {
    "no JSON": b"{",
    "a number": b"5",
    "no metadata": b"{}",
    "another name": b'{"metadata":{"name":"z","namespace":"default"}}',
    "an owner without uid": b'{"metadata":{"name":"bad","namespace":"default","ownerReferences":[{"uid":["u"]}]}}',
    "no name": b'{"metadata":{"name":5,"namespace":"default"}}',
}


@pytest.mark.parametrize("raw", BAD.values(), ids=BAD.keys())
async def test_one_unreadable_object_is_left_out_and_can_be_deleted(store: Store, tmp_path: Path, raw: bytes) -> None:
    path = tmp_path / "state.db"
    store.put("things", thing("bad"))
    store.put("things", thing("good"))
    await store.durable()
    store._journal._db.execute("INSERT INTO journal VALUES (3, 'things', 'default', 'bad', 0, ?)", (raw,))
    with capture_logs() as logs:
        store = await reopen(store, path)
    (told,) = [entry for entry in logs if entry["event"] == "object_unreadable"]
    assert (told["resource"], told["namespace"], told["name"], told["revision"]) == ("things", "default", "bad", 3)
    assert [r.name for r in store.collection("things").select()] == ["good"]
    assert store.is_unreadable("things", "default", "bad") and store.put("things", thing("new")).revision == 4
    await store.durable()
    store = await reopen(store, path)
    assert store.is_unreadable("things", "default", "bad"), "it is not lost"
    store.remove_unreadable("things", "default", "bad")
    await store.durable()
    assert not store.is_unreadable("things", "default", "bad")
    with capture_logs() as logs:
        store = await reopen(store, path)
    assert not logs and [r.name for r in store.collection("things").select()] == ["good", "new"]
    await store.stop()


async def test_an_unreadable_object_can_be_replaced(store: Store, tmp_path: Path) -> None:
    store._journal._db.execute("INSERT INTO journal VALUES (1, 'things', 'default', 'bad', 0, '{')")
    store = await reopen(store, tmp_path / "state.db")
    store.put("things", thing("bad"))
    await store.durable()
    assert not store.is_unreadable("things", "default", "bad")
    with capture_logs() as logs:
        store = await reopen(store, tmp_path / "state.db")
    assert not logs and store.get("things", "default", "bad")
    await store.stop()


async def test_one_process_at_a_time(store: Store, tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="in use by another control plane"):
        Store(tmp_path / "state.db")


async def test_a_newer_format_is_refused(store: Store, tmp_path: Path) -> None:
    store._journal._db.execute("UPDATE meta SET value = 99 WHERE key = 'format'")
    await store.stop()
    with pytest.raises(InvalidInput, match="format 99"):
        Store(tmp_path / "state.db")


# ---- what history holds ----------------------------------------------------------------------------------------------


def held(store: Store) -> int:
    """Returns the size of the JSON that only history keeps."""
    current = {id(record.raw) for _, record in store.scan()}
    changes = [*store._history, *(c for each in store._collections.values() for c in each.history)]
    records = [record for c in changes for record in (c.record, c.previous) if record is not None]
    return sum({id(r.raw): len(r.raw) for r in records if id(r.raw) not in current}.values())


async def test_history_is_bounded_by_the_memory_that_it_holds(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.controlplane.storage.store.HISTORY_BYTES", 1_000_000)
    subscription = store.subscribe("things", 0, lambda: None)
    for number in range(150):
        store.put("things", thing("a", annotations={"large": "x" * 100_000, "number": str(number)}))
        store.put("things", thing(f"small-{number}"))
    for number in range(20):
        store.remove("things", thing(f"small-{number}", annotations={"large": "x" * 100_000}))
    await store.durable()
    assert 700_000 < held(store) < 1_000_000
    assert subscription.overrun and not subscription.changes, "a watcher that does not read keeps no history"


async def test_a_watcher_that_reads_is_not_cut_off_by_what_history_forgets(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", history=3)
    store.start()
    subscription = store.subscribe("things", 0, lambda: None)
    seen = []
    for number in range(10):
        store.put("things", thing(f"t{number}"))
        await store.durable()
        seen.append(subscription.changes.popleft().record.name)
    assert seen == [f"t{number}" for number in range(10)] and not subscription.overrun
    await store.stop()


# ---- what the database lost ------------------------------------------------------------------------------------------


def written(path: Path) -> dict[str, bytes]:
    return {name: Path(f"{path}{name}").read_bytes() for name in ("", "-wal", "-shm")}


async def test_the_identity_stays_over_restarts(store: Store, tmp_path: Path) -> None:
    identity = store.identity
    store.put("things", thing("a"))
    with capture_logs() as logs:
        again = await reopen(store, tmp_path / "state.db")
        assert again.identity == identity
        await again.stop()
        (tmp_path / "state.mark").write_bytes(b"no mark")
        again = Store(tmp_path / "state.db")
        assert again.identity == identity
        await again.stop()
    assert not logs


async def test_a_disk_without_room_for_the_mark_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(Mark, "write", refused)
    with pytest.raises(InvalidInput, match=r"state\.db cannot be used: .*No space left on device; make room"):
        Store(tmp_path / "state.db")


@pytest.mark.parametrize("damage", ["end", "all", "removed"])
async def test_lost_writes_are_told_and_revisions_do_not_come_twice(tmp_path: Path, damage: str) -> None:
    """This is the state after a power failure with a damaged disk, and after the database was removed."""
    path = tmp_path / "state.db"
    store = Store(path)
    store.start()
    identity = store.identity
    for name in ("a", "b", "c"):
        store.put("things", thing(name))
        await store.durable()
    files = written(path)
    await store.stop()
    for name, content in files.items():
        Path(f"{path}{name}").write_bytes(content)
    if damage == "removed":
        for name in files:
            Path(f"{path}{name}").unlink()
    else:
        wal = bytearray(files["-wal"])
        at = 100 if damage == "all" else len(wal) - 2000
        wal[at : at + 8] = b"\xff" * 8
        Path(f"{path}-wal").write_bytes(wal)
    with capture_logs() as logs:
        store = Store(path)
        store.start()
    (told,) = logs
    assert (told["event"], told["log_level"], told["acknowledged"]) == ("store_lost_writes", "error", 3)
    assert told["store"] == store.identity != identity and "restore a backup" in told["remedy"]
    names = [record.name for record in store.collection("things").select()]
    assert names == (["a", "b"] if damage == "end" else [])
    assert store.revision > 3 and store.floor == store.revision, "watches of before are told 410"
    assert store.put("things", thing("d")).revision > 3
    again = store.identity
    with capture_logs() as logs:
        store = await reopen(store, path)
    assert store.identity == again and not logs
    await store.stop()


@pytest.mark.parametrize("content", [b"no database at all, " * 300, b"SQLite format 3\x00" + b"\xff" * 8000])
async def test_a_damaged_database_is_named_with_the_remedy(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(content)
    for _ in range(2):  # nothing is held after the refusal
        with pytest.raises(InvalidInput, match=r"state\.db cannot be used: .*it is damaged: restore a backup"):
            Store(path)
    assert path.read_bytes() == content


async def test_a_damaged_page_is_named_with_the_remedy(store: Store, tmp_path: Path) -> None:
    for number in range(200):
        store.put("things", thing(f"t{number}", annotations={"a": "x" * 1000}))
    await store.stop()
    path = tmp_path / "state.db"
    content = bytearray(path.read_bytes())
    for page in range(8, len(content) // 4096):
        content[page * 4096 : page * 4096 + 8] = b"\xff" * 8
    path.write_bytes(content)
    with pytest.raises(InvalidInput, match=r"state\.db cannot be used: .*restore a backup"):
        Store(path)


async def test_rows_of_wrong_types_are_left_out_and_named(store: Store, tmp_path: Path) -> None:
    store.put("things", thing("good"))
    await store.stop()
    path = tmp_path / "state.db"
    rows: list[tuple[Any, ...]] = [
        ("things", "default", "null", 0, b"null"),
        ("things", "default", "number", 0, 5),
        ("things", "default", "text", 0, "{"),
        ("things", "default", "binary", 0, b"\xff\x00"),
        (b"\xff", "default", "resource", 0, b"{}"),
        ("things", b"\xff\xfe", "namespace", 0, b"{}"),
        ("things", "default", 7, "x", b'{"metadata":5}'),
    ]
    with sqlite3.connect(path) as db:
        for row in rows:
            db.execute("INSERT INTO journal SELECT max(rv) + 1, ?, ?, ?, ?, ? FROM journal", row)
        db.execute("UPDATE journal SET name = CAST(x'fffe' AS TEXT) WHERE name = 'null'")
    db.close()
    with capture_logs() as logs:
        store = Store(path)
    assert [record.name for record in store.collection("things").select()] == ["good"]
    assert len(logs) == 6 and {entry["event"] for entry in logs} == {"object_unreadable"}, logs
    await store.stop()


async def test_records_take_no_more_memory_than_their_json(store: Store) -> None:
    """The buffers of the JSON library are larger than what it writes into them."""
    usable = ctypes.CDLL(None).malloc_usable_size
    usable.argtypes = [ctypes.c_void_p]
    record = store.put("things", thing("a", annotations={"a": "x" * 3_000, **{f"k{n}": "v" for n in range(100)}}))
    assert usable(id(record.raw)) < len(record.raw) + 200
