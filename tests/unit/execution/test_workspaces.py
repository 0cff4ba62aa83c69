"""Tests workspaces, which outlive their tasks: which task may use them, their sizes, and when they are removed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

import pytest
from tests.artifacts import record

from remit.api.executiontask import ExecutionTask
from remit.backends.elapsed import ElapsedTime
from remit.errors import InvalidInput, MissingReference
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.stored import StoredArtifact
from remit.execution.folders import Folders
from remit.execution.queue import Queue, WaitReason
from remit.execution.resolved import Resolved
from remit.execution.workspaces import WorkspaceStore
from remit.policy.rate import RateClaim

CACHE = RateClaim.of_workspace("data", "cache")


@pytest.fixture
def store(tmp_path: Path) -> WorkspaceStore:
    return WorkspaceStore(tmp_path / "workspaces")


def test_one_task_at_a_time_writes() -> None:
    woken: list[str] = []
    queue = Queue(8, wake=lambda key, _: woken.append(key))
    assert queue.enter("data/a", "data", (CACHE,), since=0, now=0) is None
    place = queue.enter("data/b", "data", (CACHE,), since=1, now=1)
    assert place is not None
    assert (place.blocked.reason, place.blocked.workspace, place.blocked.holder) == (
        WaitReason.WORKSPACE,
        "cache",
        "data/a",
    )
    assert queue.enter("data/c", "data", (RateClaim.of_workspace("data", "other"),), since=2, now=2) is None
    assert queue.enter("x/d", "x", (RateClaim.of_workspace("x", "cache"),), since=3, now=3) is None
    queue.leave("data/a", 4)
    assert woken == ["data/b"]


def test_it_is_kept_from_task_to_task(store: WorkspaceStore) -> None:
    (store.use("data", "cache", 1 << 20, None).data / "kept").write_text("x")
    again = store.use("data", "cache", 2 << 20, 60)
    assert (again.data / "kept").read_text() == "x"
    assert [(each.name, each.size, each.ttl_seconds) for each in store.all()] == [("cache", 2 << 20, 60)]
    assert store.find("data", "cache") is not None
    assert store.find("other", "cache") is None


def test_one_that_is_full_is_refused_with_what_to_do(store: WorkspaceStore) -> None:
    (store.use("data", "cache", 1 << 20, None).data / "big").write_bytes(os.urandom(200_000))
    with pytest.raises(InvalidInput, match="'remit workspace rm cache'"):
        store.use("data", "cache", 100_000, None)


def test_files_count_once_and_links_are_not_followed(store: WorkspaceStore, tmp_path: Path) -> None:
    workspace = store.use("data", "cache", 1 << 30, None)
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "big").write_bytes(os.urandom(1 << 20))
    (workspace.data / "link").symlink_to(tmp_path / "elsewhere")
    (workspace.data / "a").write_bytes(os.urandom(100_000))
    (workspace.data / "b").hardlink_to(workspace.data / "a")
    with (workspace.data / "sparse").open("wb") as file:
        file.truncate(1 << 40)
    assert 100_000 <= workspace.used_bytes() < 200_000


def test_it_goes_when_nobody_used_it_for_its_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    up = [1000.0]
    store = WorkspaceStore(tmp_path / "workspaces", ElapsedTime(lambda: up[0]))
    brief, used = store.use("data", "brief", 1 << 20, 60), store.use("data", "used", 1 << 20, 60)
    store.use("data", "kept", 1 << 20, None)
    now = time.time()
    monkeypatch.setattr("time.time", lambda: now + 3600)  # a clock that is set removes nothing
    store.prune(set())
    assert {each.name for each in store.all()} == {"brief", "used", "kept"}
    up[0] += 61
    store.prune({used.data})
    assert {each.name for each in store.all()} == {"used", "kept"}
    assert not brief.path.exists()
    store.touch(used.data)
    store.prune(set())
    assert {each.name for each in store.all()} == {"used", "kept"}
    up[0] += 61
    store.prune(set())
    assert {each.name for each in store.all()} == {"kept"}


def deep(folder: Path, depth: int) -> None:
    """Creates nested folders whose path is longer than a path may be."""
    descriptor = os.open(folder, os.O_RDONLY)
    for _ in range(depth):
        os.mkdir("inside-another-folder", dir_fd=descriptor)
        inner = os.open("inside-another-folder", os.O_RDONLY, dir_fd=descriptor)
        os.close(descriptor)
        descriptor = inner
    os.close(descriptor)


def test_folders_that_are_deeper_than_any_stack_are_refused_and_removed(store: WorkspaceStore) -> None:
    workspace = store.use("data", "cache", 1 << 30, 0)
    other = store.use("data", "other", 1 << 30, 0)
    deep(workspace.data, 1500)
    with pytest.raises(InvalidInput, match=r"deep in each other.*'remit workspace rm cache'"):
        store.use("data", "cache", 1 << 30, 0)
    store.prune(set())
    assert not workspace.path.exists()
    assert not other.path.exists()
    assert list((store.root / "data").iterdir()) == []


def test_names_are_counted_to_an_end(store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = store.use("data", "cache", 1 << 30, None)
    for number in range(11):
        (workspace.data / f"empty-{number}").touch()
    monkeypatch.setattr("remit.execution.foldertree.MAX_NAMES", 10)
    with pytest.raises(InvalidInput, match="more than 10 files"):
        store.use("data", "cache", 1 << 30, None)
    store.use("data", "cache", 1 << 30, None, running=True)  # an attempt that already runs is not refused


@pytest.mark.skipif(os.geteuid() == 0, reason="nothing is closed to root")
def test_files_in_a_closed_folder_are_not_taken_for_none(store: WorkspaceStore) -> None:
    workspace = store.use("data", "cache", 1 << 30, None)
    (workspace.data / "closed").mkdir(mode=0)
    with pytest.raises(InvalidInput, match=r"closed to the operator.*'remit workspace rm cache'"):
        store.use("data", "cache", 1 << 30, None)


def test_only_those_that_a_task_may_write_to_are_watched(store: WorkspaceStore, tmp_path: Path) -> None:
    folders = Folders(FolderStore(tmp_path / "artifacts"), store)
    for access, names in (("ReadOnly", []), ("ReadWrite", ["cache"])):
        wanted = task({"workspace": {"name": "cache", "size": "1Mi"}}, access=access)
        folders.lay_out(wanted, [], Resolved())
        assert [each.name for each in folders.workspaces_written(wanted.metadata.uid)] == names
        folders.let_go(wanted.metadata.uid)
        assert folders.workspaces_written(wanted.metadata.uid) == ()


def test_a_damaged_record_stops_nothing(store: WorkspaceStore) -> None:
    broken, other = store.use("data", "broken", 1 << 20, 0), store.use("data", "other", 1 << 20, 0)
    for content in (b"{", b"[]", b"{}", b"null"):
        (broken.path / "workspace.json").write_bytes(content)
        assert [each.name for each in store.all()] == ["other"]
    store.prune(set())
    assert not other.path.exists()
    assert store.use("data", "broken", 1 << 20, 0).data == broken.data


def test_one_of_a_task_that_starts_is_not_removed(store: WorkspaceStore, tmp_path: Path) -> None:
    folders, resolved = Folders(FolderStore(tmp_path / "artifacts"), store), Resolved()
    wanted = task({"workspace": {"name": "cache", "ttlSecondsAfterLastUse": 0}})
    folders.lay_out(wanted, [], resolved)
    store.prune(folders.workspaces_in_use())
    assert Path(resolved.folders["v"]).is_dir()
    folders.let_go(wanted.metadata.uid)
    store.prune(folders.workspaces_in_use())
    assert not Path(resolved.folders["v"]).exists()


def test_a_removal_that_was_interrupted_is_finished(store: WorkspaceStore, monkeypatch: pytest.MonkeyPatch) -> None:
    workspace = store.use("data", "cache", 1 << 20, None)

    def killed(path: Path) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr("remit.execution.workspaces.remove_tree", killed)
        with pytest.raises(KeyboardInterrupt):
            store.remove(workspace)
    assert list(store.all()) == []
    store.prune(set())
    assert list((store.root / "data").iterdir()) == []


def task(volume: dict[str, Any], status: dict[str, Any] | None = None, *, access: str = "ReadOnly") -> ExecutionTask:
    spec = {
        "command": {"argv": ["ls"]},
        "volumes": [{"name": "v", **volume}],
        "volumeMounts": [{"name": "v", "mountPath": "/v", "access": access}],
    }
    return ExecutionTask.parse({"metadata": {"name": "t", "namespace": "data"}, "spec": spec, "status": status or {}})


def test_an_artifact_is_waited_for_then_pinned(store: WorkspaceStore, tmp_path: Path) -> None:
    artifacts = FolderStore(tmp_path / "artifacts")
    folders, resolved = Folders(artifacts, store), Resolved()
    wanted = {"artifact": {"task": "build", "name": "wheel"}}
    with pytest.raises(MissingReference, match="task build has left no artifact wheel yet"):
        folders.lay_out(task(wanted), [], resolved)

    def leave(content: bytes) -> StoredArtifact:
        with (tmp_path / "file").open("w+b") as file:
            file.write(content)
            file.seek(0)
            with artifacts.collecting() as collecting:
                kept = collecting.put("shop.whl", file, executable=False, most=100)
                record(artifacts, "data", "build", "uid", [StoredArtifact("wheel", (kept,))])
        return StoredArtifact("wheel", (kept,))

    first = leave(b"one")
    pins = folders.lay_out(task(wanted), [], resolved)
    assert [(pin.name, pin.digest) for pin in pins] == [("v", first.digest)]
    assert (Path(resolved.folders["v"]) / "shop.whl").read_bytes() == b"one"
    leave(b"two")
    pinned = task(wanted, {"volumes": [pin.model_dump(by_alias=True) for pin in pins]})
    with pytest.raises(InvalidInput, match="is not kept any more"):
        folders.lay_out(pinned, [], resolved)
