"""Tests logs of pods with an API server that serves only the routes of the kubelet's logs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import orjson
import pytest
from aiohttp import web

from remit.api.executiontask import ExecutionTask
from remit.cli import podlogs
from remit.cli.follow import Selection
from remit.cli.terminal import Labelled, Screen
from remit.errors import RemitError
from remit.kube.access import Access
from remit.kube.client import Kube

TOLD: list[str] = []
ALL = Selection()
NOW = "2026-01-01T00:00:00.000000Z"


def job(*, finished: bool = True, backend: str = "kubernetes") -> ExecutionTask:
    attempt = {"number": 1, "id": "u-1", "backend": backend, "startedAt": NOW}
    return ExecutionTask.parse(
        {
            "apiVersion": "remit.dev/v1alpha1",
            "kind": "ExecutionTask",
            "metadata": {"name": "t", "namespace": "data", "uid": "u"},
            "spec": {"command": {"line": "ls"}},
            "status": {
                "observedGeneration": 1,
                "phase": "Succeeded" if finished else "Running",
                "attempts": [attempt | ({"finishedAt": NOW} if finished else {})],
            },
        }
    )


def pod(name: str = "p", phase: str = "Succeeded", owner: dict[str, Any] | None = None) -> dict[str, Any]:
    metadata = {"name": name, "namespace": "data", "uid": f"uid-{name}", "labels": {"remit.dev/attempt": "u-1"}}
    job = {"apiVersion": "batch/v1", "kind": "Job", "name": "remit-u-1", "uid": "j", "controller": True}
    return {"metadata": {**metadata, "ownerReferences": [job | (owner or {})]}, "status": {"phase": phase}}


class Server:
    """`logs` are successive responses to requests for a log; the last one is repeated."""

    def __init__(self, *logs: bytes, pods: list[dict[str, Any]] | None = None, forbidden: str = "") -> None:
        self.logs, self.pods, self.forbidden = list(logs), [pod()] if pods is None else pods, forbidden
        self.asked: list[dict[str, str]] = []

    @asynccontextmanager
    async def kube(self) -> AsyncIterator[Kube]:
        app = web.Application()
        app.router.add_get("/api/v1/namespaces/data/pods", self._list)
        app.router.add_get("/api/v1/namespaces/data/pods/{name}", self._get)
        app.router.add_get("/api/v1/namespaces/data/pods/{name}/log", self._log)
        runner = web.AppRunner(app)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        try:
            port = runner.addresses[0][1]
            async with Kube(Access(f"http://127.0.0.1:{port}")) as kube:
                yield kube
        finally:
            await runner.cleanup()

    async def _list(self, request: web.Request) -> web.Response:
        assert request.query["labelSelector"] == "remit.dev/attempt=u-1"
        return self._refused("pods") or web.json_response({"items": self.pods, "metadata": {}})

    async def _get(self, request: web.Request) -> web.Response:
        return web.json_response(self.pods.pop(0) if len(self.pods) > 1 else self.pods[0])

    async def _log(self, request: web.Request) -> web.Response:
        self.asked.append(dict(request.query))
        return self._refused("pods/log") or web.Response(body=self.logs.pop(0) if len(self.logs) > 1 else self.logs[0])

    def _refused(self, what: str) -> web.Response | None:
        if what != self.forbidden:
            return None
        body = {"kind": "Status", "reason": "Forbidden", "message": f"{what} is forbidden", "code": 403}
        return web.Response(body=orjson.dumps(body), status=403)


LOG = (
    b"2026-01-01T00:00:01.000000000Z o one\n"
    b"2026-01-01T00:00:02.000000000Z e two\n"
    b"2026-01-01T00:00:03.500000000Z O \x1b]0;th\n"
    b"2026-01-01T00:00:03.600000000Z o ree\n"
)


async def shown(server: Server, selection: Selection = ALL, *, follow: bool = False, **task: Any) -> bool:
    the_job = job(**task)
    async with server.kube() as kube:
        return await podlogs.show(
            kube, the_job, the_job.status.attempts[0], Screen(), selection, follow=follow, tell=TOLD.append
        )


@pytest.fixture(autouse=True)
def _nothing_told() -> None:
    TOLD.clear()


async def test_both_streams_of_a_job_are_shown_as_its_program_wrote_them(
    capsysbinary: pytest.CaptureFixture[bytes],
) -> None:
    assert await shown(Server(LOG))
    out, err = capsysbinary.readouterr()
    assert (out, err) == (b"one\n\x1b]0;three\n", b"two\n")
    assert TOLD == ["[from the pod's log, in which secrets are not redacted]"]


async def test_lines_have_the_times_of_the_node(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert await shown(Server(LOG), Selection(tail=1, timestamps=True))
    out, err = capsysbinary.readouterr()
    assert out == b"2026-01-01T00:00:03.500000Z \x1b]0;three\n"
    assert err == b"2026-01-01T00:00:02.000000Z two\n"


async def test_what_is_followed_is_asked_for_again_and_shown_once(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    later = LOG + b"2026-01-01T00:00:04.000000000Z o four\n"
    server = Server(LOG, later, pods=[pod(phase="Running"), pod(phase="Running"), pod()])
    assert await shown(server, follow=True, finished=False)
    assert capsysbinary.readouterr().out == b"one\n\x1b]0;three\nfour\n"
    assert "sinceTime" not in server.asked[0]
    assert server.asked[1]["sinceTime"] == "2026-01-01T00:00:03Z"
    assert server.asked[1]["follow"] == "true"


async def test_without_a_pod_there_is_nothing_to_show() -> None:
    assert not await shown(Server(LOG, pods=[]))
    assert not await shown(Server(LOG), backend="process")
    assert TOLD == []


@pytest.mark.parametrize("what", ["pods", "pods/log"])
async def test_who_may_not_read_logs_is_told_so(what: str, capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    assert not await shown(Server(LOG, forbidden=what))
    assert capsysbinary.readouterr().out == b""
    assert f"{what} is forbidden" in TOLD[0]


async def test_an_instance_is_shown_with_its_name(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    server = Server(b"2026-01-01T00:00:01Z a\n2026-01-01T00:00:02Z b\n")
    async with server.kube() as kube:
        source = podlogs.PodSource("deploy/shop/p", kube, pod(), previous=True)
        await source.show(Labelled(Screen(), source.label), Selection(tail=1, by_line=True), True, TOLD.append)
    assert capsysbinary.readouterr().out == b"[deploy/shop/p] b\n"
    assert [(each["previous"], each["follow"]) for each in server.asked] == [("true", "false")]


async def test_an_instance_without_a_log_says_why() -> None:
    server = Server(b"", forbidden="pods/log")
    async with server.kube() as kube:
        source = podlogs.PodSource("deploy/shop/p", kube, pod(), previous=False)
        with pytest.raises(RemitError, match=r"the log of deploy/shop/p cannot be read: .*pods/log is forbidden"):
            await source.show(Screen(), Selection(), False, TOLD.append)


@pytest.mark.parametrize(
    "owner", [{"name": "remit-u-2"}, {"kind": "ReplicaSet"}, {"apiVersion": "v1"}, {"controller": False}]
)
async def test_a_pod_that_the_job_does_not_control_says_nothing(
    owner: dict[str, Any], capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Any user who may create a pod may give it the label."""
    forged = b"2026-01-01T00:00:01Z o forged\n"
    server = Server(forged, pods=[pod(owner=owner)])
    async with server.kube() as kube:
        task = job()
        shown = await podlogs.show(kube, task, task.status.attempts[0], Screen(), ALL, follow=False, tell=TOLD.append)
    assert not shown
    assert server.asked == []
    assert capsysbinary.readouterr().out == b""
