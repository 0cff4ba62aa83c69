"""Threads that may wait for what never answers, such as a disk of the network, and hold up no end of a process."""

from __future__ import annotations

import asyncio
import queue
import threading
import time
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from typing import Any, Final, TypeVar

LAST_SECONDS: Final = 5.0
"""How long running work may take when a pool is shut down."""
_AT_ONCE: Final = 32

T = TypeVar("T")
_Job = tuple[Future[Any], Callable[[], Any]]


class DaemonThreadPool(ThreadPoolExecutor):
    """A ThreadPoolExecutor whose threads are daemons: the interpreter ends without them.

    Shutting it down waits for what is being done, but for no longer than `LAST_SECONDS`.
    """

    def __init__(self, max_workers: int = _AT_ONCE, thread_name_prefix: str = "remit") -> None:
        super().__init__(max_workers, thread_name_prefix)
        self._most, self._prefix = max_workers, thread_name_prefix
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._members: list[threading.Thread] = []
        self._guard = threading.Lock()
        self._over = False
        weakref.finalize(self, self._jobs.put, None)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        """See `concurrent.futures.Executor`. Raises RuntimeError after `shutdown`, or without a thread."""
        with self._guard:
            if self._over:
                raise RuntimeError("cannot schedule new futures after shutdown")
            if not self._idle.acquire(blocking=False) and len(self._members) < self._most:
                name = f"{self._prefix}_{len(self._members)}"
                member = threading.Thread(target=_work, args=(self._jobs, self._idle), name=name, daemon=True)
                member.start()
                self._members.append(member)
            future: Future[T] = Future()
            self._jobs.put((future, partial(fn, *args, **kwargs)))
            return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """See `concurrent.futures.Executor`, but for the limit."""
        with self._guard:
            self._over = True
            if cancel_futures:
                self._cancel_waiting()
            self._jobs.put(None)
        if wait:
            end = time.monotonic() + LAST_SECONDS
            for member in self._members:
                member.join(max(0.0, end - time.monotonic()))

    def _cancel_waiting(self) -> None:
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return
            if job is not None:
                job[0].cancel()


def _work(jobs: queue.SimpleQueue[_Job | None], idle: threading.Semaphore) -> None:
    """One thread's work. It refers to no pool, so that one that nobody uses any more is collected, and this ends."""
    while (job := jobs.get()) is not None:
        future, do = job
        if future.set_running_or_notify_cancel():
            try:
                result = do()
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(result)
                del result
        del job, future, do
        idle.release()
    jobs.put(None)  # passes the end marker on to the next thread


def run(work: Coroutine[Any, Any, T]) -> T:
    """`asyncio.run`, whose end no thread of the loop holds up for long."""

    async def main() -> T:
        asyncio.get_running_loop().set_default_executor(DaemonThreadPool())
        return await work

    return asyncio.run(main())
