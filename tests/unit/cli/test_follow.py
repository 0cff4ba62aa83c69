"""Tests following a task that the test itself advances. The run store is real, and no watch is needed."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from remit.api.executiontask import ExecutionTask
from remit.cli.follow import Follower, show_once
from remit.cli.observe import Observed
from remit.cli.terminal import Screen
from remit.describe.connection import Connection
from remit.errors import RemitError
from remit.execution.output import OutputWriter
from remit.kube.access import Access
from remit.kube.client import Kube
from remit.telemetry.redact import Redactor

NOW = "2026-01-01T00:00:00.000000Z"
KUBE = Kube(Access("http://127.0.0.1:1"))


def task(*attempts: dict[str, Any], phase: str = "Running", **status: Any) -> dict[str, Any]:
    numbered = [{"number": n, "id": f"u-{n}", "startedAt": NOW, **attempt} for n, attempt in enumerate(attempts, 1)]
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": "t", "namespace": "data", "uid": "u"},
        "spec": {"command": {"line": "ls"}},
        "status": {"observedGeneration": 1, "phase": phase, "attempts": numbered, **status},
    }


async def seen(capsys: pytest.CaptureFixture[bytes], expected: bytes) -> None:
    out = b""
    async with asyncio.timeout(60):
        while out != expected:
            await asyncio.sleep(0.01)
            out += capsys.readouterr().out


async def test_a_run_that_is_in_status_before_it_is_on_disk(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    observed = Observed(KUBE, task({}))
    follower = Follower(Connection(KUBE, "data", (tmp_path,)), observed, Screen())
    following = asyncio.create_task(follower.to_the_end())
    await asyncio.sleep(0)  # it has polled once and found nothing
    directory = tmp_path / "runs" / "data" / "u" / "u-1"
    directory.mkdir(parents=True)
    writer = OutputWriter(directory, max_bytes=1000, tail_bytes=0)
    writer.write("stdout", b"started\n")
    await seen(capsysbinary, b"started\n")
    writer.write("stdout", b"ended\n")
    writer.close()
    observed.see(task({"finishedAt": NOW}, phase="Succeeded"))
    assert (await following).status.phase == "Succeeded"
    assert capsysbinary.readouterr().out == b"ended\n"


async def test_where_no_run_store_is_the_tails_are_shown_and_the_waits_told(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    told: list[str] = []
    observed = Observed(KUBE, task(phase="Queued", message="its turn comes"))
    follower = Follower(Connection(KUBE, "data", (tmp_path,)), observed, Screen(), tell=told.append)
    following = asyncio.create_task(follower.to_the_end())
    await asyncio.sleep(0)
    first = {"finishedAt": NOW}
    output = {"stdoutTail": "one\n", "stdoutBytes": 4}
    observed.see(task(first, phase="Backoff", message="again soon", output=output))
    await seen(capsysbinary, b"one\n")
    output = {"stdoutTail": "two\n", "stdoutBytes": 400, "ref": "/far/away"}
    observed.see(task(first, {"finishedAt": NOW}, phase="Failed", output=output))
    await following
    shown = capsysbinary.readouterr()
    assert shown.out == b"two\n"
    assert b"only the end of 400 bytes" in shown.err
    assert told == ["its turn comes", "again soon"]


async def test_a_server_that_stays_away_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("remit.cli.observe.PATIENCE_SECONDS", 0)
    async with Kube(Access("http://127.0.0.1:1")) as kube:
        observed = Observed(kube, task({}))
        await observed.keep()
        with pytest.raises(RemitError, match="lost sight of task data/t"):
            await observed.finished()


async def test_what_redaction_changed_is_told_beside_the_output(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    output = {"stdoutTail": "row [redacted]\n", "stdoutBytes": 15, "redactions": 2}
    ended = task({"finishedAt": NOW}, phase="Succeeded", output=output)
    follower = Follower(Connection(KUBE, "data", (tmp_path,)), Observed(KUBE, ended), Screen())
    await follower.to_the_end()
    shown = capsysbinary.readouterr()
    assert shown.out == b"row [redacted]\n"
    assert b"[redacted] took the place of a secret 2 times" in shown.err


def raw_task(tmp_path: Path) -> dict[str, Any]:
    """Returns a task whose raw output is in the run store below `tmp_path`."""
    directory = tmp_path / "runs" / "data" / "u" / "u-1"
    directory.mkdir(parents=True)
    writer = OutputWriter(directory, max_bytes=1000, tail_bytes=100, redactor=Redactor(["hunter2!"]), raw=True)
    writer.write("stdout", b"row hunter2!\n")
    output = writer.close().model_dump(by_alias=True)
    ended = task({"finishedAt": NOW}, phase="Succeeded", output=output)
    return {**ended, "spec": {**ended["spec"], "output": {"raw": True}}}


async def test_who_runs_a_task_sees_no_raw_output(tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    observed = Observed(KUBE, raw_task(tmp_path))
    await Follower(Connection(KUBE, "data", (tmp_path,)), observed, Screen()).to_the_end()
    shown = capsysbinary.readouterr()
    assert shown.out == b"row [redacted]\n"
    assert b"kept as written" in shown.err
    assert b"remit logs t" in shown.err
    assert b"took the place" not in shown.err
    assert b"hunter2" not in shown.err


async def test_logs_shows_raw_output_as_kept_and_says_so(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    obj = raw_task(tmp_path)
    connection = Connection(KUBE, "data", (tmp_path,))
    ended = ExecutionTask.parse(obj)
    show_once(connection, ended, ended.status.attempts[0], Screen())
    once = capsysbinary.readouterr()
    await Follower(connection, Observed(KUBE, obj), Screen(), raw_output=True).to_the_end()
    followed = capsysbinary.readouterr()
    for shown in (once, followed):
        assert shown.out == b"row hunter2!\n"
        assert b"kept as written" in shown.err
        assert b"hunter2" not in shown.err
