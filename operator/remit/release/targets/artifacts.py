"""Makes copies of artifacts on the operator's host, one for each revision. Instances read them and cannot write them.

The copies keep the permissions of their owner, and others have none. If the operator is root, instances run as other
users, in a separate group, which may read what the owner may read.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import stat
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from remit.api.deployment import Artifact
from remit.errors import DeploymentError, RemitError
from remit.release.targets.archive.unpacking import unpack
from remit.release.targets.failing import failed
from remit.release.targets.reading import Reading
from remit.release.targets.treedigest import tree_digest

_EARLIER: Final = Path("/var/tmp")  # noqa: S108  # nothing is used there that another user could have written
_CHUNK: Final = 1 << 20
_MOST_DOWNLOADED: Final = 1 << 30
_MOST_UNPACKED: Final = 8 << 30
_MOST_FILES: Final = 500_000


@dataclass(frozen=True, slots=True)
class Copy:
    """A copy that is to be made, at `place`; `group` may read it, and its content has `digest`, where that is known."""

    place: Path
    group: int | None = None
    digest: str | None = None
    what: str = "the artifact"
    """What the artifact is called in messages, such as that of a revision."""
    publish: Callable[[Path, Path], object] = Path.rename
    """Gives the folder that was filled its name."""

    @contextmanager
    def made(self) -> Iterator[Path]:
        """A folder to fill, which becomes the copy when that went well.

        Raises DeploymentError where it is filled with anything but what the revision was made from.
        """
        made = Path(tempfile.mkdtemp(prefix=f".{self.place.name}-", dir=self.place.parent))
        try:
            yield made
            _give_to_readers(made, self.group)
            if self.digest is not None and (found := tree_digest(made)) != self.digest:
                message = f"{self.what} has changed since: its digest is {found}, and was {self.digest}"
                raise DeploymentError(message, reason="ArtifactChanged")
            self.publish(made, self.place)
        finally:
            shutil.rmtree(made, ignore_errors=True)

    def make_room(self) -> None:
        """Make the folders that it is in. Whoever is in the group may pass through them."""
        parents = (self.place.parent, *self.place.parent.parents)
        for folder in reversed([each for each in parents if not each.exists()]):
            folder.mkdir(mode=0o700)
            if self.group is not None:
                os.chown(folder, -1, self.group)
                folder.chmod(0o710)


def earlier_place(folder: Path) -> Path | None:
    """The folder in which version 0.1 kept the copies that belong in `folder`, if it kept them elsewhere.

    It did so as root, for a state directory that is closed to other users. None also where another user may have
    written to that place.
    """
    name = hashlib.sha256(os.fsencode(folder.absolute())).hexdigest()[:16]
    place = _EARLIER / f"remit-artifacts-{name}"
    try:
        found = place.lstat()
    except OSError:
        return None
    own = stat.S_ISDIR(found.st_mode) and found.st_uid == os.geteuid() and not found.st_mode & 0o022
    return place if own else None


async def obtain(
    artifact: Artifact, copy: Copy, reading: Callable[[], Reading], download: Callable[[str], AsyncIterator[bytes]]
) -> None:
    """Make a copy of the artifact, whole or not at all. Raises DeploymentError.

    `reading` gives leave to read it on this host, `download` what an address holds; both raise `RemitError`.
    """
    what = artifact.path or artifact.archive
    try:
        await asyncio.to_thread(copy.make_room)
        if artifact.path is not None:
            return await asyncio.to_thread(_copied, reading(), artifact.path, copy)
        # The archive is unpacked from a copy, so that nothing changes after it was checked.
        with tempfile.TemporaryFile(dir=copy.place.parent) as file:
            if artifact.address is not None:
                await _save(download(artifact.address), file)
            else:
                await asyncio.to_thread(_kept, reading(), artifact.archive or "", file)
            await _unpacked(file, artifact, copy)
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


def _copied(reading: Reading, path: str, copy: Copy) -> None:
    with copy.made() as made:
        reading.copy(path, made)


async def _unpacked(file: IO[bytes], artifact: Artifact, copy: Copy) -> None:
    if artifact.sha256 is not None and (found := await asyncio.to_thread(_sha256, file)) != artifact.sha256:
        message = f"{artifact.archive} has the SHA-256 {found}, not {artifact.sha256}"
        raise DeploymentError(message, reason="DigestMismatch")
    async with _in_threads(copy.made()) as made:
        await unpack(file, artifact.archive or "", made, max_bytes=_MOST_UNPACKED, max_members=_MOST_FILES)


@asynccontextmanager
async def _in_threads(blocking: AbstractContextManager[Path]) -> AsyncIterator[Path]:
    """The same, entered and left in threads."""
    entered = await asyncio.to_thread(blocking.__enter__)
    try:
        yield entered
    except BaseException as error:
        await asyncio.to_thread(blocking.__exit__, type(error), error, error.__traceback__)
        raise
    else:
        await asyncio.to_thread(blocking.__exit__, None, None, None)


def _sha256(file: IO[bytes]) -> str:
    file.seek(0)
    return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]


def _give_to_readers(top: Path, group: int | None) -> None:
    """Keep the owner's permissions, which include to read; let `group` read as well, and take all other rights away."""
    for folder, _, names in os.walk(top):
        for path in (Path(folder), *(Path(folder, name) for name in names)):
            if path.is_symlink():
                continue
            mode = 0o700 if path.is_dir() else stat.S_IRUSR | (path.stat().st_mode & stat.S_IRWXU)
            if group is not None:
                os.chown(path, -1, group)
                mode |= (mode & (stat.S_IRUSR | stat.S_IXUSR)) >> 3
            path.chmod(mode)
