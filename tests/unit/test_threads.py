"""Tests threads that wait for something that never answers: neither the end of an event loop nor of a process waits for
them."""

from __future__ import annotations

import asyncio
import gc
import subprocess
import sys
import threading
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from remit.threads import DaemonThreadPool, run

STUCK = """
import asyncio, threading
from remit import threads
threads.LAST_SECONDS = 0.1

async def work():
    never, begun = threading.Event(), asyncio.Event()
    loop = asyncio.get_running_loop()
    waiting = asyncio.ensure_future(asyncio.to_thread(lambda: (loop.call_soon_threadsafe(begun.set), never.wait())))
    await begun.wait()
    return 7

{run}(work())
print("ended", flush=True)
"""


def test_a_process_ends_though_a_thread_does_not() -> None:
    program = [sys.executable, "-c", STUCK.format(run="threads.run")]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=True)
    assert done.stdout == "ended\n"


def test_without_it_a_process_waits_for_its_threads() -> None:
    """Shows what the test above would find without the fix."""
    with pytest.raises(subprocess.TimeoutExpired):
        subprocess.run([sys.executable, "-c", STUCK.format(run="asyncio.run")], capture_output=True, timeout=2)


def test_it_does_what_it_is_given_with_as_many_threads_as_it_may_have() -> None:
    pool, together = DaemonThreadPool(3), threading.Barrier(3)
    assert [each.result(60) for each in [pool.submit(together.wait, 60) for _ in range(3)]]
    assert sorted(pool.map(abs, range(-50, 0))) == list(range(1, 51))
    assert len({each.result(60) for each in [pool.submit(threading.get_ident) for _ in range(50)]}) <= 3
    with pytest.raises(ZeroDivisionError):
        pool.submit(lambda: 1 // 0).result(60)
    pool.shutdown()
    with pytest.raises(RuntimeError, match="after shutdown"):
        pool.submit(abs, 1)


def test_an_idle_thread_is_used_again() -> None:
    with DaemonThreadPool(8) as pool:
        used = set()
        for _ in range(20):
            used.add(pool.submit(threading.get_ident).result(60))
            wait([pool.submit(int)])  # a thread is idle a moment after its result is available
        assert len(used) < 8


def test_what_waits_is_done_or_cancelled_when_it_is_shut_down() -> None:
    def filled(pool: ThreadPoolExecutor) -> tuple[threading.Event, Future[bool], Future[int]]:
        begun, go = threading.Event(), threading.Event()
        first = pool.submit(lambda: (begun.set(), go.wait(60))[1])
        assert begun.wait(60)
        return go, first, pool.submit(int)

    pool = DaemonThreadPool(1)
    go, first, second = filled(pool)
    pool.shutdown(wait=False)
    go.set()
    assert first.result(60)
    assert second.result(60) == 0

    pool = DaemonThreadPool(1)
    go, first, second = filled(pool)
    pool.shutdown(wait=False, cancel_futures=True)
    assert second.cancelled()
    go.set()
    assert first.result(60)


def test_the_threads_of_a_forgotten_pool_end() -> None:
    pool = DaemonThreadPool(1)
    thread = pool.submit(threading.current_thread).result(60)
    del pool
    gc.collect()
    thread.join(60)
    assert not thread.is_alive()


def test_run_gives_what_the_coroutine_gives() -> None:
    async def work() -> str:
        return await asyncio.to_thread(lambda: "done")

    assert run(work()) == "done"
