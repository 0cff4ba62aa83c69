"""Ctrl-C and SIGTERM, on an event loop."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
from collections.abc import Iterator


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


@contextlib.contextmanager
def stop_requested() -> Iterator[asyncio.Event]:
    """Set by the first SIGINT or SIGTERM, so that a service can stop in order. A second one ends the process at once:
    the kernel then ends every sandbox, and the next start tells of what was lost."""
    loop = asyncio.get_running_loop()
    stop = asyncio.Event()

    def on_signal(number: int) -> None:
        if stop.is_set():
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
