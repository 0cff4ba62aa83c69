"""What `remit logs` shows of a Job: from a pod that is the Job's, as far as its log is readable."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from jobservers import JobServer
from remit.cli.connect import Connection
from remit.cli.follow import UNREDACTED, Follower
from remit.cli.observe import Observed
from remit.cli.terminal import Screen
from remit.errors import ApiError

NOW = "2026-01-01T00:00:00.000000Z"
PODS = "/api/v1/namespaces/data/pods"
END = (
    b'= {"exitCode":0,"signal":0,"stdoutBytes":8,"stderrBytes":0,"cpuMicroseconds":0,"maxMemoryBytes":0,"oomKills":0,'
    b'"throttledMicroseconds":0,"maxTasks":1,"error":"","errno":0}'
)


class LogServer(JobServer):
    """Whose logs come in parts, between which the connection is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.parts: list[bytes] = []
        self.asked: list[Mapping[str, str]] = []

    async def stream(
        self, path: str, *, params: Mapping[str, str], silence_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        self.before("GET", path)
        self.asked.append(params)
        if self.parts:
            yield self.parts.pop(0)
            raise aiohttp.ClientPayloadError("lost")


def pod(owner: str = "remit-u-1", *, kind: str = "Job", controller: bool = True) -> dict[str, Any]:
    owners = [{"kind": kind, "name": owner, "uid": "j", "controller": controller}]
    return {"metadata": {"name": "p", "labels": {"remit.dev/attempt": "u-1"}, "ownerReferences": owners}}


def task(*, ended: bool = False, tail: str = "") -> dict[str, Any]:
    attempt = {"number": 1, "id": "u-1", "startedAt": NOW, "backend": "kubernetes"} | (
        {"finishedAt": NOW} if ended else {}
    )
    output = {"output": {"stdoutTail": tail, "stdoutBytes": 8}} if ended else {}
    return {
        "apiVersion": "remit.dev/v1alpha1",
        "kind": "ExecutionTask",
        "metadata": {"name": "t", "namespace": "data", "uid": "u"},
        "spec": {"command": {"line": "ls"}},
        "status": {
            "observedGeneration": 1,
            "phase": "Succeeded" if ended else "Running",
            "attempts": [attempt],
            **output,
        },
    }


def following(server: JobServer, tmp_path: Path, told: list[str], *, raw: bool = True) -> tuple[Observed, Follower]:
    observed = Observed(server, task())
    return observed, Follower(
        Connection(server, "data", (tmp_path,)), observed, Screen(), tell=told.append, raw_output=raw
    )


async def until_shown(capsys: pytest.CaptureFixture[bytes], expected: bytes) -> None:
    out = b""
    async with asyncio.timeout(60):
        while out != expected:
            await asyncio.sleep(0.01)
            out += capsys.readouterr().out


async def test_what_comes_is_shown_once_although_the_connection_is_lost(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    server, told = LogServer(), []
    server.put(f"{PODS}/p", pod())
    first = b"2026-01-01T00:00:01Z o one\n"
    server.parts = [first, first + b"2026-01-01T00:00:02Z o two\n2026-01-01T00:00:03Z " + END + b"\n"]
    observed, follower = following(server, tmp_path, told)
    at_work = asyncio.create_task(follower.to_the_end())
    await until_shown(capsysbinary, b"one\ntwo\n")
    observed.see(task(ended=True, tail="two\n"))
    await at_work
    assert capsysbinary.readouterr().out == b"", "the end that status has was shown already"
    assert told == [UNREDACTED]
    assert server.asked[1]["sinceTime"] == "2026-01-01T00:00:01Z"


@pytest.mark.parametrize("stranger", [pod("remit-u-2"), pod(kind="ReplicaSet"), pod(controller=False), None])
async def test_a_pod_that_is_not_the_jobs_says_nothing(
    stranger: dict[str, Any] | None, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    server, told = LogServer(), []
    if stranger:
        server.put(f"{PODS}/p", stranger)
    server.parts = [b"2026-01-01T00:00:01Z o forged\n"]
    observed, follower = following(server, tmp_path, told)
    at_work = asyncio.create_task(follower.to_the_end())
    while ("GET", PODS) not in server.requests:
        await asyncio.sleep(0.01)
    observed.see(task(ended=True, tail="the end\n"))
    await at_work
    assert capsysbinary.readouterr().out == b"the end\n"
    assert server.asked == []


async def test_who_may_not_read_pods_gets_what_status_has(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    def refuse(method: str, path: str) -> None:
        raise ApiError("pods is forbidden", status=403, reason="Forbidden")

    server, told = LogServer(), []
    server.before = refuse
    observed, follower = following(server, tmp_path, told)
    at_work = asyncio.create_task(follower.to_the_end())
    async with asyncio.timeout(60):
        while len(told) < 2:
            await asyncio.sleep(0.01)
    observed.see(task(ended=True, tail="the end\n"))
    await at_work
    assert told[1] == "the log of the attempt's pod cannot be read: pods is forbidden"
    assert capsysbinary.readouterr().out == b"the end\n"


async def test_who_runs_a_task_sees_no_unredacted_log(
    tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    server = LogServer()
    server.put(f"{PODS}/p", pod())
    server.parts = [b"2026-01-01T00:00:01Z o hunter2\n"]
    observed, follower = following(server, tmp_path, [], raw=False)
    at_work = asyncio.create_task(follower.to_the_end())
    await asyncio.sleep(0.2)
    observed.see(task(ended=True, tail="[redacted]\n"))
    await at_work
    assert capsysbinary.readouterr().out == b"[redacted]\n"
    assert server.requests == []
