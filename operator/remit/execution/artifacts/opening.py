"""The artifact store that is configured."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from remit.errors import InvalidInput
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.s3.location import S3Location
from remit.execution.artifacts.store import ArtifactStore

if TYPE_CHECKING:
    from remit.execution.artifacts.s3.store import S3Store


def open_store(state_dir: Path, where: S3Location | None) -> ArtifactStore:
    """None: in the state directory. Raises `InvalidInput`, OSError."""
    return FolderStore(state_dir / "artifacts") if where is None else open_s3(state_dir, where)


def open_s3(state_dir: Path, where: S3Location, *, tries: int | None = None) -> S3Store:
    """Connects to nothing yet. Raises `InvalidInput`, OSError."""
    try:  # it takes time and memory that only those pay who use it
        from remit.execution.artifacts.s3.bucket import Bucket
        from remit.execution.artifacts.s3.store import S3Store
    except ImportError:
        needed = "needs the package obstore; install remit-operator[s3]"
        raise InvalidInput(needed, field="--artifact-store") from None
    bucket = Bucket(where) if tries is None else Bucket(where, tries=tries)
    return S3Store(bucket, state_dir / "artifacts-s3")
