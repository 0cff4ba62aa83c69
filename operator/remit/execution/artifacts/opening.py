"""The artifact store that is configured. Object storage is imported by those who use it: it takes time and memory."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from remit.errors import InvalidInput
from remit.execution.artifacts.folderstore import FolderStore
from remit.execution.artifacts.s3.location import S3Location, written_down
from remit.execution.artifacts.store import ArtifactReader, ArtifactStore

if TYPE_CHECKING:
    from remit.execution.artifacts.s3.store import S3Store


def open_store(state_dir: Path, where: S3Location | None) -> ArtifactStore:
    """Opens the artifact store. `where` None: in the state directory. Raises `InvalidInput`, OSError."""
    return FolderStore(_folder(state_dir)) if where is None else _open_s3(state_dir, where)


def readers(state_dir: Path) -> Iterator[ArtifactReader]:
    """Readers of the artifacts of the operator that works there, beside it. Raises as `open_store`."""
    if (where := written_down(state_dir)) is not None:
        _installed()
        from remit.execution.artifacts.s3.bucket import Bucket
        from remit.execution.artifacts.s3.store import S3Reader

        yield S3Reader(Bucket(where))
    if _folder(state_dir).is_dir():
        yield FolderStore(_folder(state_dir))


def check(state_dir: Path, where: S3Location) -> None:
    """Write an object there, find it and remove it. Blocks for some minutes at most.

    Raises `StoreUnavailable` with what is wrong and what to do, and `InvalidInput` where nothing can be tried.
    """
    _open_s3(state_dir, where, tries=1).probe()


def _open_s3(state_dir: Path, where: S3Location, **more: int) -> S3Store:
    _installed()
    from remit.execution.artifacts.s3.bucket import Bucket
    from remit.execution.artifacts.s3.store import S3Store

    return S3Store(Bucket(where, **more), state_dir / "artifacts-s3")


def _installed() -> None:
    if importlib.util.find_spec("obstore") is None:
        raise InvalidInput("needs the package obstore; install remit-operator[s3]", field="--artifact-store")


def _folder(state_dir: Path) -> Path:
    return state_dir / "artifacts"
