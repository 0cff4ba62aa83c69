"""Tests API servers, or other servers in their place, whose responses never end or are invalid."""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncIterator

import pytest

from remit.errors import ApiError
from remit.kube import client
from remit.kube.access import Access
from remit.kube.client import PODS, Kube
from trickling import BODIES, CHUNKED, Begin, Trickling, answering, chunk, trickling

PATIENCE = 60
SOON = 0.5
ADDED = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "p"}}}).encode() + b"\n"
LINES = {
    **{kind: BODIES[kind] for kind in ("the first line", "headers", "a refusal")},
    "a line": answering(CHUNKED + chunk(ADDED), chunk(b" ")),
}


@contextlib.asynccontextmanager
async def kube(begin: Begin) -> AsyncIterator[tuple[Kube, Trickling]]:
    """Provides a client of a server whose response never ends. Asserts that no client remains connected to it."""
    async with trickling(begin) as server, asyncio.timeout(PATIENCE):
        async with Kube(Access(f"http://127.0.0.1:{server.port}")) as connected:
            yield connected, server
        await server.left()


async def watched(connected: Kube) -> None:
    async with contextlib.aclosing(connected.watch(PODS)) as changes:
        async for _ in changes:
            pass


@pytest.mark.parametrize("kind", BODIES)
async def test_an_answer_has_a_time_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "ANSWER_SECONDS", SOON)
    async with kube(BODIES[kind]) as (connected, server):
        with pytest.raises(ApiError, match="does not answer") as raised:
            await connected.get(PODS, "ns", "p")
        assert raised.value.retryable
        await server.left()


@pytest.mark.parametrize("kind", LINES)
async def test_each_event_of_a_watch_has_a_time_limit(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SILENCE_SECONDS", SOON)
    async with kube(LINES[kind]) as (connected, server):
        with pytest.raises(TimeoutError):
            await watched(connected)
        await server.left()


async def test_an_event_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LONGEST_EVENT", 1 << 16)
    async with kube(answering(CHUNKED, chunk(b" " * (1 << 13)))) as (connected, server):
        with pytest.raises(ApiError, match="has more than") as raised:
            await watched(connected)
        assert raised.value.retryable
        await server.left()


async def test_events_may_be_long_and_come_in_pieces() -> None:
    long = json.dumps({"type": "ADDED", "object": {"metadata": {"name": "p" * (1 << 20)}}}).encode() + b"\n"
    pieces = [long[at : at + 100_000] for at in range(0, len(long), 100_000)]
    async with kube(answering(CHUNKED + b"".join(map(chunk, pieces)) + chunk(ADDED * 3))) as (connected, _):
        async with contextlib.aclosing(connected.watch(PODS)) as changes:
            sizes = [len((await anext(changes))[1]["metadata"]["name"]) for _ in range(4)]
        assert sizes == [1 << 20, 1, 1, 1]


async def test_a_watch_ends_even_where_its_server_does_not_end_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "WATCH_SECONDS", SOON - client.SILENCE_SECONDS)
    async with kube(answering(CHUNKED, chunk(ADDED))) as (connected, server):
        await watched(connected)
        await server.left()


@pytest.mark.parametrize(
    "line",
    [b"", b"{", b"{}", b"[]", b"1", b'{"type":"ADDED","object":[]}', b'{"type":"ADDED","object":{}}', b"\xff"],
)
async def test_what_is_no_event_is_the_servers_trouble(line: bytes) -> None:
    async with kube(answering(CHUNKED + chunk(line + b"\n"))) as (connected, _):
        with pytest.raises(ApiError, match="as an API server does") as raised:
            await watched(connected)
        assert raised.value.retryable


async def test_a_stream_begins_in_time_and_may_trickle() -> None:
    for kind in ("the first line", "headers", "a refusal"):
        async with kube(BODIES[kind]) as (connected, server):
            with pytest.raises(TimeoutError):
                await anext(connected.stream("/log", params={}, silence_seconds=SOON))
            await server.left()
    async with kube(BODIES["chunks"]) as (connected, server):
        async with contextlib.aclosing(connected.stream("/log", params={}, silence_seconds=PATIENCE)) as pieces:
            for _ in range(20):
                assert set(await anext(pieces)) == {ord("1")}
        await server.left()
