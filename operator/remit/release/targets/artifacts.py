"""Copies of artifacts on the operator's host, one for each revision, that their instances read and nobody writes."""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import IO, Final

from remit.api.deployment import Artifact
from remit.errors import DeploymentError, RemitError
from remit.release.targets.failing import failed

_ELSEWHERE: Final = Path("/var/tmp")  # noqa: S108  # a folder of the operator's own in it, that nobody else may write
_CHUNK: Final = 1 << 20
_MOST_DOWNLOADED: Final = 1 << 30


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


async def obtain(artifact: Artifact, place: Path, download: Callable[[str], AsyncIterator[bytes]]) -> None:
    """Have the artifact at `place`, whole or not at all. Nothing happens if it is there. Raises DeploymentError.

    `download` gives what an address holds. Raises `RemitError`.
    """
    if artifact.address is None or await asyncio.to_thread(place.is_dir):
        await asyncio.to_thread(fetch, artifact, place)
        return
    await asyncio.to_thread(place.parent.mkdir, 0o711, parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=place.parent, prefix=".download-") as file:
        try:
            await _save(download(artifact.address), file)
            here = artifact.model_copy(update={"archive": file.name})
            await asyncio.to_thread(fetch, here, place)
        except RemitError as error:
            told = failed(error)
            message = str(error).replace(file.name, artifact.address)
            raise DeploymentError(message, reason=told.reason, retryable=told.retryable) from None
        except OSError as error:
            message = f"the artifact {artifact.address} cannot be kept: {_words(error)}"
            raise DeploymentError(message, reason="ArtifactFailed", retryable=True) from None


async def _save(pieces: AsyncIterator[bytes], file: IO[bytes]) -> None:
    size = 0
    async for piece in pieces:
        size += len(piece)
        if size > _MOST_DOWNLOADED:
            message = f"the artifact is larger than {_MOST_DOWNLOADED >> 30} GiB"
            raise DeploymentError(message, reason="ArtifactTooLarge")
        await asyncio.to_thread(file.write, piece)
    await asyncio.to_thread(file.flush)


def fetch(artifact: Artifact, place: Path) -> None:
    """Have the artifact at `place`, whole or not at all. Nothing happens if it is there. Raises DeploymentError."""
    if place.is_dir():
        return
    parent = place.parent
    parent.mkdir(mode=0o711, parents=True, exist_ok=True)
    made = Path(tempfile.mkdtemp(prefix=f".{place.name}-", dir=parent))
    try:
        if artifact.path is not None:
            shutil.copytree(artifact.path, made, symlinks=True, dirs_exist_ok=True)
        else:
            _unpack(Path(artifact.archive or ""), artifact.sha256, made)
        _open_to_readers(made)
        made.rename(place)
    except (OSError, shutil.Error, tarfile.TarError, zipfile.BadZipFile) as error:
        what = artifact.path or artifact.archive
        missing = isinstance(error, FileNotFoundError)
        raise DeploymentError(
            f"the artifact {what} cannot be copied: {_words(error)}",
            reason="ArtifactNotFound" if missing else "ArtifactFailed",
            retryable=not isinstance(error, tarfile.TarError | zipfile.BadZipFile),
        ) from None
    finally:
        shutil.rmtree(made, ignore_errors=True)


def _unpack(archive: Path, digest: str | None, into: Path) -> None:
    if digest is not None and (found := _sha256(archive)) != digest:
        message = f"the artifact {archive} has the SHA-256 {found}, not {digest}"
        raise DeploymentError(message, reason="DigestMismatch")
    if zipfile.is_zipfile(archive):
        with zipfile.ZipFile(archive) as file:
            file.extractall(into)  # noqa: S202  # it leaves out `..` and absolute paths itself
            return
    with tarfile.open(archive) as file:
        file.extractall(into, filter="data")  # the filter refuses what leads outside, and devices


def _sha256(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_CHUNK):
            digest.update(chunk)
    return digest.hexdigest()


def _open_to_readers(top: Path) -> None:
    """Readable by all, writable by the operator alone, and with no right that goes with a program."""
    for folder, _, names in os.walk(top):
        Path(folder).chmod(0o755)
        for path in (Path(folder, name) for name in names):
            if not path.is_symlink():
                path.chmod(0o755 if path.stat().st_mode & stat.S_IXUSR else 0o644)


def _words(error: Exception) -> str:
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror} ({error.filename})" if error.filename else error.strerror
    return str(error)
