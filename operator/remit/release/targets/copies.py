"""The copies of one Deployment's artifacts, each brought once; what takes long goes on beside its release."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Callable, Collection
from functools import partial
from pathlib import Path
from typing import Final

from remit.errors import DeploymentError
from remit.release.model import Revision
from remit.release.target import Material
from remit.release.targets.artifacts import obtain
from remit.release.targets.reading import Reading

_FETCH_SECONDS: Final = 5.0
"""How long a step waits for an artifact: in the meantime the release may be aborted, and others want their turn."""

Download = Callable[[Revision, Material, str], AsyncIterator[bytes]]
"""What an address holds, if policy lets the revision have it. Raises RemitError."""


class Copies:
    """In `folder`, by the number of their revision. `changed` is called when one is there that was waited for."""

    def __init__(
        self,
        folder: Path,
        reading: Callable[[Revision, Material], Reading],
        download: Download,
        changed: Callable[[], None],
    ) -> None:
        """`reading` gives leave to read an artifact on this host. Raises RemitError."""
        self.folder = folder
        self._reading, self._download, self._changed = reading, download, changed
        self._fetching: dict[int, asyncio.Task[None]] = {}

    def of(self, revision: int) -> Path:
        return self.folder / str(revision)

    def at_hand(self) -> frozenset[int]:
        return frozenset(int(path.name) for path in self.folder.glob("[0-9]*"))

    async def bring(self, revision: Revision, material: Material) -> None:
        """Nothing happens if it is there. Asked again, what takes long is waited for again. Raises DeploymentError."""
        number, copy = revision.number, self.of(revision.number)
        if await asyncio.to_thread(copy.is_dir):
            return
        if number not in self._fetching:
            permits = partial(self._reading, revision, material), partial(self._download, revision, material)
            fetching = asyncio.create_task(obtain(revision.snapshot.spec.artifact, copy, *permits))
            fetching.add_done_callback(lambda _: self._changed())
            self._fetching[number] = fetching
        done, _ = await asyncio.wait({self._fetching[number]}, timeout=_FETCH_SECONDS)
        if not done:
            message = f"the artifact of revision {number} is still being fetched"
            raise DeploymentError(message, reason="Fetching", retryable=True)
        self._fetching.pop(number).result()

    async def keep(self, revisions: Collection[int]) -> None:
        """Let go of all others, and of what is still being fetched."""
        await self.stop()
        for number in await asyncio.to_thread(self.at_hand):
            if number not in revisions:
                await asyncio.to_thread(shutil.rmtree, self.of(number), ignore_errors=True)

    async def clear(self) -> None:
        await self.stop()
        await asyncio.to_thread(shutil.rmtree, self.folder, ignore_errors=True)

    async def stop(self) -> None:
        """Fetch nothing more."""
        fetching, self._fetching = list(self._fetching.values()), {}
        for each in fetching:
            each.cancel()
        await asyncio.gather(*fetching, return_exceptions=True)
