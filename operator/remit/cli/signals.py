"""Ctrl-C and SIGTERM, on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Callable, Iterator
from typing import Any

from remit.errors import RemitError


@contextlib.contextmanager
def on_interrupt() -> Iterator[asyncio.Event]:
    """Set whenever the user presses Ctrl-C while the block runs."""
    loop = asyncio.get_running_loop()
    interrupted = asyncio.Event()
    loop.add_signal_handler(signal.SIGINT, interrupted.set)
    try:
        yield interrupted
    finally:
        loop.remove_signal_handler(signal.SIGINT)


async def until(stop: asyncio.Event, *failures: asyncio.Future[None]) -> None:
    """Wait until asked to stop. Raises `RemitError` with the reason if a part failed."""
    stopping = asyncio.ensure_future(stop.wait())
    try:
        ends: set[asyncio.Future[Any]] = {stopping, *failures}
        await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        for failure in failures:
            if failure.done() and (error := failure.exception()) is not None:
                raise RemitError(f"stopped, because a part broke down: {error}") from error
    finally:
        stopping.cancel()


@contextlib.contextmanager
def stop_requested(before_exit: Callable[[], None] = lambda: None) -> Iterator[asyncio.Event]:
    """Set by the first SIGINT or SIGTERM, so that a service can stop in order. A second one ends the process at once,
    after `before_exit`: the kernel then ends every sandbox, and the next start tells of what was lost."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
            before_exit()
            os._exit(128 + number)
        stop.set()

    numbers = (signal.SIGINT, signal.SIGTERM)
    for number in numbers:
        loop.add_signal_handler(number, on_signal, number)
    try:
        yield stop
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)
