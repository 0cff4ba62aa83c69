"""Tests the page's output of a task without output files: its order, and what it waits for."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from types import SimpleNamespace
from typing import Any, cast

import pytest

from remit.agent.logs import LogChunk
from remit.api.executiontask import ExecutionTask
from remit.backends.kubernetes.manifests import job_name
from remit.errors import ApiError, InvalidInput
from remit.kube.access import Access
from remit.kube.client import Kube, Object
from remit.web import joboutput
from remit.web.joboutput import JobOutput
from remit.web.viewer import Viewer

NOW = "2026-01-01T00:00:00.000000Z"
LINE = b"2026-01-01T00:00:01.000000000Z o one\n"


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joboutput, "_PAUSE_SECONDS", 0)


def task(*, finished: bool, backend: str = "kubernetes") -> ExecutionTask:
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


class Pods(Kube):
    """One pod of the task's Job, which is gone after its log was read. `answers` are logs, or errors by status."""

    def __init__(self, *answers: bytes | int) -> None:
        super().__init__(Access("http://pods.invalid"))
        self.answers = list(answers)

    async def list(self, resource: Any, namespace: str | None = None, **how: str) -> list[Object]:
        owner = {"apiVersion": "batch/v1", "kind": "Job", "name": job_name("u-1"), "uid": "j", "controller": True}
        return [{"metadata": {"name": "p", "namespace": "data", "uid": "p", "ownerReferences": [owner]}}]

    async def get(self, resource: Any, namespace: str | None, name: str) -> Object:
        raise ApiError("gone", status=404, reason="NotFound")

    async def stream(
        self, path: str, *, params: Mapping[str, str], silence_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        answer = self.answers.pop(0)
        if isinstance(answer, int):
            raise ApiError(f"answered {answer}", status=answer, reason="Any")
        yield answer


async def told(kube: Kube, *states: ExecutionTask, number: int | None = None) -> list[str]:
    coming = list(states)

    async def again() -> ExecutionTask:
        return coming.pop(0) if len(coming) > 1 else coming[0]

    viewer = cast(Viewer, SimpleNamespace(kube=kube, logs=asyncio.Semaphore(1)))
    parts = JobOutput(viewer, await again(), number, 10).parts(again)
    return [
        part if isinstance(part, str) else f"{part.data!r}" if isinstance(part, LogChunk) else f"end of {part.number}"
        async for part in parts
    ]


async def test_a_log_that_broke_off_is_followed_by_the_end_from_status() -> None:
    found = await told(Pods(LINE), task(finished=False), task(finished=True))
    assert found == ["From the pod's log, in which secrets are not redacted.", "b'one\\n'", "end of 1"]


async def test_a_container_that_has_not_started_is_waited_for() -> None:
    going = task(finished=False)
    found = await told(Pods(400, 400, LINE), going, going, going, going, going, task(finished=True))
    assert found[1:] == ["b'one\\n'", "end of 1"]


async def test_a_missing_permission_is_reported_once() -> None:
    going = task(finished=False)
    found = await told(Pods(403, 403, 403), going, going, going, task(finished=True))
    assert found == ["You may not read the log of its pod: answered 403", "end of 1"]


async def test_a_server_that_does_not_answer_is_an_error() -> None:
    with pytest.raises(ApiError, match="answered 503"):
        await told(Pods(503), task(finished=False))


async def test_an_attempt_in_the_operators_pod_is_reported_as_running_until_it_has_ended() -> None:
    going = task(finished=False, backend="process")
    found = await told(Pods(), going, going, going, task(finished=True, backend="process"))
    assert found[0].startswith("It runs in the operator's pod")
    assert found[1:] == ["end of 1"]
    assert await told(Pods(), task(finished=True, backend="process")) == ["end of 1"]


async def test_what_the_container_runtime_says_is_a_note() -> None:
    assert await told(Pods(b"no such image\n"), task(finished=True)) == ["no such image", "end of 1"]


async def test_an_attempt_that_does_not_exist() -> None:
    with pytest.raises(InvalidInput, match="has no attempt 7"):
        await told(Pods(), task(finished=True), number=7)


async def test_a_wait_for_too_many_followed_logs_is_reported() -> None:
    viewer = cast(Viewer, SimpleNamespace(kube=Pods(LINE), logs=asyncio.Semaphore(0)))

    async def again() -> ExecutionTask:
        return task(finished=True)

    parts = JobOutput(viewer, await again(), None, 10).parts(again)
    assert "waits until fewer logs" in str(await anext(parts))
    viewer.logs.release()
    assert "From the pod's log" in str(await anext(parts))
    await parts.aclose()
    assert not viewer.logs.locked()
