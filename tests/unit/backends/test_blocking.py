"""Tests threads for blocking work: free threads are reused, and no caller waits for one that hangs."""

from __future__ import annotations

import asyncio
import os
import sys
import threading

import pytest

from remit.backends.blocking import in_thread

SECONDS = 30.0


def ignored(_: object) -> None:
    pass


async def test_a_free_thread_is_used_again() -> None:
    used = set()
    for _ in range(20):
        used.add(await in_thread(threading.get_ident, SECONDS, ignored))
        await asyncio.sleep(0)

    assert len(used) < 20, "a thread for each piece of work"


async def test_nobody_waits_for_one_that_hangs() -> None:
    hanging, undone = threading.Event(), threading.Event()

    def hangs() -> int:
        hanging.wait(SECONDS)
        return threading.get_ident()

    late: list[int] = []

    def undo(thread: int) -> None:
        late.append(thread)
        undone.set()

    try:
        with pytest.raises(TimeoutError):
            await in_thread(hangs, 0.01, undo)
        meanwhile = {await in_thread(threading.get_ident, SECONDS, ignored) for _ in range(5)}
    finally:
        hanging.set()

    assert await asyncio.to_thread(undone.wait, SECONDS), "a result that came too late was not undone"
    assert late[0] not in meanwhile


async def test_a_forked_process_has_threads_of_its_own() -> None:
    code = (
        "import asyncio, os\n"
        "from remit.backends.blocking import in_thread\n"
        "def once(): return asyncio.run(in_thread(os.getpid, 20, print))\n"
        "once()\n"
        "child = os.fork()\n"
        "if child == 0: os._exit(0 if once() == os.getpid() else 1)\n"
        "raise SystemExit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    python = await asyncio.create_subprocess_exec(sys.executable, "-c", code, env=os.environ)

    assert await asyncio.wait_for(python.wait(), 2 * SECONDS) == 0
