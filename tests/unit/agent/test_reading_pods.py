"""Tests following logs of pods across silence, restarts and lines with the same timestamp."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import pytest

from remit.agent import podlogs
from remit.agent.logs import Wanted
from remit.agent.podlogs import JobLog, LogPiece, instance_log, lines, pods_of_release
from remit.errors import ApiError, DeploymentError
from remit.kube.access import Access
from remit.kube.client import Kube, Object

POD: Object = {"metadata": {"name": "p", "namespace": "data", "uid": "u"}, "status": {"phase": "Running"}}


class Logs(Kube):
    """A server. `answers` are successive responses to requests for a log; after that, pods are found as long as there
    are any."""

    def __init__(self, *answers: bytes, pods: list[Object] | None = None) -> None:
        super().__init__(Access("http://pods.invalid"))
        self.answers, self.pods = list(answers), pods or []
        self.asked: list[Mapping[str, str]] = []

    async def get(self, resource: Any, namespace: str | None, name: str) -> Object:
        if not self.pods:
            raise ApiError("gone", status=404, reason="NotFound")
        return self.pods.pop(0)

    async def stream(
        self, path: str, *, params: Mapping[str, str], silence_seconds: float
    ) -> AsyncGenerator[bytes, None]:
        self.asked.append(params)
        yield self.answers.pop(0)


@pytest.fixture(autouse=True)
def _no_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(podlogs, "_PAUSE_SECONDS", 0)


def at(second: int, text: str) -> bytes:
    return f"2026-01-01T00:00:{second:02d}.500000000Z {text}\n".encode()


async def given(log: podlogs.Pieces) -> list[list[bytes]]:
    return [[said.data for said in batch] async for batch in log]


async def test_an_instance_is_followed_over_a_silent_connection() -> None:
    kube = Logs(at(1, "a") + at(2, "b"), at(2, "b") + at(3, "c"), at(3, "c"), at(4, "d"), pods=[POD, POD])
    assert await given(instance_log(kube, POD, follow=True, tail=5)) == [[b"a\n", b"b\n"], [b"c\n"], [], [b"d\n"]]
    assert [each.get("sinceTime", "")[-3:] for each in kube.asked] == ["", "02Z", "03Z", "03Z"]
    assert [each["follow"] for each in kube.asked] == ["false", "true", "true", "true"]
    assert [each.get("tailLines") for each in kube.asked] == ["5", None, None, None]


async def test_another_pod_of_the_name_is_not_followed() -> None:
    other = {"metadata": {**POD["metadata"], "uid": "v"}, "status": {"phase": "Running"}}
    assert await given(instance_log(Logs(b"", at(1, "a"), pods=[other]), POD, follow=True)) == [[], [b"a\n"]]


async def test_a_line_that_does_not_end_is_given_in_pieces() -> None:
    long = b"2026-01-01T00:00:01Z " + b"x" * (200 << 10) + b"\n"
    pieces = await given(instance_log(Logs(long), POD, follow=False))
    assert sum(map(len, pieces[0])) >= 200 << 10


async def test_of_a_job_no_more_is_kept_than_its_end() -> None:
    kube = Logs(b"".join(at(second, f"o line {second}") for second in range(60)))
    (batch,) = [batch async for batch in JobLog(kube, POD, most_bytes=20).pieces(follow=False)]
    assert batch == [
        LogPiece("stdout", b"line 58\n", batch[0].moment),
        LogPiece("stdout", b"line 59\n", batch[1].moment),
    ]


async def test_a_job_is_followed_until_its_pod_is_gone() -> None:
    kube = Logs(b"", at(1, "o a"), at(1, "o a") + at(2, "e b"), at(2, "e b"), pods=[POD, POD, POD])
    chunks = lines(JobLog(kube, POD).pieces(follow=True), Wanted(lines=True), attempt=2, source="x")
    told = [(chunk.stream, chunk.data, chunk.attempt, chunk.source) async for chunk in chunks]
    assert told == [("stdout", b"a\n", 2, "x"), ("stderr", b"b\n", 2, "x")]


async def test_what_the_runtime_says_instead_of_the_program_is_no_output() -> None:
    log = JobLog(Logs(b"unable to retrieve container logs\n"), POD)
    assert [batch async for batch in log.pieces(follow=False)] == [[]]
    assert (log.complaint, log.is_whole) == ("unable to retrieve container logs", False)


async def test_a_connection_that_is_lost_is_an_error_at_first_and_then_made_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Lost(Logs):
        async def stream(
            self, path: str, *, params: Mapping[str, str], silence_seconds: float
        ) -> AsyncGenerator[bytes, None]:
            async for chunk in super().stream(path, params=params, silence_seconds=silence_seconds):
                yield chunk
            if len(self.asked) != 1:
                raise TimeoutError

    assert await given(instance_log(Lost(at(1, "a"), at(2, "b"), at(3, "c"), pods=[POD]), POD, follow=True)) == [
        [b"a\n"], [b"b\n"], [b"c\n"]
    ]  # fmt: skip
    lost = Lost(b"", at(1, "a"))
    lost.asked.append({})
    with pytest.raises(ApiError, match="the log of pod p broke off"):
        await given(instance_log(lost, POD, follow=False))


async def test_the_pods_of_a_release_are_in_the_namespace_that_it_names() -> None:
    listed = []

    class Pods(Logs):
        async def list(self, resource: Any, namespace: str | None = None, **how: str) -> list[Object]:
            listed.append((namespace, how["label_selector"]))
            return [{"metadata": {"name": name}} for name in ("b", "a")]

    shop = {"metadata": {"name": "shop", "namespace": "data", "uid": "u"}, "spec": {"target": {"kubernetes": {}}}}
    assert list(await pods_of_release(Pods(), shop, "blue")) == ["a", "b"]
    shop["spec"]["target"]["kubernetes"] = {"namespace": "live"}
    await pods_of_release(Pods(), shop)
    own = "remit.dev/namespace=data,remit.dev/deployment=shop"
    assert listed == [("data", f"{own},remit.dev/slot=blue"), ("live", own)]
    with pytest.raises(DeploymentError):
        await pods_of_release(Pods(), {**shop, "metadata": {**shop["metadata"], "name": "a.b"}})


async def test_whoever_leaves_ends_the_request() -> None:
    class Endless(Logs):
        ended = False

        async def stream(
            self, path: str, *, params: Mapping[str, str], silence_seconds: float
        ) -> AsyncGenerator[bytes, None]:
            try:
                while True:
                    yield at(1, "a")
                    await asyncio.sleep(0)
                    if params["follow"] == "false":
                        return
            finally:
                self.ended = self.ended or params["follow"] == "true"

    kube = Endless()
    log = instance_log(kube, POD, follow=True)
    await anext(log)
    await anext(log)
    await log.aclose()
    assert kube.ended
