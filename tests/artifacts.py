"""Artifacts of tasks for tests, as an attempt leaves them."""

from __future__ import annotations

from collections.abc import Sequence

from remit.execution.artifacts import ArtifactStore, StoredArtifact


def record(store: ArtifactStore, namespace: str, task: str, uid: str, artifacts: Sequence[StoredArtifact]) -> None:
    """What the task has now, after an attempt whose end is on record."""
    attempt = f"{uid}-1"
    store.stage(namespace, task, attempt, artifacts)
    store.commit(uid, attempt)
