"""Copies kept artifacts to where a user wants them."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

from remit.errors import InvalidInput
from remit.execution.artifacts.store import ArtifactReader
from remit.execution.artifacts.stored import StoredArtifact, StoredFile

_CHUNK = 1 << 20
_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC


def save(store: ArtifactReader, artifact: StoredArtifact, target: Path) -> list[Path]:
    """Write the artifact to `target` as `cp -r` would: one file becomes `target`, or lies in it where that is a folder;
    several lie below it, in a folder of the artifact's name where it is there already. Gives what was written.

    No link below `target` is followed. Raises OSError, and `InvalidInput` for a path that leads out of the artifact or
    through a link.
    """
    if len(artifact.files) == 1 and "/" not in artifact.files[0].path:
        return [save_file(store, artifact.files[0], target)]
    below = PurePosixPath(artifact.name) if target.is_dir() else PurePosixPath()
    target.mkdir(parents=True, exist_ok=True)
    return [_write(store, file, target, below / _relative(file.path)) for file in artifact.files]


def save_file(store: ArtifactReader, file: StoredFile, target: Path) -> Path:
    """Write one file to `target`, or under its own name into it where that is a folder. Raises as `save`."""
    if target.is_dir():
        return _write(store, file, target, PurePosixPath(_relative(file.path).name))
    target.parent.mkdir(parents=True, exist_ok=True)
    return _write(store, file, target.parent, PurePosixPath(target.name))


def _relative(path: str) -> PurePosixPath:
    """Records are the operator's own, but what is written where is not to depend on that."""
    if path.startswith("/") or {"", ".", ".."} & set(path.split("/")) or "\0" in path:
        raise InvalidInput(f"the artifact has a file {path!r}, which leads out of it")
    return PurePosixPath(path)


def _write(store: ArtifactReader, file: StoredFile, top: Path, path: PurePosixPath) -> Path:
    """Writes `path` below `top`, completely or not at all."""
    with _parent(top, path) as parent:
        temporary = f".remit-{uuid.uuid4().hex}"
        descriptor = os.open(temporary, _NEW_FILE, 0o777 if file.executable else 0o666, dir_fd=parent)
        try:
            with os.fdopen(descriptor, "wb") as destination, store.open(file) as source:
                shutil.copyfileobj(source, destination, _CHUNK)
            # Pathlib cannot rename relative to descriptors.
            os.replace(temporary, path.name, src_dir_fd=parent, dst_dir_fd=parent)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary, dir_fd=parent)
            raise
    return top / path


@contextlib.contextmanager
def _parent(top: Path, path: PurePosixPath) -> Iterator[int]:
    """A descriptor of the folder of `path`, which is made if need be, one part after the other beneath `top`."""
    with contextlib.ExitStack() as opened:
        folder = os.open(top, _FOLDER)
        opened.callback(os.close, folder)
        for part in path.parts[:-1]:
            with contextlib.suppress(FileExistsError):
                os.mkdir(part, dir_fd=folder)
            try:
                folder = os.open(part, _FOLDER | os.O_NOFOLLOW, dir_fd=folder)
            except OSError as error:
                if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                    raise
                where = top / path.parent
                message = f"{where}: {part} is a link or no folder, through which nothing is written; remove it"
                raise InvalidInput(message) from None
            opened.callback(os.close, folder)
        yield folder
