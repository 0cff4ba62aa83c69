"""Tests that a cancelled start completes, and that the caller receives the child."""

from __future__ import annotations

import asyncio
import os
import signal
from asyncio.subprocess import PIPE

import psutil
import pytest

from remit.backends.subprocesses import start_subprocess

HANDS_ON = ("/bin/sh", "-c", "sleep 1000 & exit 0")
"""The program ends immediately and leaves a process with its pipes."""


async def test_a_start_may_be_cancelled_at_any_moment() -> None:
    reached = set()
    for turns in range(40):
        children: list[asyncio.subprocess.Process] = []

        async def run(children: list[asyncio.subprocess.Process] = children) -> None:
            children.append(await start_subprocess(*HANDS_ON, stdin=PIPE, stdout=PIPE, start_new_session=True))
            await asyncio.sleep(1000)

        starting = asyncio.create_task(run())
        for _ in range(turns):
            await asyncio.sleep(0)
        before = len(children)
        starting.cancel()
        _, late = await asyncio.wait({starting}, timeout=60)
        assert not late, f"it hangs when it is cancelled after {turns} turns"
        assert starting.cancelled()
        for child in children:
            os.killpg(child.pid, signal.SIGKILL)
            await child.communicate()  # until no process has its pipes; a loop that closes earlier leaves them open
        reached.add((before, len(children)))
    assert reached == {(0, 0), (0, 1), (1, 1)}, "before, during and after the start"


async def test_a_timeout_around_a_start_is_a_timeout() -> None:
    child = None
    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0):
            child = await start_subprocess("/bin/sleep", "1000")
            await child.wait()
    assert child is not None
    child.kill()
    await child.wait()


async def test_a_child_that_nobody_will_have_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    real = asyncio.wait

    async def failing(awaited: set[asyncio.Future[object]]) -> None:
        await real(awaited)
        raise RuntimeError("of the loop")

    monkeypatch.setattr("remit.backends.subprocesses.asyncio.wait", failing)
    with pytest.raises(RuntimeError, match="of the loop"):
        await start_subprocess("/bin/sleep", "86399", stdin=PIPE)
    left = [each.cmdline() for each in psutil.Process().children() if each.status() != psutil.STATUS_ZOMBIE]
    assert ["/bin/sleep", "86399"] not in left


async def test_a_program_that_is_not_there_is_an_error() -> None:
    with pytest.raises(FileNotFoundError):
        await start_subprocess("/no/such/program")
