"""The interface of an artifact store: contents by their digest, each kept once, and the records of what each task
has."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final, Protocol

from remit.execution.artifacts.stored import Record, StoredArtifact, StoredFile
from remit.execution.artifacts.trees import tree_name
from remit.execution.retention import Reason

ARTIFACT_BYTES: Final = 10 * 1024**3
"""How much all artifacts together may have, unless that is set."""


class StoreUnavailable(OSError):
    """The store did not carry out a request. `lasting`: it will not until the configuration is changed."""

    def __init__(self, message: str, *, lasting: bool = False) -> None:
        super().__init__(message)
        self.lasting = lasting


class TooLarge(Exception):
    """A content has more than it may."""


@dataclass(frozen=True, slots=True)
class Surplus:
    """A record of one task that is to be removed, by its name; the bytes that only it accounts for, when it was left,
    in seconds since 1970, and why it goes."""

    name: str
    size: int
    time: float
    reason: Reason


class Contents(Protocol):
    """Contents that are put while an attempt is collected."""

    def put(self, path: str, source: BinaryIO, *, executable: bool, most: int) -> StoredFile:
        """Keep the content of `source`, at most `most` bytes, in constant memory. Raises `TooLarge`, OSError."""

    def sync(self) -> None:
        """All that was put is safe when this returns, so that a record may speak of it. Raises OSError."""


class ArtifactReader(Protocol):
    """The methods that others may call beside the process that works on the store. Every method may block and raise
    OSError."""

    def artifacts(self, namespace: str, task: str) -> list[StoredArtifact]:
        """The artifacts of the newest task of that name that left any."""

    def find(self, namespace: str, task: str, name: str, digest: str = "") -> StoredArtifact | None:
        """The artifact `name` of the newest task of that name; with `digest`, that one, of whichever it is."""

    def open(self, file: StoredFile) -> BinaryIO:
        """Its content. Reading raises OSError instead of the end where it is not what was kept."""

    def surplus(self, most_bytes: int | None = None, *, older_than: float | None = None) -> Iterator[Surplus]:
        """The records that `ArtifactStore.prune` would remove now. Only reads."""


class ArtifactStore(ArtifactReader, Protocol):
    """Every method may block and raise OSError. One process at a time works on a store; others may read.

    A record is written when all its contents are safe, and found when how the attempt ended is on record, so nothing
    half is ever found. Contents without a record are removed by `prune`, unless they are being collected.
    """

    def collecting(self) -> AbstractContextManager[Contents]:
        """Keep what is put within the block at least until its end, by when a record is to refer to it."""

    def stage(self, namespace: str, task: str, attempt_id: str, artifacts: Sequence[StoredArtifact]) -> None:
        """Records what an attempt leaves, for `commit`, completely or not at all."""

    def commit(self, uid: str, attempt_id: str) -> None:
        """How the attempt ended is on record: what it left is what the task has now, instead of what it had. A second
        time, nothing happens."""

    def discard(self, attempt_id: str) -> None:
        """The attempt was lost: it has left nothing."""

    def tree(self, artifact: StoredArtifact, user: str = "") -> Path:
        """Returns a folder of this host with the artifact's files. They cannot be changed, and every user with the path
        can read them. The folder is kept until `let_go` of `user`."""

    def let_go(self, user: str) -> None:
        """The trees that `user` was given are not used any more."""

    def release(self, namespace: str, uid: str) -> None:
        """The task was deleted: what is not to be kept longer goes, by the next `prune` with its contents."""

    def prune(self, most_bytes: int | None = None, *, older_than: float | None = None) -> list[Surplus]:
        """Remove what is out of date, then the oldest until no more than `most_bytes` are kept, records included, then
        what no record speaks of. `older_than`: a moment, in seconds since 1970, before which a record is out of date,
        unless its artifacts are to be kept longer. Gives what the records were that were removed."""


@dataclass
class Kept:
    """Goes through records, the newest first, and says which go."""

    most_bytes: int | None
    older_than: float | None
    is_over: Callable[[Record], bool]
    """Whether the task was deleted, and all of its artifacts were kept as long as they were to be."""
    content: Callable[[StoredFile], str]
    """What names a content in the store."""
    contents: set[str] = field(default_factory=set)
    """The bytes of all records that stay."""
    trees: set[str] = field(default_factory=set)
    """The names of their folders."""

    def keep(self, record: Record) -> None:
        self.contents.update(self.content(file) for each in record.artifacts for file in each.files)
        self.trees.update(tree_name(each) for each in record.artifacts)

    def surplus(self, records: Iterable[Record]) -> Iterator[tuple[Record, Surplus]]:
        left, is_full = self.most_bytes, False
        for record in records:
            more = {self.content(file): file.size for each in record.artifacts for file in each.files}
            size = record.size + sum(size for name, size in more.items() if name not in self.contents)
            longest = max((each.retain_seconds for each in record.artifacts), default=0)
            reason: Reason | None = None
            if self.is_over(record):
                reason = "released"
            elif self.older_than is not None and record.time < self.older_than - longest:
                reason = "age"
            elif left is not None:
                left -= size
                is_full = is_full or left < 0
                reason = "size" if is_full else None
            if reason is None:
                self.keep(record)
            else:
                yield record, Surplus(record.name, size, record.time, reason)


def find(records: Iterable[Record], name: str, digest: str) -> StoredArtifact | None:
    """The first artifact `name`, with `digest` if that is given."""
    for record in records:
        for artifact in record.artifacts:
            if artifact.name == name and digest in {"", artifact.digest}:
                return artifact
    return None
