"""The stored data: artifacts, their files, and the records of what a task has."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import io
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, BinaryIO, cast

import orjson


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
    """The lines that `sha256sum` prints, which marks and escapes names that would break a line."""
    lines = []
    for file in sorted(files, key=lambda file: file.path):
        name = file.path.replace("\\", "\\\\").replace("\n", "\\n").replace("\r", "\\r")
        mark = "\\" if name != file.path else ""
        lines.append(f"{mark}{file.sha256}  {name}\n")
    return "".join(lines)


@dataclass(frozen=True, slots=True)
class Record:
    """The record of what one task has. `name`: of the record in its store; `size`: its own bytes. `time`: when it was
    left, in seconds since 1970."""

    name: str
    artifacts: list[StoredArtifact]
    size: int
    time: float = 0.0


def record_of(artifacts: Sequence[StoredArtifact], **more: object) -> bytes:
    """The record of artifacts as it is stored."""
    return orjson.dumps({"artifacts": [dataclasses.asdict(each) for each in artifacts], **more})


def read_record(content: bytes) -> list[StoredArtifact]:
    """Raises ValueError where it is damaged."""
    try:
        document: dict[str, Any] = orjson.loads(content)
        return [
            StoredArtifact(each["name"], tuple(StoredFile(**file) for file in each["files"]), each["retain_seconds"])
            for each in document["artifacts"]
        ]
    except (TypeError, KeyError) as error:
        raise ValueError(f"it is no list of artifacts: {error}") from None


def read_mark(content: bytes) -> object:
    """Read a mark of `ElapsedTime`; None if it is damaged, which counts as no mark."""
    try:
        return orjson.loads(content)
    except ValueError:
        return None


class Damaged(OSError):
    """A content is not what was kept."""

    def __init__(self, file: StoredFile) -> None:
        super().__init__(errno.EIO, "its content was damaged where artifacts are kept", file.path)


def verified(source: BinaryIO, file: StoredFile) -> BinaryIO:
    """The content of `file`, read from `source`. Reading raises `Damaged` instead of its end, if it is another one."""
    return cast(BinaryIO, io.BufferedReader(_Verified(source, file), 1 << 20))


class _Verified(io.RawIOBase):
    def __init__(self, source: BinaryIO, file: StoredFile) -> None:
        self._source, self._file = source, file
        self._digest, self._left = hashlib.sha256(), file.size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        content = self._source.read(len(view))
        self._left -= len(content)
        self._digest.update(content)
        if self._left < 0 or (not content and (self._left or self._digest.hexdigest() != self._file.sha256)):
            raise Damaged(self._file)
        view[: len(content)] = content
        return len(content)

    def close(self) -> None:
        self._source.close()
        super().close()
