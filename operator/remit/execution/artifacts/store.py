"""The artifact store: contents by their digest, each kept once, and what each task has of them.

    <root>/
        blobs/<first two digits>/<sha256>       contents; `.x` behind it for a program
        trees/<digest>/                         an artifact as a folder, of links to blobs, for those who mount it
        tasks/  staged/                         what each task has (see `records.py`)

A record is written when all its contents are on the disk, and found when how the attempt ended is on record, so nothing
half is ever found. Contents without a record are removed by `prune`, unless they are being collected. One process at a
time works on a store; others may read.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import threading
import uuid
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final

from remit.backends.elapsed import ElapsedTime
from remit.diskspace import nearly_full
from remit.execution.artifacts.records import Record, Records
from remit.execution.artifacts.stored import StoredArtifact, StoredFile
from remit.execution.retention import Reason
from remit.libc import call

_CHUNK: Final = 1 << 20
ARTIFACT_BYTES: Final = 10 * 1024**3
"""How much all artifacts together may have, unless that is set."""
_LOOK_BYTES: Final = 64 * _CHUNK
_SYNCED_ALONE: Final = 200
"""Contents that are synced one by one; for more, the whole filesystem is."""


@dataclass(frozen=True, slots=True)
class Surplus:
    """A record that is not kept, the bytes that only it accounts for, and why."""

    record: Record
    size: int
    reason: Reason


class TooLarge(Exception):
    """A content has more than it may."""


class ArtifactStore:
    """Artifacts under `root`, which is made if need be. Every method may block and raise OSError."""

    def __init__(self, root: Path, elapsed: ElapsedTime | None = None) -> None:
        self.root = root
        self._blobs, self._trees = root / "blobs", root / "trees"
        for folder in (root, self._blobs, self._trees):
            # Tasks that mount an artifact are of other users: they may pass, but not look around.
            folder.mkdir(mode=0o711, parents=True, exist_ok=True)
        self._records = Records(root, elapsed or ElapsedTime())
        self._guard = threading.Lock()
        self._collected = Counter[str]()
        """The names of blobs of attempts that are being collected, which no record speaks of yet."""
        self._meanwhile: set[str] | None = None
        """Those that were, since `prune` began; None: it does not run."""
        self._mounted: dict[str, set[Path]] = {}
        """The trees that each user has."""
        self._pruning = threading.Lock()

    @contextlib.contextmanager
    def collecting(self) -> Iterator[BlobWriter]:
        """What is put meanwhile stays at least until the end, by when a record is to speak of it."""
        blobs = BlobWriter(self)
        try:
            yield blobs
        finally:
            with self._guard:
                for blob in blobs.held:
                    self._collected[blob] -= 1
                    if not self._collected[blob]:
                        del self._collected[blob]
                if self._meanwhile is not None:
                    self._meanwhile |= blobs.held

    def stage(self, namespace: str, task: str, attempt_id: str, artifacts: Sequence[StoredArtifact]) -> None:
        """Record what an attempt leaves, for `commit`. Whole or not at all."""
        self._records.stage(namespace, task, attempt_id, artifacts)

    def commit(self, uid: str, attempt_id: str) -> None:
        """How the attempt ended is on record: what it left is what the task has now, instead of what it had. A second
        time, nothing happens."""
        self._records.commit(uid, attempt_id)

    def discard(self, attempt_id: str) -> None:
        """The attempt was lost: it has left nothing."""
        self._records.discard(attempt_id)

    def artifacts(self, namespace: str, task: str) -> list[StoredArtifact]:
        """What is kept of the newest task of that name that left anything."""
        return next((record.artifacts for record in self._records.of_task(namespace, task)), [])

    def find(self, namespace: str, task: str, name: str, digest: str = "") -> StoredArtifact | None:
        """The artifact `name` of the newest task of that name; with `digest`, that one, of whichever it is."""
        for record in self._records.of_task(namespace, task):
            for artifact in record.artifacts:
                if artifact.name == name and digest in {"", artifact.digest}:
                    return artifact
        return None

    def open(self, file: StoredFile) -> BinaryIO:
        return self._blob(file).open("rb")

    def tree(self, artifact: StoredArtifact, user: str = "") -> Path:
        """A folder with the artifact's files, which nobody can change, and everybody who is given it can read. It stays
        until `let_go` of `user`."""
        folder = self._tree(artifact)
        with self._guard:
            self._mounted.setdefault(user, set()).add(folder)
        if folder.is_dir():
            return folder
        fresh = self._trees / _new_name()
        with self._guard:
            self._mounted.setdefault(user, set()).add(fresh)
        try:
            fresh.mkdir(mode=0o755)
            for file in artifact.files:
                target = fresh / file.path
                for above in reversed(target.relative_to(fresh).parents[:-1]):
                    (fresh / above).mkdir(mode=0o755, exist_ok=True)
                self._link(file, target)
            try:
                fresh.rename(folder)
            except OSError:  # somebody else was quicker
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def let_go(self, user: str) -> None:
        """The trees that `user` was given are not used any more."""
        with self._guard:
            self._mounted.pop(user, None)

    def release(self, namespace: str, uid: str) -> None:
        """The task was deleted: what is not to be kept longer goes, by the next `prune` with its contents."""
        self._records.release(namespace, uid)

    def surplus(self, most_bytes: int | None = None, *, older_than: float | None = None) -> Iterator[Surplus]:
        """The records that `prune` would remove now. Only reads."""
        return self._surplus(most_bytes, older_than, set(), set())

    def prune(self, most_bytes: int | None = None, *, older_than: float | None = None) -> list[Surplus]:
        """Remove what is out of date, then the oldest until no more than `most_bytes` are kept, records included, then
        what no record speaks of. `older_than`: a moment, in seconds since 1970, before which a record is out of date,
        unless its artifacts are to be kept longer. Gives the records that were removed."""
        with self._pruning:
            with self._guard:
                self._meanwhile = set(self._collected)
            try:
                return self._prune(most_bytes, older_than)
            finally:
                with self._guard:
                    self._meanwhile = None

    def _prune(self, most_bytes: int | None, older_than: float | None) -> list[Surplus]:
        named, live = set[str](), set[Path]()
        removed = []
        for each in self._surplus(most_bytes, older_than, named, live):
            self._records.remove(each.record)
            removed.append(each)
        for blob in self._blobs.rglob("*"):
            if blob.is_file() and blob.name not in named:
                self._remove_unused(blob)
        for tree in self._trees.iterdir():
            if tree not in live:
                self._remove_tree(tree)
        self._records.clean_up()
        return removed

    def _surplus(
        self, most_bytes: int | None, older_than: float | None, named: set[str], live: set[Path]
    ) -> Iterator[Surplus]:
        """Adds the blobs and the trees of all others to `named` and `live`."""

        def keep(record: Record) -> None:
            named.update(_blob_name(file) for each in record.artifacts for file in each.files)
            live.update(self._tree(each) for each in record.artifacts)

        for record in self._records.staged():  # first, as they become the others
            keep(record)
        left, is_full = most_bytes, False
        for record in self._records.all():
            more = {_blob_name(file): file.size for each in record.artifacts for file in each.files}
            size = record.size + sum(size for blob, size in more.items() if blob not in named)
            if self._records.is_over(record):
                yield Surplus(record, size, "released")
                continue
            longest = max((each.retain_seconds for each in record.artifacts), default=0)
            if older_than is not None and record.time < older_than - longest:
                yield Surplus(record, size, "age")
                continue
            if left is not None:
                left -= size
                if is_full := is_full or left < 0:
                    yield Surplus(record, size, "size")
                    continue
            keep(record)

    def _remove_unused(self, blob: Path) -> None:
        with self._guard:
            if blob.name not in self._collected and blob.name not in (self._meanwhile or ()):
                blob.unlink(missing_ok=True)

    def _remove_tree(self, tree: Path) -> None:
        with self._guard:
            if any(tree in trees for trees in self._mounted.values()):
                return
            aside = self._trees / _new_name()
            tree.rename(aside)
        shutil.rmtree(aside, ignore_errors=True)

    def _link(self, file: StoredFile, target: Path) -> None:
        blob = self._blob(file)
        try:
            os.link(blob, target)
        except OSError as error:
            if error.errno != errno.EMLINK:  # the filesystem counts no more names of one file, such as an empty one
                raise
            shutil.copyfile(blob, target)
            target.chmod(0o555 if file.executable else 0o444)

    def _blob(self, file: StoredFile) -> Path:
        return self._blobs / file.sha256[:2] / _blob_name(file)

    def _tree(self, artifact: StoredArtifact) -> Path:
        modes = "".join("x" if file.executable else "-" for file in artifact.files)
        return self._trees / hashlib.sha256(f"{artifact.digest} {modes}".encode()).hexdigest()


class BlobWriter:
    """Contents that are put while an attempt is collected."""

    def __init__(self, store: ArtifactStore) -> None:
        self._store = store
        self.held = set[str]()
        """Their names."""
        self._new: list[Path] = []

    def put(self, path: str, source: BinaryIO, *, executable: bool, most: int) -> StoredFile:
        """Keep the content of `source`, at most `most` bytes, in constant memory. Raises `TooLarge`."""
        store = self._store
        temporary = store._blobs / _new_name()
        self._hold(temporary)
        try:
            with temporary.open("xb") as target:
                size, digest = self._copy(source, target, most)
                os.fchmod(target.fileno(), 0o555 if executable else 0o444)
            stored = StoredFile(path, size, digest, executable)
            blob = store._blob(stored)
            self._hold(blob)
            if _size(blob) == size:
                temporary.unlink()
            else:  # there is none, or it was damaged by a machine that went down
                blob.parent.mkdir(mode=0o711, exist_ok=True)
                temporary.rename(blob)
                self._new.append(blob)
        except BaseException:
            with contextlib.suppress(OSError):
                temporary.unlink(missing_ok=True)
            raise
        return stored

    def sync(self) -> None:
        """All that was put is on the disk when this returns, so that a record may speak of it. Raises OSError."""
        if len(self._new) > _SYNCED_ALONE:
            _sync_filesystem(self._store.root)
        else:
            for blob in self._new:
                with blob.open("rb") as file:
                    os.fsync(file.fileno())
        self._new.clear()

    def _hold(self, blob: Path) -> None:
        with self._store._guard:
            if blob.name not in self.held:
                self.held.add(blob.name)
                self._store._collected[blob.name] += 1

    def _copy(self, source: BinaryIO, target: BinaryIO, most: int) -> tuple[int, str]:
        """Gives how many bytes it was, and their SHA-256. Raises `TooLarge`."""
        digest, size, look_at = hashlib.sha256(), 0, 0
        while chunk := source.read(_CHUNK):
            if size >= look_at:
                look_at = size + _LOOK_BYTES
                if nearly_full(self._store.root):
                    raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: what is left is for the audit trail")
            size += len(chunk)
            if size > most:
                raise TooLarge
            digest.update(chunk)
            target.write(chunk)
        return size, digest.hexdigest()


def _sync_filesystem(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        call("syncfs", descriptor)
    finally:
        os.close(descriptor)


def _new_name() -> str:
    return f".new-{uuid.uuid4().hex}"


def _blob_name(file: StoredFile) -> str:
    return file.sha256 + (".x" if file.executable else "")


def _size(path: Path) -> int | None:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None
