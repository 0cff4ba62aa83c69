"""The event loop that executions live in: one thread, which lives as long as the process.

The kernel ends a sandbox when the thread that started it goes, so no execution may depend on the caller's thread or
loop. It also lets a program without a loop, or one that blocks its own, use the same engine.
"""

from __future__ import annotations

import asyncio
import atexit
import concurrent.futures
import os
import threading
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

from remit.errors import ExecutionError
from remit.threads import DaemonThreadPool

T = TypeVar("T")
_GOODBYE_SECONDS = 15.0


class _Executor(DaemonThreadPool):
    """While the interpreter exits, no thread can be started: the work is then done in the calling thread."""

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        try:
            return super().submit(fn, *args, **kwargs)
        except RuntimeError:
            done: concurrent.futures.Future[T] = concurrent.futures.Future()
            try:
                done.set_result(fn(*args, **kwargs))
            except Exception as error:
                done.set_exception(error)
            return done


class Background:
    """The loop and its thread. `closing` holds what must be closed before the process ends."""

    def __init__(self) -> None:
        self.pid = os.getpid()
        self.closing: set[Callable[[], Coroutine[Any, Any, None]]] = set()
        self._over = False
        self._loop = asyncio.new_event_loop()
        self._loop.set_default_executor(_Executor(thread_name_prefix="remit"))
        self._thread = threading.Thread(target=self._loop.run_forever, name="remit", daemon=True)
        self._thread.start()
        atexit.register(self._stop)

    def check(self, *, waiting: bool = False) -> None:
        """Whether work may be given here, and waited for.

        Raises `ExecutionError` in a child made by fork, where threads do not follow and nobody would do the work.
        """
        if self.pid != os.getpid():
            raise ExecutionError("this agent was made before the process forked; make another one in the child")
        if self._over:
            raise RuntimeError("the process is about to end")
        if waiting and threading.current_thread() is self._thread:
            raise RuntimeError("a callback of an execution cannot wait for another execution; submit it instead")

    def submit(self, work: Coroutine[Any, Any, T], *, waiting: bool = False) -> concurrent.futures.Future[T]:
        """Start `work` there."""
        try:
            self.check(waiting=waiting)
            return asyncio.run_coroutine_threadsafe(work, self._loop)
        except BaseException:
            work.close()
            raise

    def wait(self, work: Coroutine[Any, Any, T]) -> T:
        """Do `work` there and block until it is done."""
        return self.submit(work, waiting=True).result()

    def soon(self, callback: Callable[[], object]) -> None:
        self.check()
        self._loop.call_soon_threadsafe(callback)

    def _stop(self) -> None:
        if self.pid != os.getpid() or self._over:
            return
        for close in list(self.closing):
            try:
                self.submit(close()).result(_GOODBYE_SECONDS)
            except Exception:  # noqa: S112 (nobody is left to be told; the kernel ends what is still alive)
                continue
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(_GOODBYE_SECONDS)
        if not self._thread.is_alive():
            self._over = True
            self._loop.run_until_complete(_rest())
            self._loop.close()


async def _rest() -> None:
    """The work that was submitted while the loop was being stopped, as by an agent that the interpreter collects just
    then."""
    await asyncio.sleep(0)
    others = asyncio.all_tasks() - {asyncio.current_task()}
    if others:
        await asyncio.wait(others, timeout=_GOODBYE_SECONDS)


_lock = threading.Lock()
_background: Background | None = None


def background() -> Background:
    """This process's. A child made by fork gets one of its own."""
    global _background
    with _lock:
        if _background is None or _background.pid != os.getpid():
            _background = Background()
        return _background
