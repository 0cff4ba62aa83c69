"""Tests keeping the files of an attempt: completely or not at all, and each content once."""

from __future__ import annotations

import errno
import hashlib
import io
import os
import resource
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from tests.artifacts import record

from remit.backends.elapsed import ElapsedTime
from remit.backends.filetree import FileTree
from remit.backends.outcome import ExitReason, Outcome
from remit.execution.artifacts.collecting import WantedArtifact, WantedResult, collector
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.store import TooLarge
from remit.execution.artifacts.stored import StoredArtifact, listing

COMPLETED = Outcome(ExitReason.COMPLETED, "completed", 0)
FAILED = Outcome(ExitReason.EXIT_CODE, "exited with code 3", 3)


@dataclass
class Machine:
    """A machine. Its uptime is in seconds."""

    up: float = 1000.0


@pytest.fixture
def machine() -> Machine:
    return Machine()


@pytest.fixture
def store(tmp_path: Path, machine: Machine) -> FolderStore:
    return FolderStore(tmp_path / "artifacts", ElapsedTime(lambda: machine.up))


def keep(
    store: FolderStore, tree: FileTree, *wanted: WantedArtifact | WantedResult, ended: Outcome = COMPLETED
) -> Outcome:
    artifacts = [each for each in wanted if isinstance(each, WantedArtifact)]
    results = [each for each in wanted if isinstance(each, WantedResult)]
    return collector(store, lambda kept: record(store, "data", "build", "uid", kept), artifacts, results)(tree, ended)


def artifact(pattern: str = "/workspace/*", **fields: Any) -> WantedArtifact:
    return WantedArtifact("files", pattern, fields.pop("most_bytes", 1 << 20), **fields)


def blobs(store: FolderStore) -> list[Path]:
    return [path for path in (store.root / "blobs").rglob("*") if path.is_file()]


def test_files_are_found_again_byte_for_byte(store: FolderStore, tree: FileTree, folder: Path) -> None:
    (folder / "a.bin").write_bytes(bytes(range(256)))
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    outcome = keep(store, tree, artifact())
    found = store.find("data", "build", "files")
    assert found is not None
    assert [(file.path, file.size, file.executable) for file in found.files] == [
        ("a.bin", 256, False),
        ("run.sh", 10, True),
    ]
    with store.open(found.files[0]) as content:
        assert content.read() == bytes(range(256))
    assert outcome.reason == ExitReason.COMPLETED
    told = outcome.artifacts[0]
    assert (told.name, told.files, told.bytes, told.digest) == ("files", 2, 266, found.digest)


def test_the_digest_is_that_of_what_sha256sum_prints(store: FolderStore, tree: FileTree, folder: Path) -> None:
    for name in ("b", "a", "new\nline", "back\\slash", "-dash"):
        (folder / name).write_text(name)
    keep(store, tree, artifact())
    found = store.find("data", "build", "files")
    assert found is not None
    names = [file.path for file in found.files]
    printed = subprocess.run(["sha256sum", "--", *names], cwd=folder, capture_output=True, check=True).stdout
    assert listing(found.files).encode() == printed
    assert found.digest == f"sha256:{hashlib.sha256(printed).hexdigest()}"


def test_contents_are_kept_once(store: FolderStore, tree: FileTree, folder: Path) -> None:
    for name in "abc":
        (folder / name).write_text("same")
    keep(store, tree, artifact())
    assert len(blobs(store)) == 1


def test_a_missing_file_fails_an_attempt_that_succeeded(store: FolderStore, tree: FileTree) -> None:
    outcome = keep(store, tree, artifact("/workspace/*.whl"))
    assert outcome.reason == ExitReason.ARTIFACT_MISSING
    assert "artifact files (/workspace/*.whl): no file is there" in outcome.message
    assert keep(store, tree, artifact("/workspace/*.whl", optional=True)) == COMPLETED
    assert keep(store, tree, artifact("/workspace/*.whl", always=True), ended=FAILED) == FAILED


