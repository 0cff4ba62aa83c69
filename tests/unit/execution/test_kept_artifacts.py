"""Tests that artifacts of an attempt can be found as soon as its end is recorded, whichever process is killed in
between."""

from __future__ import annotations

import datetime
import io
from pathlib import Path

import pytest

from remit.api.executiontaskstatus import AttemptStatus
from remit.backends.outcome import ExitReason, KeptArtifact, Outcome
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.stored import StoredArtifact
from remit.execution.folders import Folders
from remit.execution.runner import Runner
from remit.execution.store import RunStore
from remit.execution.workspaces import WorkspaceStore
from remit.telemetry.redact import Redactor

ATTEMPT = AttemptStatus(number=2, id="u-2", started_at=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC))


@pytest.fixture
def store(tmp_path: Path) -> FolderStore:
    return FolderStore(tmp_path / "artifacts")


def leave(store: FolderStore, attempt_id: str, content: bytes) -> StoredArtifact:
    with store.collecting() as collecting:
        file = collecting.put("a", io.BytesIO(content), executable=False, most=100)
        store.stage("ns", "build", attempt_id, [left := StoredArtifact("files", (file,))])
    return left


def next_operator(tmp_path: Path) -> Runner:
    folders = Folders(FolderStore(tmp_path / "artifacts"), WorkspaceStore(tmp_path / "workspaces"))
    return Runner({}, RunStore(tmp_path / "runs"), Redactor(), lambda key: None, folders=folders)


async def test_of_an_attempt_that_was_lost_nothing_is_found(store: FolderStore, tmp_path: Path) -> None:
    first = leave(store, "u-1", b"first")
    store.commit("u", "u-1")
    leave(store, "u-2", b"second")
    runner = next_operator(tmp_path)
    assert (await runner.collect("ns", "u", ATTEMPT, 100)).reason == ExitReason.INTERRUPTED
    store.commit("u", "u-2")
    assert store.artifacts("ns", "build") == [first]


async def test_of_an_attempt_whose_end_is_on_record_all_is_found(store: FolderStore, tmp_path: Path) -> None:
    leave(store, "u-1", b"first")
    store.commit("u", "u-1")
    second = leave(store, "u-2", b"second")
    runner = next_operator(tmp_path)
    told = KeptArtifact("files", 1, 6, second.digest)
    runner.store.open("ns", "u", "u-2").ended(Outcome(ExitReason.COMPLETED, "completed", 0, artifacts=(told,)))
    for _ in range(2):
        outcome = await runner.collect("ns", "u", ATTEMPT, 100)
        assert outcome.reason == ExitReason.COMPLETED
        assert store.artifacts("ns", "build") == [second]


async def test_a_task_that_is_deleted_leaves_nothing_that_was_staged(store: FolderStore, tmp_path: Path) -> None:
    leave(store, "u-2", b"second")
    next_operator(tmp_path).forget_task("ns", "u")
    assert list((tmp_path / "artifacts" / "staged").iterdir()) == []
