"""Copies of artifacts on the operator's host, one for each revision, that their instances read and nobody writes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Final

from remit.api.deployment import Artifact
from remit.errors import DeploymentError, RemitError
from remit.release.targets.archive import unpack
from remit.release.targets.failing import failed
from remit.release.targets.reading import Reading

_ELSEWHERE: Final = Path("/var/tmp")  # noqa: S108  # a folder of the operator's own in it, that nobody else may write
_CHUNK: Final = 1 << 20
_MOST_DOWNLOADED: Final = 1 << 30
_MOST_UNPACKED: Final = 8 << 30
_MOST_FILES: Final = 500_000


def place_for(folder: Path) -> Path:
    """`folder`, or where another user cannot get to it, a folder of the operator's own elsewhere.

    An operator that is root runs instances as users who are not, and its state is closed to all others.
    Raises DeploymentError.
    """
    if os.geteuid() != 0 or all(parent.stat().st_mode & stat.S_IXOTH for parent in folder.absolute().parents):
        return folder
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    return _own(_ELSEWHERE / f"remit-artifacts-{name}")


def _own(folder: Path) -> Path:
    """The folder, made if need be. Its name can be guessed: one that somebody else made is refused."""
    folder.mkdir(mode=0o711, exist_ok=True)
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.geteuid() or found.st_mode & 0o022:
        message = f"{folder} was made by somebody else; remove it"
        raise DeploymentError(message, reason="ArtifactFailed", retryable=True)
    return folder


async def obtain(
    artifact: Artifact, place: Path, reading: Callable[[], Reading], download: Callable[[str], AsyncIterator[bytes]]
) -> None:
    """Have the artifact at `place`, whole or not at all. Nothing happens if it is there. Raises DeploymentError.

    `reading` gives leave to read it on this host, `download` what an address holds; both raise `RemitError`.
    """
    if await asyncio.to_thread(place.is_dir):
        return None
    what = artifact.path or artifact.archive
    try:
        await asyncio.to_thread(place.parent.mkdir, 0o711, parents=True, exist_ok=True)
        if artifact.path is not None:
            return await asyncio.to_thread(_copied, reading(), artifact.path, place)
        # A copy of it, in which nobody changes what was checked.
        with tempfile.TemporaryFile(dir=place.parent) as file:
            if artifact.address is not None:
                await _save(download(artifact.address), file)
            else:
                await asyncio.to_thread(_kept, reading(), artifact.archive or "", file)
            await asyncio.to_thread(_unpacked, file, artifact, place)
    except RemitError as error:
        told = failed(error)
        reason = "ArtifactNotFound" if told.reason == "NotFound" else told.reason
        raise DeploymentError(f"the artifact: {error}", reason=reason, retryable=told.retryable) from None
    except OSError as error:
        message = f"the artifact {what} cannot be kept: {error.strerror or error}"
        raise DeploymentError(message, reason="ArtifactFailed", retryable=True) from None


async def _save(pieces: AsyncIterator[bytes], file: IO[bytes]) -> None:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > _MOST_DOWNLOADED:
            message = f"the artifact is larger than {_MOST_DOWNLOADED >> 30} GiB"
            raise DeploymentError(message, reason="ArtifactTooLarge")
        await asyncio.to_thread(file.write, piece)


def _kept(reading: Reading, path: str, file: IO[bytes]) -> None:
    with reading.file(path) as source:
        shutil.copyfileobj(source, file, _CHUNK)


def _copied(reading: Reading, path: str, place: Path) -> None:
    with _whole(place) as made:
        reading.copy(path, made)


def _unpacked(file: IO[bytes], artifact: Artifact, place: Path) -> None:
    if artifact.sha256 is not None and (found := _sha256(file)) != artifact.sha256:
        message = f"{artifact.archive} has the SHA-256 {found}, not {artifact.sha256}"
        raise DeploymentError(message, reason="DigestMismatch")
    with _whole(place) as made:
        unpack(file, artifact.archive or "", made, max_bytes=_MOST_UNPACKED, max_members=_MOST_FILES)


@contextmanager
def _whole(place: Path) -> Iterator[Path]:
    """A folder to fill, which becomes `place` when that went well."""
    made = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=place.parent))
    try:
        yield made
        _open_to_readers(made)
        made.rename(place)
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _open_to_readers(top: Path) -> None:
    """Readable by all, writable by the operator alone, and with no right that goes with a program."""
    for folder, _, names in os.walk(top):
        Path(folder).chmod(0o755)
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)
