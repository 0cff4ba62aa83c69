"""Tests artifacts with clocks that are set, disks that lie, operators that are killed, and hostile programs."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from types import FrameType
from typing import Any

import pytest
import structlog
from tests.artifacts import pruning, record

from remit.backends.filetree import FileTree
from remit.backends.outcome import ExitReason, Outcome
from remit.errors import InvalidInput
from remit.execution import artifacts as artifacts_package
from remit.execution.artifacts.collecting import WantedArtifact, collector
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.saving import save
from remit.execution.artifacts.stored import StoredArtifact

COMPLETED = Outcome(ExitReason.COMPLETED, "completed", 0)
HOUR = 3600.0
STEP = 1 if "REMIT_SOAK" in os.environ else 7
"""Number of lines from one kill to the next."""


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "artifacts")


def keep(store: FolderStore, tree: FileTree, task: str = "build", *, retain: int = 0) -> Outcome:
    def save(kept: Sequence[StoredArtifact]) -> None:
        record(store, "data", task, f"uid-of-{task}", kept)

    return collector(store, save, [wanted(retain)], [])(tree, COMPLETED)


def wanted(retain: int = 0) -> WantedArtifact:
    return WantedArtifact("files", "/workspace/**", 1 << 20, retain_seconds=retain)


def contents(store: FolderStore, task: str = "build") -> dict[str, bytes] | None:
    """Returns the content of a task's artifact, or None. Raises if it is incomplete."""
    found = store.find("data", task, "files")
    if found is None:
        return None
    read = {}
    for file in found.files:
        with store.open(file) as source:
            read[file.path] = source.read()
        assert hashlib.sha256(read[file.path]).hexdigest() == file.sha256
    return read


def blobs(store: FolderStore) -> list[Path]:
    return [path for path in (store.root / "blobs").rglob("*") if path.is_file()]


def age(store: FolderStore, seconds: float) -> None:
    """Sets the clock forward: everything that was written seems older."""
    for folder, _, files in os.walk(store.root):
        for path in (Path(folder, name) for name in files):
            with contextlib.suppress(FileNotFoundError):
                info = path.stat()
                os.utime(path, (info.st_atime, info.st_mtime - seconds))


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b'{"artifacts": [{}]}', b"\xff" * 100])
def test_a_damaged_record_stops_nothing(store: FolderStore, tree: FileTree, folder: Path, damage: bytes) -> None:
    (folder / "a").write_text("a")
    keep(store, tree, "broken")
    (folder / "a").write_text("b")
    keep(store, tree, "gone")
    (folder / "a").write_text("c")
    keep(store, tree, "whole")
    (store.root / "tasks" / "data" / "broken" / "uid-of-broken.json").write_bytes(damage)
    with structlog.testing.capture_logs() as logged:
        assert store.artifacts("data", "broken") == []
    assert "uid-of-broken.json" in str(logged)
    store.release("data", "uid-of-gone")
    age(store, 2 * HOUR)
    store.prune(1 << 30)
    assert contents(store, "whole") == {"a": b"c"}
    assert len(blobs(store)) == 1
    store.release("data", "uid-of-broken")
    store.prune()
    assert not (store.root / "tasks" / "data" / "broken").exists()


def test_what_is_being_collected_stays_wherever_the_clock_is(store: FolderStore, tree: FileTree, folder: Path) -> None:
    (folder / "a").write_text("a")

    def save(kept: Sequence[StoredArtifact]) -> None:
        age(store, 2 * HOUR)
        store.prune()
        record(store, "data", "build", "uid", kept)

    collector(store, save, [wanted()], [])(tree, COMPLETED)
    assert contents(store) == {"a": b"a"}


def test_a_clock_that_is_set_ends_no_retention(
    store: FolderStore, tree: FileTree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (folder / "a").write_text("a")
    keep(store, tree, retain=60)
    store.release("data", "uid-of-build")
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + HOUR)
    store.prune()
    assert contents(store) == {"a": b"a"}


