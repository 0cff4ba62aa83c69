"""Tests that an action that cannot be recorded does not happen, and that an action is recorded once."""

from __future__ import annotations

import asyncio
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import orjson
import pytest

from parts import require
from remit.controllers.operator import Operator
from remit.errors import AuditUnavailable
from remit.kube.client import TASKS
from remit.telemetry.chain import AuditEvent
from remit.telemetry.verifying import verify

pytestmark = pytest.mark.no_cover


@pytest.fixture
def small_disk(world: Any) -> Iterator[Path]:
    """Puts the audit trail on a separate disk of 64 KiB."""
    folder: Path = world.settings.state_dir / "audit"
    folder.mkdir(parents=True)
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k,mode=0700", "none", str(folder)]
    mounted = os.geteuid() == 0 and subprocess.run(mount, check=False, capture_output=True).returncode == 0
    require("mount", mounted, "run as root, where tmpfs can be mounted")
    yield folder
    subprocess.run(["umount", str(folder)], check=True)


async def fill(folder: Path, operator: Operator) -> Path:
    """Fills the disk, so that no byte of a record fits. Returns the file whose removal frees space."""
    ballast = folder / "ballast"
    with ballast.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space left"):
        while True:
            file.write(b"x" * 4096)
    with pytest.raises(AuditUnavailable, match="No space left"):
        while True:  # fills the rest of the last page
            await operator.audit.append_async(AuditEvent(kind="recovery"))
    return ballast


async def readiness(operator: Operator) -> tuple[int, str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{operator.health.port}/readyz") as got,
    ):
        return got.status, await got.text()


async def test_a_full_disk_holds_new_runs_and_denials_until_there_is_space(world: Any, small_disk: Path) -> None:
    async with world.operator() as operator:
        await world.policy("touch")
        ballast = await fill(small_disk, operator)
        allowed, denied = await world.task("touch", "here"), await world.task("rm", "-rf", "/")
        for name in (allowed, denied):
            status = await world.until(name, lambda status: "No space left" in status.get("message", ""))
            assert (status["phase"], status["conditions"][0]["reason"]) == ("Pending", "AuditUnavailable")
            assert not status.get("attempts")
        status, text = await readiness(operator)
        assert status == 503
        assert "No space left" in text

        ballast.unlink()
        assert (await world.finished(allowed))["phase"] == "Succeeded"
        assert (await world.finished(denied))["phase"] == "Denied"
        assert (await readiness(operator))[0] == 200
    assert verify(small_disk / "audit.jsonl").ok


async def test_a_denial_that_meets_an_edit_is_recorded_once(world: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    met = asyncio.Event()
    async with world.operator() as operator:
        append = operator.audit.append_async

        async def meanwhile(event: AuditEvent) -> Any:
            anchor = await append(event)
            if not met.is_set():  # before the denial is in status
                met.set()
                await world.kube.patch(TASKS, "default", event.task, {"metadata": {"labels": {"edited": "yes"}}})
            return anchor

        monkeypatch.setattr(operator.audit, "append_async", meanwhile)
        name = await world.task("rm", "-rf", "/")
        assert (await world.finished(name))["phase"] == "Denied"
    lines = (world.settings.state_dir / "audit" / "audit.jsonl").read_bytes().splitlines()
    assert met.is_set()
    assert [record["verdict"] for record in map(orjson.loads, lines)] == ["Denied"]
