"""Manages the copies of one Deployment's artifacts. Each is fetched once; slow transfers continue in the background."""

from __future__ import annotations

import asyncio
import shutil
import threading
import time
from collections.abc import AsyncIterator, Callable, Collection, Mapping
from functools import partial
from pathlib import Path
from typing import Final

import orjson
import structlog

from remit.errors import DeploymentError
from remit.privatefiles import write_private
from remit.release.model import Revision
from remit.release.target import Material
from remit.release.targets.artifacts import Copy, obtain
from remit.release.targets.reading import Reading
from remit.release.targets.treedigest import tree_digest, tree_signature

_FETCH_SECONDS: Final = 5.0
"""How long a step waits for an artifact: in the meantime the release may be aborted, and others want their turn."""
_RETRY_SECONDS: Final = 10.0
"""How long a repair that failed is left alone. It may read the whole source again."""

Download = Callable[[Revision, Material, str], AsyncIterator[bytes]]
"""What an address holds, if policy lets the revision have it. Raises RemitError."""

log = structlog.get_logger(__name__)


class Copies:
    """The copies in `folder`, by the number of their revision. `changed` is called when an awaited copy is complete.

    The digest of each revision's content is kept in the file `digests` from when it is first copied. A copy that has
    another one is never used; it is made again from another revision's copy of the same content, or from the source.
    """

    def __init__(
        self,
        folder: Path,
        digests: Path,
        group: int | None,
        reading: Callable[[Revision, Material], Reading],
        download: Download,
        changed: Callable[[], None],
        earlier: Path | None = None,
    ) -> None:
        """`group` may read the copies, besides the operator. `reading` gives leave to read an artifact on this host.
        Raises RemitError. `earlier` is where version 0.1 kept them; instances that it started still run there."""
        self.folder = folder
        self._folders = [folder, earlier] if earlier else [folder]
        self._digests, self._group = digests, group
        self._reading, self._download, self._changed = reading, download, changed
        self._fetching: dict[int, asyncio.Task[bool]] = {}
        self._verified: dict[int, bytes] = {}
        """The signature of each copy when it was found to be intact."""
        self._writing = threading.Lock()
        self._publishing = threading.Lock()
        self._cancelled = threading.Event()
        self._failed: dict[int, tuple[float, DeploymentError]] = {}

    def of(self, revision: int) -> Path:
        return self.folder / str(revision)

    def at_hand(self) -> frozenset[int]:
        return frozenset(int(path.name) for path in self.folder.glob("[0-9]*"))

    def digests(self) -> Mapping[int, str]:
        """Digests of the content of each revision that was ever copied."""
        try:
            written: dict[str, str] = orjson.loads(self._digests.read_bytes())
        except FileNotFoundError:
            return {}
        return {int(number): digest for number, digest in written.items()}

    async def bring(self, revision: Revision, material: Material) -> bool:
        """Ensures that there is an intact copy. Returns whether it had to be made.

        A repeated call waits for a transfer that is still in progress. Raises DeploymentError.
        """
        number = revision.number
        if number not in self._fetching:
            fetching = asyncio.create_task(self._bring(revision, material))
            fetching.add_done_callback(lambda _: self._changed())
            self._fetching[number] = fetching
        done, _ = await asyncio.wait({self._fetching[number]}, timeout=_FETCH_SECONDS)
        if not done:
            message = f"the artifact of revision {number} is still being fetched"
            raise DeploymentError(message, reason="Fetching", retryable=True)
        return self._fetching.pop(number).result()

    def verified(self, revision: int) -> tuple[Path, str] | None:
        """The copy and the digest of its content; None where it is not there, or has any other content. Blocks; raises
        OSError."""
        copy, digest = self.of(revision), self.digests().get(revision)
        try:
            known = self._verified.get(revision) == tree_signature(copy)
            if digest is None or not (known or tree_digest(copy) == digest):
                return None
        except FileNotFoundError:
            return None
        return copy, digest

    async def repair(self, revision: Revision, material: Material) -> bool:
        """Like `bring`, for a caller that repeats it at each observation. Returns whether the copy was made again.

        Raises DeploymentError, and the same one again for a while.
        """
        when, error = self._failed.get(revision.number, (-_RETRY_SECONDS, None))
        if error is not None and time.monotonic() < when + _RETRY_SECONDS:
            raise error
        try:
            made = await self.bring(revision, material)
        except DeploymentError as failed:
            if failed.reason != "Fetching":
                self._failed[revision.number] = time.monotonic(), failed
            raise
        self._failed.pop(revision.number, None)
        return made

    async def keep(self, revisions: Collection[int]) -> None:
        """Removes all other copies, and cancels their transfers."""
        await self.stop()
        await asyncio.to_thread(self._forget_others, frozenset(revisions))

    async def clear(self) -> None:
        await self.stop()
        for folder in self._folders:
            await asyncio.to_thread(shutil.rmtree, folder, ignore_errors=True)
        self._digests.unlink(missing_ok=True)

    async def stop(self) -> None:
        """Cancels all transfers. A thread that copies continues for a while, and then discards its result."""
        with self._publishing:
            self._cancelled.set()
        self._cancelled = threading.Event()
        fetching, self._fetching = list(self._fetching.values()), {}
        for each in fetching:
            each.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)

    async def _bring(self, revision: Revision, material: Material) -> bool:
        number, artifact = revision.number, revision.snapshot.spec.artifact
        publish = partial(self._publish, self._cancelled)
        try:
            if await asyncio.to_thread(self._is_intact, number):
                return False
            what = f"{artifact.path or artifact.archive} of revision {number}"
            copy = Copy(self.of(number), self._group, self.digests().get(number), what, publish)
            if not await asyncio.to_thread(self._duplicated, copy):
                permits = partial(self._reading, revision, material), partial(self._download, revision, material)
                await obtain(artifact, copy, *permits)
            return await asyncio.to_thread(self._is_intact, number)
        except OSError as error:
            message = f"the artifact of revision {number} cannot be kept: {error.strerror or error}"
            raise DeploymentError(message, reason="ArtifactFailed", retryable=True) from None

    def _is_intact(self, number: int) -> bool:
        """Whether the copy is there, with the content that it had first. One with any other content is set aside, as
        instances may still run in it."""
        copy = self.of(number)
        try:
            signature = tree_signature(copy)
            if self._verified.get(number) == signature:
                return True
            found = tree_digest(copy)
        except FileNotFoundError:
            return False
        with self._writing:
            digests = {number: found, **self.digests()}
            if digests[number] == found:
                self._write(digests)
                self._verified[number] = signature
                return True
        log.warning("a copy of an artifact is damaged", folder=str(copy), digest=found, expected=digests[number])
        aside = copy.with_name(f".{number}-damaged")
        shutil.rmtree(aside, ignore_errors=True)
        copy.rename(aside)
        return False

    def _forget_others(self, revisions: Collection[int]) -> None:
        """Remove all that belongs to other revisions, what was never finished included."""
        for path in [path for folder in self._folders for path in folder.glob("*")]:
            if int(path.name.lstrip(".").partition("-")[0]) not in revisions:
                shutil.rmtree(path, ignore_errors=True)
        with self._writing:
            kept = {number: digest for number, digest in self.digests().items() if number in revisions}
            if kept != self.digests():
                self._write(kept)

    def _duplicated(self, copy: Copy) -> bool:
        """Whether there is another copy of the same content, so that nothing has to be read from the source."""
        source = self._alike(copy)
        if source is None:
            return False
        copy.make_room()
        with copy.made() as made:
            shutil.copytree(source, made, symlinks=True, dirs_exist_ok=True)
        return True

    def _alike(self, copy: Copy) -> Path | None:
        if copy.digest is None:  # the copy is from an earlier version, and its source may have changed since
            there = (folder / copy.place.name for folder in self._folders)
            return next((each for each in there if each.is_dir()), None)
        alike = [number for number, digest in self.digests().items() if digest == copy.digest]
        others = (number for number in alike if self.of(number) != copy.place and self._is_intact(number))
        return next((self.of(number) for number in others), None)

    def _publish(self, cancelled: threading.Event, made: Path, place: Path) -> None:
        with self._publishing:
            if cancelled.is_set():
                raise DeploymentError(f"{place.name} is not wanted any more", reason="Cancelled", retryable=True)
            made.rename(place)

    def _write(self, digests: Mapping[int, str]) -> None:
        write_private(self._digests, orjson.dumps({str(number): digest for number, digest in digests.items()}))
