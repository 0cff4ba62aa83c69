"""Listens to changes of instances that a supervisor, an engine or the proxy reports, so that a release reacts at once.

The target is still observed periodically, for changes that are not reported.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Callable, Hashable, Mapping
from dataclasses import dataclass, field

from remit.errors import RemitError

Source = Callable[[], AsyncGenerator[object, None]]
"""Yields at each change, and ends with what it listens to. May raise RemitError."""


@dataclass
class Changes:
    """All that is listened to for one Deployment, by whatever tells one source from another."""

    changed: Callable[[], None]
    """Called at each change, and when a source ends that had told of any."""
    _going: dict[Hashable, asyncio.Task[None]] = field(default_factory=dict)

    async def have(self, sources: Mapping[Hashable, Source]) -> None:
        """Listen to exactly these, again to what has ended."""
        gone = [self._going.pop(key) for key in self._going.keys() - sources.keys()]
        for task in gone:
            task.cancel()
        await asyncio.gather(*gone, return_exceptions=True)
        for key, source in sources.items():
            if key not in self._going or self._going[key].done():
                self._going[key] = asyncio.create_task(self._listen(source), name="instance changes")

    async def end(self) -> None:
        await self.have({})

    async def _listen(self, source: Source) -> None:
        heard = False
        with contextlib.suppress(RemitError):
            async with contextlib.aclosing(source()) as changes:
                async for _ in changes:
                    heard = True
                    self.changed()
        if heard:
            self.changed()
