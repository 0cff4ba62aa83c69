"""Artifacts in object storage: contents, and what each task has of them. On this host is only what tasks mount.

<bucket>/<prefix>/
    blobs/              contents (see `contents.py`)
    tasks/  staged/     what each task has (see `records.py`)
    probes/             what shows whether the store can be used

<folder>/
    trees/<digest>/     an artifact as a folder, for those who mount it; downloaded, and removed when nobody does
    spool/              contents on their way, without names
    later/              what could not be done yet
"""

from __future__ import annotations

import contextlib
import os
import shutil
import time
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, Final

from remit.backends.elapsed import ElapsedTime
from remit.diskspace import nearly_full, no_space_left
from remit.execution.artifacts.holding import Holding
from remit.execution.artifacts.s3 import contents
from remit.execution.artifacts.s3.bucket import Bucket
from remit.execution.artifacts.s3.contents import Uploads
from remit.execution.artifacts.s3.failures import Failure, unavailable
from remit.execution.artifacts.s3.journal import Journal
from remit.execution.artifacts.s3.records import S3Records
from remit.execution.artifacts.store import Kept, StoreUnavailable, Surplus, find
from remit.execution.artifacts.stored import Damaged, Record, StoredArtifact, StoredFile, verified
from remit.execution.artifacts.trees import Trees, tree_name

_GRACE_SECONDS: Final = 3600.0
"""How old a content without a record is when it goes: a process that was killed may have sent it just before."""
_REMOVED_AT_ONCE: Final = 1000
_CHUNK: Final = 1 << 20


class S3Reader:
    """An `ArtifactReader`. Its OSErrors are `StoreUnavailable` and `Damaged`."""

    def __init__(self, bucket: Bucket, elapsed: ElapsedTime | None = None) -> None:
        self._bucket = bucket
        self._records = S3Records(bucket, elapsed or ElapsedTime())

    def artifacts(self, namespace: str, task: str) -> list[StoredArtifact]:
        return next((record.artifacts for record in self._records.of_task(namespace, task)), [])

    def find(self, namespace: str, task: str, name: str, digest: str = "") -> StoredArtifact | None:
        return find(self._records.of_task(namespace, task), name, digest)

    def open(self, file: StoredFile) -> BinaryIO:
        return contents.read(self._bucket, file)

    def surplus(self, most_bytes: int | None = None, *, older_than: float | None = None) -> Iterator[Surplus]:
        return (each for _, each in self._surplus(self._kept(most_bytes, older_than)))

    def _kept(self, most_bytes: int | None, older_than: float | None) -> Kept:
        return Kept(most_bytes, older_than, self._records.is_over, lambda file: file.sha256)

    def _surplus(self, kept: Kept) -> Iterator[tuple[Record, Surplus]]:
        for record in self._records.staged():  # staged records first, because they become kept records meanwhile
            kept.keep(record)
        for record, surplus in kept.surplus(self._records.all()):
            yield record, Surplus(f"{self._bucket.where}/{surplus.name}", surplus.size, surplus.time, surplus.reason)


