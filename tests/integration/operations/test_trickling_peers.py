"""Tests peers that answer byte by byte without an end: the attempt's own timeout ends it, and its connection is closed.
The clients' own timeouts are for the time between two bytes only."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from typing import Any

import pytest

from middleman import keeping_back
from remit.backends.outcome import Outcome
from remit.operations.base import OperationExecutor
from remit.operations.database.postgres import PostgresExecutor
from remit.operations.database.redis import RedisExecutor
from remit.operations.http.executor import HttpExecutor
from servers import Server, postgres
from trickling import BODIES, trickling

from .conftest import Desk

PATIENCE = 60
SOON = 0.5
CONNECTION = {"name": "s", "key": "url"}
DATABASES = {
    "postgres": {"secrets": ["s"], "statements": ["insert", "select", "create"]},
    "redis": {"secrets": ["s"], "commands": ["INCR"]},
}
NEVER = b"\xff never said \xff"


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    server, url = postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server, url
    server.stop()


@pytest.mark.parametrize("kind", BODIES)
async def test_an_http_server(kind: str) -> None:
    async with trickling(BODIES[kind]) as server, asyncio.timeout(PATIENCE):
        rule = {"hosts": ["127.0.0.1"], "ports": [server.port], "methods": ["GET"], "addresses": ["127.0.0.0/8"]}
        desk = Desk(HttpExecutor(), [{"http": {"allow": [rule]}}])
        ended = await desk.attempt(seconds=SOON, http={"url": f"http://127.0.0.1:{server.port}/"})
        assert (ended.reason, ended.retryable) == ("Timeout", True), ended
        await server.left()


async def over_and_again(
    executor: OperationExecutor, server: Server, url: str, word: bytes, instead: bytes, **operation: Any
) -> Outcome:
    """Runs an attempt during which the server's response stops ending. Asserts that its connection is closed and that
    the next attempt succeeds, and returns the outcome."""
    async with keeping_back(server.port, word, instead=instead) as between, asyncio.timeout(PATIENCE):
        values = {"connection": url.replace(str(server.port), str(between.port)).encode()}
        desk = Desk(executor, [{"databases": DATABASES}])
        try:
            ended = await desk.attempt(values, seconds=SOON, **operation)
            await between.left()
            between.word = NEVER
            again = await desk.attempt(values, **operation)
            assert again.reason == "Completed", again
        finally:
            await executor.close()
        await between.left()
    return ended


@pytest.mark.parametrize(("word", "sent"), [(b"HELLO", False), (b"MULTI", False), (b"EXEC", True)])
@pytest.mark.parametrize("instead", [b"+O", b"$1000000\r\n", b"*1000000\r\n+"])
async def test_a_redis_server(cache: tuple[Server, str], word: bytes, sent: bool, instead: bytes) -> None:
    operation = {"connection": CONNECTION, "commands": [["INCR", "n"]]}
    ended = await over_and_again(RedisExecutor(), *cache, word, instead, redis=operation)
    assert ended.reason == "Timeout", ended
    assert sent or ended.retryable, ended


@pytest.mark.parametrize(
    ("word", "instead"),
    [
        (b"user\0", b"E\x00\x00\x70\x00"),
        (b"set_config", b"N\x00\x10\x00\x00"),
        (b"SELECT 'x'", b"D\x00\x10\x00\x00"),
        (b"COMMIT", b"N\x00\x10\x00\x00"),
    ],
)
async def test_a_postgres_server(database: tuple[Server, str], word: bytes, instead: bytes) -> None:
    operation = {"connection": CONNECTION, "statements": [{"sql": "SELECT 'x'"}]}
    ended = await over_and_again(PostgresExecutor(), *database, word, instead, postgres=operation)
    assert ended.reason == "Timeout", ended
    assert word == b"COMMIT" or ended.retryable, ended
