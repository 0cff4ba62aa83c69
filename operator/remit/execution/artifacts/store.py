"""The artifact store: contents by their digest, each kept once, and what each task has of them.

    <root>/
        blobs/<first two digits>/<sha256>       contents; `.x` behind it for a program
        tasks/<namespace>/<task>/<uid>.json     the artifacts of the task's latest attempt that left any
        trees/<digest>/                         an artifact as a folder, of links to blobs, for those who mount it

A record is written when all its contents are there, so nothing half is ever found. Contents without a record are
removed by `prune`, unless they are so new that their record may still come.
"""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import errno
import hashlib
import os
import shutil
import tempfile
import time
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

import orjson
import structlog

from remit.execution.output import nearly_full
from remit.privatefiles import replace_private

log = structlog.get_logger(__name__)
_CHUNK: Final = 1 << 20
_FRESH_SECONDS: Final = 3600.0
"""How long contents may be without a record: longer than any attempt takes to be collected."""


_PRUNE_SECONDS: Final = 600.0
ARTIFACT_BYTES: Final = 10 * 1024**3
"""How much all artifacts together may have, unless that is set."""
_LOOK_BYTES: Final = 64 * _CHUNK


class TooLarge(Exception):
    """A content has more than it may."""


@dataclass(frozen=True, slots=True)
class StoredFile:
    """One file of an artifact, by its path in that. `sha256` is in hexadecimal."""

    path: str
    size: int
    sha256: str
    executable: bool = False


@dataclass(frozen=True, slots=True)
class StoredArtifact:
    """`retain_seconds`: how long it is kept after its task was deleted."""

    name: str
    files: tuple[StoredFile, ...]
    retain_seconds: int = 0

    @property
    def bytes(self) -> int:
        return sum(file.size for file in self.files)

    @property
    def digest(self) -> str:
        """`sha256:` and that of what `sha256sum` prints for the files, in the order of their paths."""
        return f"sha256:{hashlib.sha256(listing(self.files).encode()).hexdigest()}"


def listing(files: Iterable[StoredFile]) -> str:
    """What `sha256sum` prints, which marks and escapes names that would break a line."""
    lines = []
    for file in sorted(files, key=lambda file: file.path):
        name = file.path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "\\" if name != file.path else ""
        lines.append(f"{mark}{file.sha256}  {name}\n")
    return "".join(lines)


