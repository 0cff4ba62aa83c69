"""How long the event loop stands still, told in CPU time, which other programs on the machine do not change."""

from __future__ import annotations

import asyncio
import gc
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any
from unittest import mock

STALL_SECONDS = 0.25


@dataclass
class LoopWatch:
    """The callback that took longest, and what it was. What the collector took of it does not count: it looks at all
    that the test itself holds."""

    cpu_seconds: float = 0.0
    callback: str = ""

    def assert_no_stall(self) -> None:
        assert self.cpu_seconds < STALL_SECONDS, self


@contextmanager
def watch_loop() -> Iterator[LoopWatch]:
    """Measure every callback that event loops run in the meantime."""
    watch, run = LoopWatch(), asyncio.Handle._run
    collector = threading.local()
    """What it took in each thread."""

    def collecting(phase: str, _: object) -> None:
        now = time.thread_time()
        if phase == "start":
            collector.began = now
        else:
            collector.seconds = getattr(collector, "seconds", 0.0) + now - getattr(collector, "began", now)

    def measured(handle: Any) -> None:
        task = getattr(handle._callback, "__self__", None)
        collected, began = getattr(collector, "seconds", 0.0), time.thread_time()
        run(handle)
        took = time.thread_time() - began - (getattr(collector, "seconds", 0.0) - collected)
        if took > watch.cpu_seconds:
            watch.cpu_seconds, watch.callback = took, f"{handle!r} of {task!r}"

    gc.callbacks.append(collecting)
    try:
        with mock.patch.object(asyncio.Handle, "_run", measured):
            yield watch
    finally:
        gc.callbacks.remove(collecting)
