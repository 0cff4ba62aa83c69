"""Tests a supervisor that never answers, or never starts to supervise: it delays no other work and does not remain."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import psutil
import pytest

import supervised
from remit.backends.base import AttemptRequest, Command
from remit.backends.failure import OperationFailed
from remit.operations.base import Effect
from remit.operations.process import supervision
from remit.operations.process.record import supervised as lives
from remit.operations.process.supervision import Supervision, Wanted
from remit.sandbox import Confinement, probe_host

NEVER_READS = "import os, time\nif os.fork(): os._exit(0)\nwhile True: time.sleep(1)\n"
NEVER_LETS_GO = "import time\nwhile True: time.sleep(1)\n"


@pytest.fixture
async def processes(tmp_path: Path) -> AsyncIterator[Supervision]:
    yield Supervision(tmp_path / "processes", probe_host())
    await supervised.end(tmp_path / "processes")


@pytest.fixture
def program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Provides the path of a program that a test writes in place of the supervisor."""
    path = tmp_path / "supervisor.py"
    monkeypatch.setattr(supervision, "_PROGRAM", path)
    yield path
    for process in running(path):
        process.kill()


def running(program: Path) -> list[psutil.Process]:
    def runs(process: psutil.Process) -> bool:
        try:
            return str(program) in process.cmdline() and process.status() != psutil.STATUS_ZOMBIE
        except psutil.Error:
            return False

    return [process for process in psutil.process_iter() if runs(process)]


async def until(reached: Callable[[], object]) -> None:
    async with asyncio.timeout(60):
        while not reached():
            await asyncio.sleep(0.02)


def wanted(stdin: bytes = b"") -> Wanted:
    command = Command(("sleep", "1000"), "/usr/bin/sleep", stdin=stdin)
    return Wanted("ns", "p", AttemptRequest("p", command, Confinement(), 3600, grace_seconds=0.1), effect=Effect())


@pytest.mark.parametrize("source", [NEVER_READS, NEVER_LETS_GO])
async def test_a_supervisor_that_never_reads_its_request_is_ended(
    processes: Supervision, program: Path, monkeypatch: pytest.MonkeyPatch, source: str
) -> None:
    monkeypatch.setattr(supervision, "_START_SECONDS", 0.5)
    program.write_text(source)
    asked = wanted(stdin=b"x" * (4 << 20))  # more than a pipe holds
    async with asyncio.timeout(60):
        with pytest.raises(OperationFailed, match="did not get it started within"):
            await processes.start(asked)
    await until(lambda: not running(program))
    assert asked.effect.in_doubt == "", "nothing can have been started"


async def test_a_supervisor_that_never_reads_is_ended_by_a_cancellation(
    processes: Supervision, program: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(supervision, "_END_SECONDS", 0.2)
    program.write_text(NEVER_READS)
    starting = asyncio.ensure_future(processes.start(wanted()))
    await until(lambda: running(program))
    starting.cancel()
    await asyncio.wait({starting}, timeout=60)
    assert starting.cancelled()
    await until(lambda: not running(program))
    assert not lives(tmp_path / "processes" / "ns" / "p")


async def test_one_that_is_stopped_is_ended_with_its_program(
    processes: Supervision, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    state = await processes.start(wanted())
    os.kill(state["supervisor"]["pid"], signal.SIGSTOP)
    monkeypatch.setattr(supervision, "_END_SECONDS", 0.2)
    monkeypatch.setattr(supervision, "_START_SECONDS", 0.2)
    async with asyncio.timeout(60):
        assert (await processes.state("ns", "p"))["phase"] == "Running", "what it said last"
        with pytest.raises(OperationFailed, match="did not answer within"):
            await processes.usage("ns", "p")
        assert (await processes.stop("ns", "p")) is not None
    assert not lives(tmp_path / "processes" / "ns" / "p")
    await until(lambda: not psutil.pid_exists(state["process"]["pid"]))