class ArtifactStore:
    """Artifacts under `root`, which is made if need be. Every method may block and raise OSError."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._blobs, self._tasks, self._trees = root / "blobs", root / "tasks", root / "trees"
        for folder in (root, self._blobs, self._tasks, self._trees):
            # Tasks that mount an artifact are of other users: they may pass, but not look around.
            folder.mkdir(mode=0o711 if folder != self._tasks else 0o700, parents=True, exist_ok=True)

    def put(self, path: str, source: BinaryIO, *, executable: bool, most: int) -> StoredFile:
        """Keep the content of `source`, at most `most` bytes, in constant memory. Raises `TooLarge`."""
        descriptor, temporary = tempfile.mkstemp(dir=self._blobs, prefix=".new-")
        try:
            with os.fdopen(descriptor, "wb") as target:
                size, digest = self._copy(source, target, most)
                os.fchmod(descriptor, 0o555 if executable else 0o444)
            stored = StoredFile(path, size, digest, executable)
            blob = self._blob(stored)
            try:
                os.utime(blob)  # it is as good as new, so that `prune` leaves it
                Path(temporary).unlink()
            except FileNotFoundError:
                blob.parent.mkdir(mode=0o711, exist_ok=True)
                Path(temporary).rename(blob)
        except BaseException:
            with contextlib.suppress(OSError):
                Path(temporary).unlink(missing_ok=True)
            raise
        return stored

    def save(self, namespace: str, task: str, uid: str, artifacts: Sequence[StoredArtifact]) -> None:
        """Record what the task has now, instead of what it had. Whole or not at all."""
        path = self._record(namespace, task, uid)
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        document = {"keptAt": time.time(), "artifacts": [dataclasses.asdict(each) for each in artifacts]}
        replace_private(path, orjson.dumps(document))

    def artifacts(self, namespace: str, task: str) -> list[StoredArtifact]:
        """What is kept of the newest task of that name that left anything."""
        records = sorted(self._records(f"{namespace}/{task}/*.json"), key=lambda record: -record.kept_at)
        return records[0].artifacts if records else []

    def find(self, namespace: str, task: str, name: str, digest: str = "") -> StoredArtifact | None:
        """The artifact `name` of the newest task of that name; with `digest`, that one, of whichever it is."""
        for record in sorted(self._records(f"{namespace}/{task}/*.json"), key=lambda record: -record.kept_at):
            for artifact in record.artifacts:
                if artifact.name == name and digest in {"", artifact.digest}:
                    return artifact
        return None

    def open(self, file: StoredFile) -> BinaryIO:
        return self._blob(file).open("rb")

    def tree(self, artifact: StoredArtifact) -> Path:
        """A folder with the artifact's files, which nobody can change, and everybody who is given it can read."""
        folder = self._tree(artifact)
        if folder.is_dir():
            os.utime(folder)
            return folder
        fresh = Path(tempfile.mkdtemp(dir=self._trees, prefix=".new-"))
        try:
            fresh.chmod(0o755)
            for file in artifact.files:
                target = fresh / file.path
                for above in reversed(target.relative_to(fresh).parents[:-1]):
                    (fresh / above).mkdir(mode=0o755, exist_ok=True)
                os.link(self._blob(file), target)
            try:
                fresh.rename(folder)
            except OSError:  # somebody else was quicker
                if not folder.is_dir():
                    raise
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
        return folder

    def release(self, namespace: str, uid: str) -> None:
        """The task was deleted: what is not to be kept longer goes, by the next `prune` with its contents."""
        for record in list(self._records(f"{namespace}/*/{uid}.json")):
            kept = [each for each in record.artifacts if each.retain_seconds > 0]
            if not kept:
                record.path.unlink(missing_ok=True)
            elif record.released_at is None:
                document = {"keptAt": record.kept_at, "releasedAt": time.time()}
                listed = {"artifacts": [dataclasses.asdict(each) for each in kept]}
                replace_private(record.path, orjson.dumps(document | listed))

    def prune(self, most_bytes: int | None = None) -> None:
        """Remove what is out of date, then the oldest until no more than `most_bytes` are kept, then what no record
        speaks of."""
        now, records = time.time(), []
        for record in sorted(self._records("*/*/*.json"), key=lambda record: record.kept_at):
            released = record.released_at
            if released is not None and all(now >= released + each.retain_seconds for each in record.artifacts):
                record.path.unlink(missing_ok=True)
            else:
                records.append(record)
        if most_bytes is not None:
            self._cut(records, most_bytes)
        named = {self._blob(file) for record in records for each in record.artifacts for file in each.files}
        for blob in self._blobs.rglob("*"):
            if blob.is_file() and blob not in named:
                _remove_stale(blob, now)
        live = {self._tree(each).name for record in records for each in record.artifacts}
        for tree in self._trees.iterdir():
            if tree.name not in live and now - tree.stat().st_mtime > _FRESH_SECONDS:
                shutil.rmtree(tree, ignore_errors=True)

    def _cut(self, records: list[_Record], most_bytes: int) -> None:
        """Takes the oldest records away, and out of `records`."""
        sizes = {file.sha256: file.size for record in records for each in record.artifacts for file in each.files}
        while records and sum(sizes.values()) > most_bytes:
            oldest = records.pop(0)
            oldest.path.unlink(missing_ok=True)
            left = {file.sha256 for record in records for each in record.artifacts for file in each.files}
            sizes = {digest: size for digest, size in sizes.items() if digest in left}

    def _copy(self, source: BinaryIO, target: BinaryIO, most: int) -> tuple[int, str]:
        """Gives how many bytes it was, and their SHA-256. Raises `TooLarge`."""
        digest, size = hashlib.sha256(), 0
        while chunk := source.read(_CHUNK):
            if size % _LOOK_BYTES == 0 and nearly_full(self.root):
                raise OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: what is left is for the audit trail")
            size += len(chunk)
            if size > most:
                raise TooLarge
            digest.update(chunk)
            target.write(chunk)
        return size, digest.hexdigest()

    def _blob(self, file: StoredFile) -> Path:
        return self._blobs / file.sha256[:2] / (file.sha256 + (".x" if file.executable else ""))

    def _tree(self, artifact: StoredArtifact) -> Path:
        modes = "".join("x" if file.executable else "-" for file in artifact.files)
        return self._trees / hashlib.sha256(f"{artifact.digest} {modes}".encode()).hexdigest()

    def _record(self, namespace: str, task: str, uid: str) -> Path:
        return self._tasks / namespace / task / f"{uid}.json"

    def _records(self, pattern: str) -> Iterator[_Record]:
        for path in self._tasks.glob(pattern):
            with contextlib.suppress(FileNotFoundError):
                yield _Record.read(path)


async def keep_pruning(store: ArtifactStore, most_bytes: int) -> None:
    """Remove what is out of date now and then, for as long as it is let. What goes wrong is logged."""
    while True:
        try:
            await asyncio.to_thread(store.prune, most_bytes)
        except (OSError, ValueError) as error:
            log.warning("artifacts could not be pruned", error=str(error))
        await asyncio.sleep(_PRUNE_SECONDS)


@dataclass(frozen=True, slots=True)
class _Record:
    path: Path
    kept_at: float
    artifacts: list[StoredArtifact]
    released_at: float | None = None

    @classmethod
    def read(cls, path: Path) -> _Record:
        document: dict[str, Any] = orjson.loads(path.read_bytes())
        artifacts = [
            StoredArtifact(each["name"], tuple(StoredFile(**file) for file in each["files"]), each["retain_seconds"])
            for each in document["artifacts"]
        ]
        return cls(path, document["keptAt"], artifacts, document.get("releasedAt"))


def _remove_stale(path: Path, now: float) -> None:
    with contextlib.suppress(FileNotFoundError):
        if now - path.stat().st_mtime > _FRESH_SECONDS:
            path.unlink()
