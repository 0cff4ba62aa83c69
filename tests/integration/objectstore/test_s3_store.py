"""Tests artifacts in a real object store: every replica finds either all of what an attempt left or nothing, and
nothing remains without a limit."""

from __future__ import annotations

import io
import random
import time
from dataclasses import replace
from pathlib import Path

import obstore
import pytest

import artifacts
from objectstores import NO_GRACE, Swift, keys
from remit.backends.elapsed import ElapsedTime
from remit.execution.artifacts.s3 import contents as s3_contents
from remit.execution.artifacts.s3.bucket import Bucket
from remit.execution.artifacts.s3.location import S3Location
from remit.execution.artifacts.s3.store import S3Store
from remit.execution.artifacts.saving import save
from remit.execution.artifacts.stored import Damaged, StoredArtifact

HOUR = 3600


def put(
    store: S3Store, task: str, files: dict[str, bytes], *, uid: str = "uid", retain: int = 0, name: str = "files"
) -> StoredArtifact:
    with store.collecting() as collecting:
        kept = [
            collecting.put(path, io.BytesIO(content), executable=path.startswith("bin"), most=1 << 30)
            for path, content in sorted(files.items())
        ]
        collecting.sync()
        artifacts.record(store, "data", task, uid, [left := StoredArtifact(name, tuple(kept), retain)])
    return left


def contents(store: S3Store, task: str) -> dict[str, bytes] | None:
    found = store.find("data", task, "files")
    return found and {file.path: store.open(file).read() for file in found.files}


PART = 100_000
LARGE = random.Random(1).randbytes(2 * PART + 1)
FILES = {"empty": b"", "bin/tool": b"#!/bin/sh\n", "sub/folder/large": LARGE, "whole": LARGE[:PART]}


