"""Measures how long the event loop is blocked, in CPU time, which is independent of other programs on the machine."""

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
    """The callback that took longest, and what it ran. Time of the garbage collector is not counted, because it also
    traverses the objects of the test."""

    cpu_seconds: float = 0.0
    callback: str = ""

    def assert_no_stall(self) -> None:
        assert self.cpu_seconds < STALL_SECONDS, self


@contextmanager
def watch_loop() -> Iterator[LoopWatch]:
    """Measures every callback of event loops while the block runs."""
    watch, run = LoopWatch(), asyncio.Handle._run
    collector = threading.local()
    """The collector's time in each thread."""

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
