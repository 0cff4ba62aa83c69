"""Artifacts of tasks for tests, as an attempt leaves them."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from remit.execution.artifacts.store import ArtifactStore
from remit.execution.artifacts.stored import StoredArtifact


def record(store: ArtifactStore, namespace: str, task: str, uid: str, artifacts: Sequence[StoredArtifact]) -> None:
    """What the task has now, after an attempt whose end is on record."""
    attempt = f"{uid}-1"
    store.stage(namespace, task, attempt, artifacts)
    store.commit(uid, attempt)


@contextmanager
def pruning(store: ArtifactStore) -> Iterator[None]:
    """What nobody has is removed again and again meanwhile. Raises what that raised."""
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