def test_the_newest_is_the_last_one_though_the_clock_was_set_back(
    store: FolderStore, tree: FileTree, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def leave(uid: str, content: str) -> None:
        (folder / "a").write_text(content)
        collector(store, lambda kept: record(store, "data", "build", uid, kept), [wanted()], [])(tree, COMPLETED)

    leave("first", "old")
    now = time.time() - 48 * HOUR
    monkeypatch.setattr("time.time", lambda: now)
    monkeypatch.setattr("time.time_ns", lambda: int(now * 1e9))
    leave("second", "new")
    assert contents(store) == {"a": b"new"}
    assert len(list((store.root / "tasks" / "data" / "build").iterdir())) == 2
    size = sum(path.stat().st_size for path in (store.root / "tasks" / "data" / "build").iterdir())
    store.prune(3 + size // 2 + 20)
    assert contents(store) == {"a": b"new"}


def test_what_a_machine_that_went_down_left_short_is_made_good(
    store: FolderStore, tree: FileTree, folder: Path
) -> None:
    (folder / "a").write_text("content")
    keep(store, tree)
    (blob,) = blobs(store)
    blob.chmod(0o600)
    blob.write_bytes(b"")
    keep(store, tree)
    assert contents(store) == {"a": b"content"}


def test_a_content_may_have_more_names_than_the_filesystem_counts(
    store: FolderStore, tree: FileTree, folder: Path, tmp_path: Path
) -> None:
    (folder / "a").touch()
    (folder / "b").touch()
    keep(store, tree)
    (blob,) = blobs(store)
    names = tmp_path / "names"
    names.mkdir()
    try:
        for number in range(70_000):
            os.link(blob, names / str(number))
    except OSError:
        found = store.find("data", "build", "files")
        assert found is not None
        assert {path.name for path in store.tree(found).iterdir()} == {"a", "b"}
    else:
        pytest.skip("this filesystem counts as many as one likes")
    finally:
        shutil.rmtree(names)


def test_long_paths_do_not_fill_the_operator_s_memory(store: FolderStore, tree: FileTree, folder: Path) -> None:
    deep = folder.joinpath(*["x" * 250] * 4)
    deep.mkdir(parents=True)
    (deep / ("y" * 250)).write_text("x")
    outcome = keep(store, tree)
    assert outcome.reason == ExitReason.ARTIFACT_TOO_LARGE
    assert not outcome.retryable
    assert "1254 bytes" in outcome.message


def test_pruning_takes_nothing_of_what_others_collect(store: FolderStore, tree: FileTree, folder: Path) -> None:
    """The same contents come and go in several tasks while unreferenced contents are pruned."""
    for name in "abc":
        (folder / name).write_text(name)
    failures = list[BaseException]()

    def work(task: str) -> None:
        try:
            for _ in range(40):
                assert keep(store, tree, task).reason == ExitReason.COMPLETED
                age(store, 2 * HOUR)
                assert contents(store, task) == {"a": b"a", "b": b"b", "c": b"c"}
                store.release("data", f"uid-of-{task}")
        except BaseException as error:
            failures.append(error)

    with pruning(store):
        workers = [threading.Thread(target=work, args=(task,)) for task in ("one", "two")]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    for failure in failures:
        raise failure


def _killed_at(point: int, do: Callable[[], Any]) -> bool:
    """Runs `do` in a process that is killed at the `point`-th line of the store's modules. Returns whether the process
    reached that line."""
    where = str(Path(artifacts_package.__file__).parent)
    left = point

    def line(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        if event == "line":
            left -= 1
            if not left:
                os.kill(os.getpid(), signal.SIGKILL)
        return line

    child = os.fork()
    if not child:
        try:
            sys.settrace(lambda frame, *_: line if frame.f_code.co_filename.startswith(where) else None)
            do()
        finally:
            os._exit(0)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_an_operator_that_is_killed_at_any_line_has_kept_nothing_half(
    tmp_path: Path, tree: FileTree, folder: Path
) -> None:
    store = FolderStore(tmp_path / "artifacts")
    old, new = {"a": b"old"}, {"a": b"new", "b": b"more"}
    point = 1
    while True:
        point += STEP
        for name, content in old.items():
            (folder / name).write_bytes(content)
        (folder / "b").unlink(missing_ok=True)
        assert keep(store, tree).reason == ExitReason.COMPLETED
        for name, content in new.items():
            (folder / name).write_bytes(content)

        def second_attempt() -> None:
            stage = lambda kept: store.stage("data", "build", "uid-of-build-2", kept)  # noqa: E731
            collector(store, stage, [wanted()], [])(tree, COMPLETED)

        if not _killed_at(point, second_attempt):
            break
        assert contents(store) == old, f"at line {point}"
        store.discard("uid-of-build-2")  # the next operator does this for a lost attempt
        store.prune()
        assert len(blobs(store)) == 1, f"at line {point}"
        assert contents(store) == old
    assert point > 10 * STEP
    store.prune()
    assert contents(store) == old, "how it ended is not on record yet"
    point = 1
    while True:
        point += (STEP + 1) // 2
        killed = _killed_at(point, lambda: store.commit("uid-of-build", "uid-of-build-2"))
        assert contents(store) in (old, new), f"at line {point}"
        if not killed:
            break
    assert point > 1
    assert contents(store) == new
    store.prune()
    assert contents(store) == new
    assert len(blobs(store)) == 2
    assert list((store.root / "staged").iterdir()) == []


def test_copying_writes_through_no_link(store: FolderStore, tree: FileTree, folder: Path, tmp_path: Path) -> None:
    (folder / "site").mkdir()
    (folder / "site" / "index.html").write_text("new")
    (folder / "a").write_text("new")
    keep(store, tree)
    (artifact,) = store.artifacts("data", "build")
    outside, target = tmp_path / "outside", tmp_path / "target"
    (outside / "site").mkdir(parents=True)
    (outside / "a").write_text("mine")
    (target / "files").mkdir(parents=True)
    (target / "files" / "a").symlink_to(outside / "a")
    (target / "files" / "site").symlink_to(outside / "site")
    with pytest.raises(InvalidInput, match="site is a link or no folder"):
        save(store, artifact, target)
    assert (outside / "a").read_text() == "mine"
    assert list((outside / "site").iterdir()) == []
    (target / "files" / "site").unlink()
    save(store, artifact, target)
    assert not (target / "files" / "a").is_symlink()
    assert (target / "files" / "site" / "index.html").read_text() == "new"
    (target / "files" / "site" / "index.html").unlink()
    (target / "other").symlink_to(target / "files")
    save(store, artifact, target / "other")  # a link that the user names is followed
    assert (target / "files" / "files" / "site" / "index.html").read_text() == "new"


def test_a_damaged_content_is_not_copied(store: FolderStore, tree: FileTree, folder: Path, tmp_path: Path) -> None:
    (folder / "a").write_text("content")
    keep(store, tree)
    (artifact,) = store.artifacts("data", "build")
    (blob,) = blobs(store)
    blob.chmod(0o600)
    blob.write_text("CONTENT")
    (tmp_path / "target").mkdir()
    with pytest.raises(OSError, match="damaged"):
        save(store, artifact, tmp_path / "target")
    assert list((tmp_path / "target").iterdir()) == []


def test_a_damaged_content_is_told_wherever_it_is_read(store: FolderStore, tree: FileTree, folder: Path) -> None:
    (folder / "a").write_bytes(b"content")
    keep(store, tree)
    (artifact,) = store.artifacts("data", "build")
    (blob,) = blobs(store)
    blob.chmod(0o600)
    for damage in (b"CONTENT", b"conten", b"contents", b""):
        blob.write_bytes(damage)
        with store.open(artifact.files[0]) as source, pytest.raises(OSError, match="damaged"):
            shutil.copyfileobj(source, io.BytesIO())
    blob.write_bytes(b"content")
    with store.open(artifact.files[0]) as source:
        assert source.read() == b"content"