@pytest.fixture(autouse=True)
def _smaller(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes parts smaller, so that large contents take less time. `test_s3_killed.py` uses the usual size."""
    monkeypatch.setattr(s3_contents, "PART_BYTES", PART)


def test_another_replica_finds_every_file_byte_for_byte(store: S3Store, where: S3Location, tmp_path: Path) -> None:
    left = put(store, "build", FILES)
    other = S3Store(Bucket(where), tmp_path / "second")
    assert other.artifacts("data", "build") == [left]
    assert contents(other, "build") == FILES
    tree = other.tree(left, "somebody")
    assert {path: (tree / path).read_bytes() for path in FILES} == FILES
    assert {path: (tree / path).stat().st_mode & 0o777 for path in FILES} == {
        path: 0o555 if path.startswith("bin") else 0o444 for path in FILES
    }
    assert other.tree(left, "another") == tree
    save(other, left, tmp_path / "saved")
    assert (tmp_path / "saved" / "sub" / "folder" / "large").read_bytes() == LARGE


def test_a_content_is_stored_once_and_sent_once(store: S3Store, swift: Swift, where: S3Location) -> None:
    put(store, "one", {"a": LARGE, "b": LARGE})
    blobs = {key for key in keys(swift, where) if key.startswith("blobs/")}
    assert len(blobs) == 3
    before = {each.key: each.time for each in Bucket(where).list("blobs")}
    put(store, "two", {"c": LARGE, "small": b"x"})
    after = {each.key: each.time for each in Bucket(where).list("blobs")}
    assert len(after) == 4
    assert {key: after[key] for key in before} == before


def test_what_is_missing_of_a_content_is_sent_again(store: S3Store, where: S3Location) -> None:
    put(store, "one", {"a": LARGE})
    bucket = Bucket(where)
    first, second, last = sorted(each.key for each in bucket.list("blobs"))
    bucket.delete([second])
    bucket.put(last, b"")
    put(store, "two", {"a": LARGE})
    assert contents(store, "two") == {"a": LARGE}
    assert first in {each.key for each in bucket.list("blobs")}


def test_it_is_found_when_its_end_is_on_record_and_not_before(store: S3Store) -> None:
    first = put(store, "build", {"a": b"first"})
    with store.collecting() as collecting:
        file = collecting.put("a", io.BytesIO(b"second"), executable=False, most=10)
        collecting.sync()
        store.stage("data", "build", "uid-2", [second := StoredArtifact("files", (file,))])
    assert store.artifacts("data", "build") == [first]
    store.prune(1 << 30)
    store.commit("uid", "uid-2")
    store.commit("uid", "uid-2")
    assert store.artifacts("data", "build") == [second]
    assert contents(store, "build") == {"a": b"second"}
    assert store.find("data", "build", "files", first.digest) is None
    assert store.find("data", "build", "other") is None


def test_of_an_attempt_that_was_lost_nothing_stays(store: S3Store, swift: Swift, where: S3Location) -> None:
    with store.collecting() as collecting:
        file = collecting.put("a", io.BytesIO(LARGE), executable=False, most=1 << 30)
        collecting.sync()
        store.stage("data", "build", "uid-1", [StoredArtifact("files", (file,))])
    store.prune(1 << 30)
    assert len(keys(swift, where)) == 4, "it may still be told how it ended"
    store.discard("uid-1")
    store.prune(1 << 30)
    assert keys(swift, where) == set()


def test_the_newest_of_a_name_is_found_wherever_the_clock_is(store: S3Store, monkeypatch: pytest.MonkeyPatch) -> None:
    put(store, "build", {"a": b"old"}, uid="first")
    monkeypatch.setattr(time, "time_ns", lambda: 1)
    put(store, "build", {"a": b"new"}, uid="second")
    assert contents(store, "build") == {"a": b"new"}


@pytest.mark.parametrize("damage", ["changed", "cut off", "longer", "gone"])
def test_a_damaged_content_is_reported_and_never_delivered(
    store: S3Store, where: S3Location, tmp_path: Path, damage: str
) -> None:
    left = put(store, "build", {"a": LARGE, "b": b"whole"})
    bucket = Bucket(where)
    victim = sorted(each.key for each in bucket.list("blobs") if each.size == PART)[1]
    content = bucket.get(victim) or b""
    match damage:
        case "changed":
            bucket.put(victim, content[:-1] + bytes([content[-1] ^ 1]))
        case "cut off":
            bucket.put(victim, content[:-1])
        case "longer":
            bucket.put(victim, content + b"x")
        case "gone":
            bucket.delete([victim])
    target = tmp_path / "target"
    with pytest.raises(Damaged, match="damaged"):
        save(store, replace(left, files=left.files[:1]), target)
    assert not target.exists()
    assert [path for path in tmp_path.iterdir() if path.name.startswith(".remit")] == []
    with pytest.raises(Damaged):
        store.tree(left, "somebody")
    assert list((store.folder / "trees").iterdir()) == []
    with store.open(left.files[0]) as source, pytest.raises(Damaged):
        while source.read(1 << 20):
            pass


def test_a_damaged_record_stops_nothing(store: S3Store, where: S3Location) -> None:
    left = put(store, "build", {"a": b"a"})
    bucket = Bucket(where)
    bucket.put("tasks/data/build/other.9999999999999999.json", b'{"artifacts": [{}]}')
    bucket.put("tasks/data/build/stranger", b"")
    bucket.put("tasks/data/broken/uid.0000000000000001.json", b"\xff")
    assert store.artifacts("data", "build") == [left]
    store.prune(1 << 30)
    assert contents(store, "build") == {"a": b"a"}


class Machine:
    up = 100.0


def test_artifacts_go_with_their_task_or_later(where: S3Location, swift: Swift, tmp_path: Path) -> None:
    machine = Machine()
    store = S3Store(Bucket(where), tmp_path / "a", ElapsedTime(lambda: machine.up), grace_seconds=NO_GRACE)
    put(store, "gone", {"a": b"gone"}, uid="gone")
    put(store, "kept", {"a": b"kept"}, uid="kept", retain=HOUR)
    put(store, "there", {"a": b"there"}, uid="there")
    next_one = S3Store(Bucket(where), tmp_path / "b", ElapsedTime(lambda: machine.up), grace_seconds=NO_GRACE)
    next_one.release("data", "gone")
    next_one.release("data", "kept")
    next_one.release("data", "kept")
    next_one.release("data", "never")
    next_one.prune(1 << 30)
    assert contents(next_one, "gone") is None
    assert contents(next_one, "kept") == {"a": b"kept"}
    machine.up += HOUR + 1
    planned = list(next_one.surplus(1 << 30))
    assert [each.reason for each in planned] == ["released"]
    assert contents(next_one, "kept") == {"a": b"kept"}, "that only reads"
    assert next_one.prune(1 << 30) == planned
    assert contents(next_one, "kept") is None
    assert {key.split("/")[2] for key in keys(swift, where) if key.startswith("tasks/")} == {"there"}
    assert len([key for key in keys(swift, where) if key.startswith("blobs/")]) == 1


def test_age_and_size_make_room(store: S3Store, where: S3Location) -> None:
    for number in range(4):
        put(store, f"task-{number}", {"a": bytes([number]) * 1000}, uid=f"u{number}", retain=HOUR if number == 1 else 0)
    since = time.time() + 60
    planned = list(store.surplus(3000, older_than=since))
    assert [(each.name.split("/")[-2], each.reason) for each in planned] == [
        ("task-3", "age"),
        ("task-2", "age"),
        ("task-0", "age"),
    ], "the policy keeps one longer"
    assert all(each.name.startswith(f"{where}/tasks/data/") and each.size > 1000 for each in planned)
    assert [(each.name.split("/")[-2], each.reason) for each in store.prune(3000)] == [
        ("task-1", "size"),
        ("task-0", "size"),
    ]
    assert contents(store, "task-3") == {"a": bytes([3]) * 1000}
    assert contents(store, "task-0") is None


def test_a_young_content_without_a_record_is_left_alone(where: S3Location, swift: Swift, tmp_path: Path) -> None:
    store = S3Store(Bucket(where), tmp_path / "a")
    with store.collecting() as collecting:
        collecting.put("a", io.BytesIO(b"a"), executable=False, most=10)
        collecting.sync()
    store.prune(1 << 30)
    assert len(keys(swift, where)) == 1, "another process may be about to record it"
    S3Store(Bucket(where), tmp_path / "a", grace_seconds=NO_GRACE).prune(1 << 30)
    assert keys(swift, where) == set()


def test_pruning_takes_nothing_of_what_others_collect(store: S3Store) -> None:
    with artifacts.pruning(store):
        for turn in range(2):
            put(store, "build", {"a": b"always", "b": b"%d" % turn}, uid=f"u{turn}")
            assert contents(store, "build") == {"a": b"always", "b": b"%d" % turn}
            store.release("data", f"u{turn}")


def test_a_mounted_artifact_is_kept_until_it_is_released(store: S3Store) -> None:
    left = put(store, "build", {"a": b"a"})
    tree = store.tree(left, "user")
    store.prune(1 << 30)
    assert (tree / "a").read_bytes() == b"a"
    store.let_go("user")
    store.prune(1 << 30)
    assert list((store.folder / "trees").iterdir()) == []
    assert (store.tree(left, "user") / "a").read_bytes() == b"a"


@pytest.mark.parametrize("damage", ["changed", "gone"])
def test_a_copy_that_a_machine_damaged_as_it_went_down_is_not_mounted(
    store: S3Store, where: S3Location, tmp_path: Path, damage: str
) -> None:
    left = put(store, "build", {"a": b"content", "b": b"more"})
    copy = store.tree(left, "user") / "a"
    copy.chmod(0o600)
    copy.write_bytes(b"CONTENT") if damage == "changed" else copy.unlink()
    following = S3Store(Bucket(where), tmp_path / "first")
    assert (following.tree(left, "user") / "a").read_bytes() == b"content"


def test_nothing_is_written_outside_the_prefix(store: S3Store, swift: Swift, where: S3Location) -> None:
    store.probe()
    put(store, "build", {"a": b"a"})
    everything = obstore.list(swift.client(where)).collect()
    assert everything
    assert all(each["path"].startswith("some/prefix/") for each in everything)
    assert not any("probe" in each["path"] for each in everything)
