"""Stores artifacts of tasks for tests, as an attempt does."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from remit.execution.artifacts.store import ArtifactStore
from remit.execution.artifacts.stored import StoredArtifact


def record(store: ArtifactStore, namespace: str, task: str, uid: str, artifacts: Sequence[StoredArtifact]) -> None:
    """Records the artifacts of a task as after an attempt whose end is recorded."""
    attempt = f"{uid}-1"
    store.stage(namespace, task, attempt, artifacts)
    store.commit(uid, attempt)


@contextmanager
def pruning(store: ArtifactStore) -> Iterator[None]:
    """Prunes unreferenced artifacts repeatedly while the block runs. Raises the pruning's exception at the end."""
    stop, failures = threading.Event(), list[BaseException]()

    def prune() -> None:
        try:
            while not stop.is_set():
                store.prune(1 << 30)
        except BaseException as error:
            failures.append(error)

    pruner = threading.Thread(target=prune)
    pruner.start()
    try:
        yield
    finally:
        stop.set()
        pruner.join()
    for failure in failures:
        raise failure