class S3Store(S3Reader):
    """An `ArtifactStore`. Its further OSErrors are the disk's, where it copies to or from this host."""

    def __init__(
        self,
        bucket: Bucket,
        folder: Path,
        elapsed: ElapsedTime | None = None,
        *,
        grace_seconds: float = _GRACE_SECONDS,
    ) -> None:
        super().__init__(bucket, elapsed)
        self.folder, self._grace = folder, grace_seconds
        folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        (folder / "spool").mkdir(mode=0o700, exist_ok=True)
        self._trees = Trees(folder / "trees", self._download)
        self._verified = set[str]()
        """The names of trees whose content this process knows: a machine that went down may have damaged others."""
        self._holding = Holding()
        self._journal = Journal(
            folder / "later",
            commit=self._records.commit,
            discard=self._records.discard,
            release=self._records.release,
        )

    @contextlib.contextmanager
    def collecting(self) -> Iterator[Uploads]:
        held = list[str]()

        def hold(digest: str) -> None:
            self._holding.hold(digest)
            held.append(digest)

        uploads = Uploads(self._bucket, self.folder / "spool", hold)
        try:
            yield uploads
        finally:
            uploads.close()
            self._holding.let_go(held)

    def stage(self, namespace: str, task: str, attempt_id: str, artifacts: Sequence[StoredArtifact]) -> None:
        self._records.stage(namespace, task, attempt_id, artifacts)

    def commit(self, uid: str, attempt_id: str) -> None:
        self._journal.do("commit", uid, attempt_id)

    def discard(self, attempt_id: str) -> None:
        self._journal.do("discard", attempt_id)

    def release(self, namespace: str, uid: str) -> None:
        self._journal.do("release", namespace, uid)

    def artifacts(self, namespace: str, task: str) -> list[StoredArtifact]:
        self._journal.catch_up()
        return super().artifacts(namespace, task)

    def find(self, namespace: str, task: str, name: str, digest: str = "") -> StoredArtifact | None:
        self._journal.catch_up()
        return super().find(namespace, task, name, digest)

    def tree(self, artifact: StoredArtifact, user: str = "") -> Path:
        name = tree_name(artifact)
        if name not in self._verified and not self._is_whole(artifact):
            self._trees.drop(artifact)
        folder = self._trees.get(artifact, user)
        self._verified.add(name)
        return folder

    def let_go(self, user: str) -> None:
        self._trees.let_go(user)

    def prune(self, most_bytes: int | None = None, *, older_than: float | None = None) -> list[Surplus]:
        self._trees.prune()
        self._journal.catch_up()
        with self._holding.pruning():
            kept, removed = self._kept(most_bytes, older_than), []
            for record, surplus in self._surplus(kept):
                self._records.remove(record)
                removed.append(surplus)
            self._remove_unnamed(kept.contents)
        self._records.clean_up(time.time())
        return removed

    def probe(self) -> None:
        """Write an object, read it, list it and remove it, as the store is used. Raises `StoreUnavailable`."""
        content = uuid.uuid4().bytes
        key = f"probes/{content.hex()}"
        self._bucket.put(key, content)
        try:
            kept = self._bucket.get(key)
            listed = {entry.key for entry in self._bucket.list("probes")}
        finally:
            with contextlib.suppress(StoreUnavailable):
                self._bucket.delete([key])
        if kept != content or key not in listed:
            raise self._odd("what was written there is not found")
        self._bucket.delete([key])  # repeated because the first deletion ignores errors, which must be reported here
        if self._bucket.get(key) is not None:
            raise self._odd("what was removed there is still found")

    def _odd(self, what: str) -> StoreUnavailable:
        return unavailable(self._bucket.where, Failure(what, lasting=True))

    def _remove_unnamed(self, named: set[str]) -> None:
        """Contents that no record speaks of, and what is left of probes."""
        before, some = time.time() - self._grace, dict[str, list[str]]()
        for entry in self._bucket.list("blobs"):
            content = contents.content_of(entry.key)
            if content not in named and entry.time <= before:
                some.setdefault(content, []).append(entry.key)
                if len(some) >= _REMOVED_AT_ONCE:
                    self._remove(some)
                    some = {}
        self._remove(some)
        self._bucket.delete([entry.key for entry in self._bucket.list("probes") if entry.time <= before])

    def _remove(self, some: dict[str, list[str]]) -> None:
        self._holding.remove(
            list(some), lambda unused: self._bucket.delete([key for content in unused for key in some[content]])
        )

    def _is_whole(self, artifact: StoredArtifact) -> bool:
        folder = self._trees.root / tree_name(artifact)
        if not folder.is_dir():
            return True
        try:
            for file in artifact.files:
                with verified((folder / file.path).open("rb"), file) as content:
                    while content.read(_CHUNK):
                        pass
        except (Damaged, FileNotFoundError, NotADirectoryError, IsADirectoryError):
            return False
        return True

    def _download(self, file: StoredFile, target: Path) -> None:
        if nearly_full(self.folder):
            raise no_space_left()
        with contents.read(self._bucket, file) as source, target.open("xb") as copy:
            shutil.copyfileobj(source, copy, _CHUNK)
            copy.flush()
            os.fsync(copy.fileno())
        target.chmod(0o555 if file.executable else 0o444)
