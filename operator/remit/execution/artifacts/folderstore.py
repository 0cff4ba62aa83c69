"""Artifacts in a folder of this host.

<root>/
    blobs/<first two digits>/<sha256>       contents; `.x` behind it for a program
    trees/<digest>/                         an artifact as a folder, of links to blobs, for those who mount it
    tasks/  staged/                         what each task has (see `records.py`)
"""

from __future__ import annotations

import contextlib
import errno
import functools
import os
import shutil
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from remit.backends.elapsed import ElapsedTime
from remit.execution.artifacts.copying import copied
from remit.execution.artifacts.holding import Holding
from remit.execution.artifacts.records import Records
from remit.execution.artifacts.store import Kept, Surplus, find
from remit.execution.artifacts.stored import Record, StoredArtifact, StoredFile, verified
from remit.execution.artifacts.trees import Trees, new_name
from remit.libc import call

_SYNCED_ALONE: Final = 200
"""Contents that are synced one by one; for more, the whole filesystem is."""


class FolderStore:
    """An `ArtifactStore` under `root`, which is made if need be."""

    def __init__(self, root: Path, elapsed: ElapsedTime | None = None) -> None:
        self.root = root
        self._blobs = root / "blobs"
        for folder in (root, self._blobs):
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)  # the same mode as the folders of the trees
        self._trees = Trees(root / "trees", self._link)
        self._records = Records(root, elapsed or ElapsedTime())
        self._holding = Holding()

    @contextlib.contextmanager
    def collecting(self) -> Iterator[BlobWriter]:
        blobs = BlobWriter(self)
        try:
            yield blobs
        finally:
            self._holding.let_go(blobs.held)

    def stage(self, namespace: str, task: str, attempt_id: str, artifacts: Sequence[StoredArtifact]) -> None:
        self._records.stage(namespace, task, attempt_id, artifacts)

    def commit(self, uid: str, attempt_id: str) -> None:
        self._records.commit(uid, attempt_id)

    def discard(self, attempt_id: str) -> None:
        self._records.discard(attempt_id)

    def artifacts(self, namespace: str, task: str) -> list[StoredArtifact]:
        return next((record.artifacts for record in self._records.of_task(namespace, task)), [])

    def find(self, namespace: str, task: str, name: str, digest: str = "") -> StoredArtifact | None:
        return find(self._records.of_task(namespace, task), name, digest)

    def open(self, file: StoredFile) -> BinaryIO:
        return verified(self._blob(file).open("rb"), file)

    def tree(self, artifact: StoredArtifact, user: str = "") -> Path:
        return self._trees.get(artifact, user)

    def let_go(self, user: str) -> None:
        self._trees.let_go(user)

    def release(self, namespace: str, uid: str) -> None:
        self._records.release(namespace, uid)

    def surplus(self, most_bytes: int | None = None, *, older_than: float | None = None) -> Iterator[Surplus]:
        return (each for _, each in self._surplus(self._kept(most_bytes, older_than)))

    def prune(self, most_bytes: int | None = None, *, older_than: float | None = None) -> list[Surplus]:
        with self._holding.pruning():
            return self._prune(self._kept(most_bytes, older_than))

    def _prune(self, kept: Kept) -> list[Surplus]:
        removed = []
        for record, surplus in self._surplus(kept):
            self._records.remove(record)
            removed.append(surplus)
        for blob in self._blobs.rglob("*"):
            if blob.is_file() and blob.name not in kept.contents:
                self._holding.remove([blob.name], functools.partial(_unlink, blob))
        self._trees.prune(kept.trees)
        self._records.clean_up()
        return removed

    def _kept(self, most_bytes: int | None, older_than: float | None) -> Kept:
        return Kept(most_bytes, older_than, self._records.is_over, _blob_name)

    def _surplus(self, kept: Kept) -> Iterator[tuple[Record, Surplus]]:
        for record in self._records.staged():  # staged records first, because they become kept records meanwhile
            kept.keep(record)
        yield from kept.surplus(self._records.all())

    def _link(self, file: StoredFile, target: Path) -> None:
        blob = self._blob(file)
        try:
            os.link(blob, target)
        except OSError as error:
            # The file system allows no more hard links to one file, which happens to common content such as the empty
            # file.
            if error.errno != errno.EMLINK:
                raise
            shutil.copyfile(blob, target)
            target.chmod(0o555 if file.executable else 0o444)

    def _blob(self, file: StoredFile) -> Path:
        return self._blobs / file.sha256[:2] / _blob_name(file)


class BlobWriter:
    """Contents that are put while an attempt is collected."""

    def __init__(self, store: FolderStore) -> None:
        self._store = store
        self.held = set[str]()
        """Their names."""
        self._new: list[Path] = []

    def put(self, path: str, source: BinaryIO, *, executable: bool, most: int) -> StoredFile:
        store = self._store
        temporary = store._blobs / new_name()
        self._hold(temporary)
        try:
            with temporary.open("xb") as target:
                size, digest = copied(source, target, most, store.root)
                os.fchmod(target.fileno(), 0o555 if executable else 0o444)
            stored = StoredFile(path, size, digest, executable)
            blob = store._blob(stored)
            self._hold(blob)
            if _size(blob) == size:
                temporary.unlink()
            else:  # there is no blob, or a crash of the machine damaged it
                blob.parent.mkdir(mode=0o711, exist_ok=True)
                temporary.rename(blob)
                self._new.append(blob)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return stored

    def sync(self) -> None:
        if len(self._new) > _SYNCED_ALONE:
            _sync_filesystem(self._store.root)
        else:
            for blob in self._new:
                with blob.open("rb") as file:
                    os.fsync(file.fileno())
        self._new.clear()

    def _hold(self, blob: Path) -> None:
        if blob.name not in self.held:
            self.held.add(blob.name)
            self._store._holding.hold(blob.name)


def _sync_filesystem(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def _unlink(blob: Path, names: list[str]) -> None:
    blob.unlink(missing_ok=True)


def _blob_name(file: StoredFile) -> str:
    return file.sha256 + (".x" if file.executable else "")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
