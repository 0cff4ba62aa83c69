"""How long the event loop stands still, told in CPU time, which other programs on the machine do not change."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

STALL_SECONDS = 0.25


@dataclass
class LoopWatch:
    """The callback that took longest, and what it was."""

    cpu_seconds: float = 0.0
    callback: str = ""

    def assert_no_stall(self) -> None:
        assert self.cpu_seconds < STALL_SECONDS, self


@contextmanager
def watch_loop() -> Iterator[LoopWatch]:
    """Measure every callback that event loops run in the meantime."""
    watch = LoopWatch()
    run = asyncio.Handle._run

    def measured(handle: Any) -> None:
        began = time.thread_time()
        run(handle)
        took = time.thread_time() - began
        if took > watch.cpu_seconds:
            watch.cpu_seconds, watch.callback = took, repr(handle)

    with mock.patch.object(asyncio.Handle, "_run", measured):
        yield watch
