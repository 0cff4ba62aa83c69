"""Tests that a start that fails halfway, for any reason, leaves nothing that holds the name of the process."""

from __future__ import annotations

import asyncio
import dataclasses
from pathlib import Path

import pytest

from remit.backends.base import AttemptRequest
from remit.backends.base import Command as Program
from remit.operations.base import Effect
from remit.operations.process import supervision
from remit.operations.process.record import supervised
from remit.operations.process.supervision import Supervision, Wanted
from remit.sandbox import Confinement, Limits, probe_host

PATIENCE = 60
COMMAND = Program(("echo", "x"), "/bin/echo")
CONFINEMENT = Confinement(limits=Limits(), network="none", require=frozenset())
REQUEST = AttemptRequest("uid-1", COMMAND, CONFINEMENT, timeout_seconds=30)


class Broken(Effect):
    def begin(self, in_doubt: str) -> None:
        raise ZeroDivisionError


async def starts(processes: Supervision, folder: Path) -> None:
    async with asyncio.timeout(PATIENCE / 2):
        while supervised(folder / "ns" / "p"):
            await asyncio.sleep(0.02)
        assert (await processes.start(Wanted("ns", "p", REQUEST)))["phase"] in {"Running", "Exited"}
        while supervised(folder / "ns" / "p"):
            await asyncio.sleep(0.02)
    assert (folder / "ns" / "p" / "stdout.log").read_text() == "x\n"


async def test_without_a_supervisor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = Supervision(tmp_path, probe_host())
    with monkeypatch.context() as broken:
        broken.delattr(supervision, "Specification")
        with pytest.raises(NameError):
            await processes.start(Wanted("ns", "p", REQUEST))
    await starts(processes, tmp_path)


async def test_a_start_that_fails_before_its_supervisor_got_a_request(tmp_path: Path) -> None:
    processes = Supervision(tmp_path, probe_host())
    with pytest.raises(ZeroDivisionError):
        await processes.start(Wanted("ns", "p", REQUEST, effect=Broken()))
    await starts(processes, tmp_path)


async def test_a_start_that_is_cancelled_before_its_supervisor_read_the_request(tmp_path: Path) -> None:
    """The supervisor ends, and starts nothing later."""
    more = dataclasses.replace(REQUEST, files={"/run/remit/more": bytes(8 << 20)})
    wanted, processes = Wanted("ns", "p", more), Supervision(tmp_path, probe_host())
    starting = asyncio.create_task(processes.start(wanted))
    async with asyncio.timeout(PATIENCE):
        while not wanted.effect.in_doubt:
            await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert not wanted.effect.in_doubt
    assert not supervised(tmp_path / "ns" / "p")
    await starts(processes, tmp_path)