def test_of_a_failed_attempt_only_what_is_always_wanted_is_kept(
    store: FolderStore, tree: FileTree, folder: Path
) -> None:
    (folder / "core").write_text("x")
    assert keep(store, tree, artifact(), ended=FAILED).artifacts == ()
    outcome = keep(store, tree, artifact(always=True), ended=FAILED)
    assert outcome.reason == ExitReason.EXIT_CODE
    assert len(outcome.artifacts) == 1


def test_what_is_too_large_leaves_nothing(store: FolderStore, tree: FileTree, folder: Path) -> None:
    (folder / "a").write_bytes(b"x" * 600)
    (folder / "b").write_bytes(b"y" * 600)
    outcome = keep(store, tree, artifact(most_bytes=1000))
    assert outcome.reason == ExitReason.ARTIFACT_TOO_LARGE
    assert not outcome.retryable
    assert store.artifacts("data", "build") == []


def test_a_sparse_file_is_judged_by_its_length_and_not_read(store: FolderStore, tree: FileTree, folder: Path) -> None:
    with (folder / "huge").open("wb") as file:
        file.truncate(1 << 42)
    assert keep(store, tree, artifact()).reason == ExitReason.ARTIFACT_TOO_LARGE
    assert blobs(store) == []


def test_a_file_that_grows_while_it_is_read(store: FolderStore) -> None:
    class Endless(io.RawIOBase):
        def read(self, size: int = -1) -> bytes:
            return b"x" * size

    with store.collecting() as collecting, pytest.raises(TooLarge):
        collecting.put("a", Endless(), executable=False, most=10 << 20)  # type: ignore[arg-type]
    assert blobs(store) == []


def test_a_store_that_is_full_keeps_nothing_half(
    store: FolderStore, tree: FileTree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a").write_bytes(b"x" * (1 << 20))
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1000, hard))  # the kernel refuses in the middle of a write
    try:
        outcome = keep(store, tree, artifact(most_bytes=2 << 20))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert outcome.reason == ExitReason.ARTIFACT_UNREADABLE
    assert os.strerror(errno.EFBIG) in outcome.message
    assert outcome.retryable
    assert store.artifacts("data", "build") == blobs(store) == []


