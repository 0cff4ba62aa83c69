"""Tests that an operator that is killed at any request to object storage leaves the previous objects, or all of the new
ones."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import mortalstore
from objectstores import Swift, keys
from remit.execution.artifacts.s3.contents import PART_BYTES
from remit.execution.artifacts.s3.location import S3Location, write_down
from remit.execution.artifacts.s3.store import S3Store
from remit.execution.artifacts.stored import StoredArtifact

OLD, NEW = {"a": b"old", "b": b"same"}, {"a": b"n" * (PART_BYTES + 1), "b": b"same"}
Mortal = Callable[[str, int, str], bool]


@pytest.fixture
def killed(where: S3Location, tmp_path: Path) -> Iterator[Mortal]:
    state = tmp_path / "state"
    state.mkdir()
    write_down(state, where)
    for name, content in NEW.items():
        (state / name).write_bytes(content)
    argv = [sys.executable, mortalstore.__file__, str(state)]
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdin and process.stdout
        said, heard = process.stdin, process.stdout

        def at(what: str, number: int, attempt_id: str) -> bool:
            said.write(f"{what} {number} {attempt_id}\n")
            said.flush()
            return {"killed": True, "done": False}[heard.readline().strip()]

        yield at
        said.close()


def contents(store: S3Store) -> dict[str, bytes]:
    found = store.find(mortalstore.NAMESPACE, mortalstore.TASK, mortalstore.ARTIFACT)
    assert found
    return {file.path: store.open(file).read() for file in found.files}


def first_attempt(store: S3Store, tmp_path: Path) -> None:
    with store.collecting() as collecting:
        files = []
        for name, content in OLD.items():
            (tmp_path / name).write_bytes(content)
            with (tmp_path / name).open("rb") as source:
                files.append(collecting.put(name, source, executable=False, most=100))
        collecting.sync()
        store.stage(
            mortalstore.NAMESPACE, mortalstore.TASK, "uid-1", [StoredArtifact(mortalstore.ARTIFACT, tuple(files))]
        )
    store.commit(mortalstore.UID, "uid-1")


def test_an_attempt_that_is_cut_off_at_any_request_has_left_nothing(
    store: S3Store, swift: Swift, where: S3Location, tmp_path: Path, killed: Mortal
) -> None:
    first_attempt(store, tmp_path)
    before = keys(swift, where)
    number = 1
    while killed("attempt", number, "uid-2"):
        assert contents(store) == OLD, f"at request {number}"
        number += 1
    assert number > 5
    assert contents(store) == OLD, "how it ended is not on record yet"
    assert keys(swift, where) > before
    store.discard("uid-2")  # the next operator does this for a lost attempt
    store.prune(1 << 30)
    assert keys(swift, where) == before


def test_an_end_that_is_cut_off_at_any_request_is_reported_by_the_next_operator(
    store: S3Store, swift: Swift, where: S3Location, tmp_path: Path, killed: Mortal
) -> None:
    first_attempt(store, tmp_path)
    assert not killed("attempt", 0, "uid-2")
    number, seen = 1, []
    while killed("commit", number, "uid-2"):
        now = contents(store)
        assert now in (OLD, NEW), f"at request {number}"
        seen.append(now)
        store.prune(1 << 30)
        assert contents(store) == now
        number += 1
    assert number > 4
    assert contents(store) == NEW
    store.prune(1 << 30)
    assert contents(store) == NEW
    assert sorted(key.split("/")[0] for key in keys(swift, where)) == ["blobs"] * 3 + ["tasks"]
    assert seen == sorted(seen, key=lambda each: each == NEW), "it never goes back"
