"""What is kept: artifacts, and their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass


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
