"""Blocking work that may never come back."""

from __future__ import annotations

import asyncio
import contextlib
import os
import threading
from collections.abc import Callable
from functools import partial
from queue import SimpleQueue
from typing import TypeVar

_T = TypeVar("_T")
_MOST_IDLE = 4
_idle: list[SimpleQueue[Callable[[], None]]] = []
"""Threads that wait for work, by their queues: a new one takes longer than most of the work."""
os.register_at_fork(after_in_child=_idle.clear)


async def in_thread(work: Callable[[], _T], seconds: float | None, undo: Callable[[_T], None]) -> _T:
    """Call `work` in a thread that has nothing else to do, and return its result: if it hangs, nobody else waits for
    it. A result that comes too late, or for nobody because who waits was cancelled, is undone.

    Raises TimeoutError, and what `work` raises.
    """
    loop, wanted, lock = asyncio.get_running_loop(), True, threading.Lock()
    future: asyncio.Future[_T] = loop.create_future()

    def run() -> None:
        try:
            result = work()
        except Exception as error:
            hand_over(partial(fail, error))
            return
        if not hand_over(partial(deliver, result)):
            undo(result)

    def hand_over(news: Callable[[], None]) -> bool:
        with lock, contextlib.suppress(RuntimeError):  # the loop was closed
            if wanted:
                loop.call_soon_threadsafe(news)
                return True
        return False

    def fail(error: Exception) -> None:
        if not future.cancelled():
            future.set_exception(error)

    def deliver(result: _T) -> None:
        if future.cancelled():
            undo(result)
        else:
            future.set_result(result)

    _give_to_thread(run)
    try:
        async with asyncio.timeout(seconds):
            return await future
    except BaseException:
        with lock:
            wanted = False
        # The result arrived at the same time as the cancellation.
        if future.done() and not future.cancelled() and future.exception() is None:
            undo(future.result())
        raise


async def in_thread_or_undone(work: Callable[[], None], undo: Callable[[], None]) -> None:
    """Wait for `work`, in a thread of its own. Where that fails, or who waits is cancelled, `undo` is called, and not
    before `work` has ended: what that uses is not taken away from it. Raises what `work` raises."""

    def run() -> None:
        try:
            work()
        except BaseException:
            undo()
            raise

    await in_thread(run, None, lambda _: undo())


def _give_to_thread(run: Callable[[], None]) -> None:
    try:
        orders = _idle.pop()
    except IndexError:
        orders = SimpleQueue()
        threading.Thread(target=_work, args=(orders,), name="blocking", daemon=True).start()
    orders.put(run)


def _work(orders: SimpleQueue[Callable[[], None]]) -> None:
    while True:
        orders.get()()
        if len(_idle) >= _MOST_IDLE:
            return
        _idle.append(orders)
