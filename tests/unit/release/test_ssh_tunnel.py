"""Tests that a tunnel to an engine whose `ssh` hangs does not delay the shutdown."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

import pytest

from remit.policy.engines import EngineAddress
from remit.release.targets.docker import ssh

HANGS = """#!{python}
import os, pathlib, signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
pathlib.Path({pid!r}).write_text(str(os.getpid()))
signal.pause()
"""


async def test_a_program_that_does_not_end_is_killed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    program, pid = tmp_path / "ssh", tmp_path / "pid"
    program.write_text(HANGS.format(python=sys.executable, pid=str(pid)))
    program.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(ssh, "_END_SECONDS", 0.1)
    tunnel = ssh.Tunnel(EngineAddress("ssh", "engine.test"))
    async with asyncio.timeout(60):
        _, writer = await asyncio.open_unix_connection((await tunnel.open()).removeprefix("unix://"))
        while not pid.exists() or not pid.read_text():
            await asyncio.sleep(0.02)
        await tunnel.close()
        while (process := Path("/proc", pid.read_text())).exists() and "Z" not in (
            process / "stat"
        ).read_text().split():
            await asyncio.sleep(0.02)
        writer.close()
