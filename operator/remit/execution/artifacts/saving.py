"""Copies kept artifacts to where a user wants them."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

from remit.errors import InvalidInput
from remit.execution.artifacts.store import ArtifactStore, StoredArtifact, StoredFile


def save(store: ArtifactStore, artifact: StoredArtifact, target: Path) -> list[Path]:
    """Write the artifact to `target` as `cp -r` would: one file becomes `target`, or lies in it where that is a folder;
    several lie below it, in a folder of the artifact's name where it is there already. Gives what was written.

    Raises OSError, and `InvalidInput` for a path that leads out of the artifact.
    """
    if len(artifact.files) == 1 and "/" not in artifact.files[0].path:
        return [save_file(store, artifact.files[0], target)]
    folder = target / artifact.name if target.is_dir() else target
    return [_write(store, file, folder / _relative(file.path)) for file in artifact.files]


def save_file(store: ArtifactStore, file: StoredFile, target: Path) -> Path:
    """Write one file to `target`, or under its own name into it where that is a folder. Raises as `save`."""
    return _write(store, file, target / _relative(file.path).name if target.is_dir() else target)


def _relative(path: str) -> Path:
    """Records are the operator's own, but what is written where is not to depend on that."""
    if path.startswith("/") or {"", ".", ".."} & set(path.split("/")) or "\0" in path:
        raise InvalidInput(f"the artifact has a file {path!r}, which leads out of it")
    return Path(path)


def _write(store: ArtifactStore, file: StoredFile, target: Path) -> Path:
    """Whole or not at all."""
    target.parent.mkdir(parents=True, exist_ok=True)
    descriptor, temporary = tempfile.mkstemp(dir=target.parent, prefix=".remit-")
    try:
        with os.fdopen(descriptor, "wb") as destination, store.open(file) as source:
            shutil.copyfileobj(source, destination, 1 << 20)
            umask = os.umask(0)
            os.umask(umask)
            os.fchmod(descriptor, (0o777 if file.executable else 0o666) & ~umask)
        Path(temporary).replace(target)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise
    return target