def test_the_record_comes_last(store: FolderStore, tree: FileTree, folder: Path) -> None:
    """An operator that is killed before that has kept nothing, and the stored content is pruned later."""
    (folder / "a").write_text("x")

    def killed(kept: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        collector(store, killed, [artifact()], [])(tree, COMPLETED)
    assert store.artifacts("data", "build") == []
    store.prune()
    assert blobs(store) == []


def test_too_many_files(store: FolderStore, tree: FileTree, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.execution.artifacts.collecting.MAX_FILES", 3)
    for name in "abc":
        (folder / name).touch()
    assert keep(store, tree, artifact()).reason == ExitReason.COMPLETED
    (folder / "d").touch()
    outcome = keep(store, tree, artifact())
    assert outcome.reason == ExitReason.ARTIFACT_TOO_LARGE
    assert "at most 3 files" in outcome.message
    more = WantedArtifact("more", "/workspace/a", 1000)
    (folder / "d").unlink()
    outcome = keep(store, tree, artifact(), more)
    assert outcome.reason == ExitReason.ARTIFACT_TOO_LARGE, "all artifacts of an attempt together"


def test_a_name_that_is_no_text_is_refused(store: FolderStore, tree: FileTree, folder: Path) -> None:
    Path(os.fsdecode(os.fsencode(folder) + b"/\xff.log")).write_text("x")
    outcome = keep(store, tree, artifact())
    assert outcome.reason == ExitReason.ARTIFACT_UNREADABLE
    assert r"\xff.log" in outcome.message
    outcome.message.encode()


def test_results_are_small_texts(store: FolderStore, tree: FileTree, folder: Path) -> None:
    (folder / "version").write_text("1.2.3\n")
    (folder / "long").write_text("x" * 4097)
    (folder / "binary").write_bytes(b"\xff")

    def result(name: str, **fields: Any) -> WantedResult:
        return WantedResult(name, f"/workspace/{name}", **fields)

    assert keep(store, tree, result("version")).results == {"version": "1.2.3"}
    assert keep(store, tree, result("long")).reason == ExitReason.ARTIFACT_TOO_LARGE
    assert keep(store, tree, result("binary")).reason == ExitReason.ARTIFACT_UNREADABLE
    assert keep(store, tree, result("none")).reason == ExitReason.ARTIFACT_MISSING
    assert keep(store, tree, result("none", optional=True)) == COMPLETED
    assert keep(store, tree, result("version"), result("none"), ended=FAILED).results == {"version": "1.2.3"}


def put(store: FolderStore, task: str, content: bytes, *, uid: str = "uid", retain: int = 0) -> StoredArtifact:
    with store.collecting() as collecting:
        file = collecting.put("a", io.BytesIO(content), executable=False, most=1 << 20)
        record(store, "data", task, uid, [stored := StoredArtifact("files", (file,), retain)])
    return stored


def test_a_tree_cannot_be_changed_and_is_shared(store: FolderStore) -> None:
    stored = put(store, "build", b"content")
    tree = store.tree(stored)
    assert (tree / "a").read_bytes() == b"content"
    assert (tree / "a").stat().st_mode & 0o777 == 0o444
    assert tree.stat().st_mode & 0o777 == 0o755
    assert store.tree(stored) == tree
    assert len(list((store.root / "trees").iterdir())) == 1


def test_artifacts_go_with_their_task_or_later(store: FolderStore, machine: Machine) -> None:
    put(store, "gone", b"one", uid="1")
    kept = put(store, "kept", b"two", uid="2", retain=60)
    store.release("data", "1")
    store.release("data", "2")
    store.prune()
    assert store.artifacts("data", "gone") == []
    assert store.artifacts("data", "kept") == [kept]
    store.release("data", "2")  # a second release does not restart the time
    machine.up += 61
    store.prune()
    assert store.artifacts("data", "kept") == []
    assert list((store.root / "tasks").iterdir()) == [], "nothing is left of tasks that have nothing"


def test_a_deletion_looks_at_no_other_task(store: FolderStore, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the first deletion does, to find what an earlier process left."""
    earlier = FolderStore(store.root)
    for number in range(5):
        put(earlier, f"task-{number}", b"x", uid=str(number))
    store.release("data", "0")
    put(store, "task-5", b"x", uid="5")
    looked, iterdir = list[Path](), Path.iterdir

    def spy(path: Path) -> Iterator[Path]:
        looked.append(path)
        return iterdir(path)

    with monkeypatch.context() as patched:
        patched.setattr(Path, "iterdir", spy)
        for uid in ("1", "5", "of nothing"):
            store.release("data", uid)
    assert set(looked) <= {store.root / "staged"}
    assert [bool(store.artifacts("data", f"task-{number}")) for number in range(6)] == [
        False,
        False,
        True,
        True,
        True,
        False,
    ]
    put(store, "task-1", b"x", uid="1")  # as by an attempt that ends after that
    store.release("data", "1")
    assert store.artifacts("data", "task-1") == []


def test_the_oldest_make_room(store: FolderStore) -> None:
    for number in range(4):
        put(store, f"task-{number}", bytes([number]) * 100, uid=str(number))
    (record,) = (store.root / "tasks" / "data" / "task-0").iterdir()
    store.prune(most_bytes=2 * (100 + record.stat().st_size) + 50)
    assert [bool(store.artifacts("data", f"task-{number}")) for number in range(4)] == [False, False, True, True]
    assert len(blobs(store)) == 2


def test_a_digest_pins_a_content(store: FolderStore) -> None:
    first = put(store, "build", b"one", uid="1")
    second = put(store, "build", b"two", uid="2")
    assert store.find("data", "build", "files") == second
    assert store.find("data", "build", "files", first.digest) == first
    assert store.find("data", "build", "other") is None
    assert store.find("other", "build", "files") is None
