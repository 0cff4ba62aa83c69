"""Tests lists in pages, from a server whose continue token expires."""

from __future__ import annotations

import asyncio
import contextlib
import gc
from typing import Any, cast

import pytest

from remit.errors import ApiError
from remit.kube.access import Access
from remit.kube.client import TASKS, Kube, Object

EXPIRED = ApiError("The provided continue parameter is too old", status=410, reason="Expired")


class Server(Kube):
    """Answers lists with the given responses, in order."""

    def __init__(self, *answers: Object | ApiError) -> None:
        super().__init__(cast(Access, None))
        self.answers, self.asked = list(answers), list[dict[str, str]]()

    async def request(self, method: str, path: str, *, params: Any = None, **_: Any) -> Object:
        self.asked.append(dict(params))
        answer = self.answers.pop(0)
        if isinstance(answer, ApiError):
            raise answer
        return answer


def page(version: str, *names: str, token: str = "") -> Object:
    items = [{"metadata": {"name": name}} for name in names]
    return {"items": items, "metadata": {"resourceVersion": version, "continue": token}}


async def test_a_list_whose_moment_is_forgotten_is_asked_for_all_at_once() -> None:
    server = Server(page("5", "a", "b", token="t"), EXPIRED, page("9", "b", "c"))
    objects, version = await server.snapshot(TASKS, field_selector="x=y")
    assert ([obj["metadata"]["name"] for obj in objects], version) == (["b", "c"], "9")
    assert server.asked[1:] == [
        {"limit": "500", "fieldSelector": "x=y", "continue": "t"},
        {"fieldSelector": "x=y"},
    ]


@pytest.mark.parametrize("answers", [[EXPIRED], [page("5", "a", token="t"), ApiError("not now", status=503)]])
async def test_other_refusals_of_a_list_are_reported(answers: list[Any]) -> None:
    with pytest.raises(ApiError):
        await Server(*answers).snapshot(TASKS)


async def test_what_is_kept_of_a_list_is_what_is_made_of_each_object() -> None:
    """The result is made page by page, so that a complete list of complete objects never exists. One page is asked for
    while the one before is taken over, and no more."""
    server = Server(page("5", "a", "b", token="t"), page("5", "c", token="u"), page("5", "d"))
    made: list[tuple[str, int]] = []

    def transform(obj: Object) -> Object:
        made.append((obj["metadata"]["name"], len(server.asked)))
        return {"metadata": obj["metadata"], "slim": True}

    objects, _ = await server.snapshot(TASKS, transform=transform)
    assert [obj["slim"] for obj in objects] == [True] * 4
    assert made == [("a", 2), ("b", 2), ("c", 3), ("d", 3)]
    assert [each.get("continue") for each in server.asked] == [None, "t", "u"]


class SlowServer(Server):
    """Never answers after its answers are used up, and records requests that were given up."""

    given_up = 0

    async def request(self, method: str, path: str, *, params: Any = None, **options: Any) -> Object:
        if self.answers:
            return await super().request(method, path, params=params, **options)
        try:
            await asyncio.Event().wait()
        finally:
            self.given_up += 1
        raise AssertionError


async def test_whoever_stops_reading_a_list_leaves_no_request() -> None:
    server = SlowServer(page("5", "a", token="t"))
    async with contextlib.aclosing(server.pages(TASKS)) as pages:
        async for _ in pages:
            break
    await asyncio.sleep(0)
    assert server.given_up == 1


async def test_a_refusal_that_nobody_waits_for_is_not_logged(caplog: pytest.LogCaptureFixture) -> None:
    server = Server(page("5", "a", token="t"), ApiError("not now", status=503))
    async with contextlib.aclosing(server.pages(TASKS)) as pages:
        async for _ in pages:
            break
    await asyncio.sleep(0)
    gc.collect()
    assert caplog.records == []


async def test_whoever_is_cancelled_while_a_list_is_read_leaves_no_request() -> None:
    server = SlowServer(page("5", "a", token="t"))
    reading = asyncio.create_task(server.list(TASKS))
    while len(server.asked) < 1 or server.answers:
        await asyncio.sleep(0)
    await asyncio.sleep(0)
    reading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await reading
    await asyncio.sleep(0)
    assert server.given_up == 1
