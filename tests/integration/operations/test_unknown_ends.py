"""Tests requests that reached a server that then did not answer: they may have taken effect, so no retry repeats them
automatically."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from typing import Any

import orjson
import psycopg
import pytest
import redis
from aiohttp import web

from middleman import keeping_back
from remit.backends import breaker
from remit.backends.outcome import Outcome
from remit.execution.operations import execute
from remit.operations.base import OperationExecutor
from remit.operations.database.postgres import PostgresExecutor
from remit.operations.database.redis import RedisExecutor
from remit.operations.http.executor import HttpExecutor
from servers import Server, postgres
from webserver import answering

from .conftest import Desk

CONNECTION = {"name": "s", "key": "url"}
POLICY = {
    "databases": {
        "postgres": {"secrets": ["s"], "statements": ["insert", "select"]},
        "redis": {"secrets": ["s"], "commands": ["INCR", "GET"]},
    }
}


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    server, url = postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE t (i int)")
    yield server, url
    server.stop()


async def end(executor: OperationExecutor, url: str, *, seconds: float = 30, **operation: Any) -> Outcome:
    """Returns the outcome of an attempt, as the state machine receives it."""
    desk = Desk(executor, [POLICY])
    work = replace(desk.work({"connection": url.encode()}, **operation), timeout_seconds=seconds)
    try:
        return await execute(executor, work, desk.output, asyncio.Event())
    finally:
        await executor.close()


def insert(read_only: bool) -> dict[str, Any]:
    sql = "SELECT count(*) FROM t" if read_only else "INSERT INTO t VALUES (1)"
    return {"connection": CONNECTION, "statements": [{"sql": sql}], "readOnly": read_only}


@pytest.mark.parametrize("read_only", [False, True])
async def test_an_answer_to_a_commit_is_lost(database: tuple[Server, str], read_only: bool) -> None:
    server, url = database
    async with keeping_back(server.port, b"COMMIT") as between:
        through = url.replace(str(server.port), str(between.port))
        ended = await end(PostgresExecutor(), through, postgres=insert(read_only))
    assert (between.kept_back, ended.reason, ended.retryable) == (1, "ConnectionLost", read_only)
    assert ("whether it did is not known" in ended.message) is not read_only
    if not read_only:
        with psycopg.connect(url) as connection:  # the statement did take effect
            assert connection.execute("SELECT count(*) FROM t").fetchone() == (1,)


async def test_time_is_over_while_it_commits(database: tuple[Server, str]) -> None:
    server, url = database
    async with keeping_back(server.port, b"COMMIT", silent=True) as between:
        through = url.replace(str(server.port), str(between.port))
        ended = await end(PostgresExecutor(), through, postgres=insert(read_only=False), seconds=5)
    assert (between.kept_back, ended.reason, ended.retryable) == (1, "Timeout", False)
    assert "whether it did is not known" in ended.message


@pytest.mark.parametrize(("state", "again"), [("40001", True), ("40003", False), ("57P01", False)])
async def test_what_the_server_says_of_a_commit(database: tuple[Server, str], state: str, again: bool) -> None:
    _, url = database
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS checked (i int)")
        connection.execute(
            "CREATE OR REPLACE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS"
            f" $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END $$"
        )
        connection.execute("DROP TRIGGER IF EXISTS at_commit ON checked")
        connection.execute(
            "CREATE CONSTRAINT TRIGGER at_commit AFTER INSERT ON checked DEFERRABLE INITIALLY DEFERRED"
            " FOR EACH ROW EXECUTE FUNCTION refuse()"
        )
    operation = {"connection": CONNECTION, "statements": [{"sql": "INSERT INTO checked VALUES (1)"}]}
    ended = await end(PostgresExecutor(), url, postgres=operation)
    assert (ended.reason, ended.retryable) == ("StatementFailed", again)
    assert ("whether it did is not known" in ended.message) is not again


def increment(read_only: bool) -> dict[str, Any]:
    return {"connection": CONNECTION, "commands": [["GET" if read_only else "INCR", "n"]], "readOnly": read_only}


@pytest.mark.parametrize("read_only", [False, True])
@pytest.mark.parametrize("silent", [False, True])
async def test_an_answer_to_a_transaction_of_redis(cache: tuple[Server, str], read_only: bool, silent: bool) -> None:
    server, url = cache
    with redis.Redis.from_url(url) as client:
        client.delete("n")
        async with keeping_back(server.port, b"EXEC", silent=silent) as between:
            through = url.replace(str(server.port), str(between.port))
            ended = await end(RedisExecutor(), through, redis=increment(read_only), seconds=0.5 if silent else 30)
        assert (ended.reason, ended.retryable) == ("Timeout" if silent else "ConnectionLost", read_only)
        assert read_only or "is not known" in ended.message
        assert read_only or client.get("n") == b"1"


async def test_what_never_reached_redis_is_repeated(cache: tuple[Server, str]) -> None:
    server, url = cache
    ended = await end(RedisExecutor(), url.replace(str(server.port), "1"), redis=increment(read_only=False))
    assert (ended.reason, ended.retryable) == ("ConnectFailed", True)
    assert "connection refused" in ended.message


async def test_a_reply_to_a_cancelled_task_is_not_given_to_a_later_task(cache: tuple[Server, str]) -> None:
    _, url = cache
    executor = RedisExecutor()
    desk, values = Desk(executor, [POLICY]), {"connection": url.encode()}
    with redis.Redis.from_url(url) as client:
        client.delete("n")
        client.client_pause(60_000, all=False)
        asked = asyncio.create_task(desk.do(values, redis=increment(read_only=False)))
        async with asyncio.timeout(30):
            while not client.info("clients")["blocked_clients"]:
                await asyncio.sleep(0.01)
        asked.cancel()
        await asyncio.gather(asked, return_exceptions=True)
        client.client_unpause()
        for _ in range(5):
            await desk.do(values, redis={"connection": CONNECTION, "commands": [["GET", "nothing"]]})
            assert orjson.loads(desk.output.stdout)["reply"] is None
    await executor.close()


@pytest.fixture
async def silent() -> AsyncIterator[int]:
    """Starts a host that accepts requests and never answers, except with redirects."""

    async def answer(request: web.BaseRequest) -> web.StreamResponse:
        if request.path == "/moved":
            return web.Response(status=303, headers={"Location": "/"})
        await asyncio.Event().wait()
        raise AssertionError("never")

    async with answering(answer) as port:
        yield port


def sending(port: int, path: str = "/", **rest: Any) -> tuple[Desk, dict[str, Any]]:
    rule = {"hosts": ["127.0.0.1"], "ports": [port], "methods": ["GET", "POST"], "addresses": ["127.0.0.0/8"]}
    desk = Desk(HttpExecutor(), [{"http": {"allow": [rule]}}])
    return desk, {"url": f"http://127.0.0.1:{port}{path}", **rest}


@pytest.mark.parametrize(
    ("request_", "again"),
    [
        ({}, True),
        ({"method": "POST"}, False),
        ({"method": "POST", "headers": [{"name": "Idempotency-Key", "value": "1"}]}, True),
        ({"method": "POST", "path": "/moved"}, False),
    ],
    ids=["get", "post", "post with a key", "post that was redirected to a get"],
)
async def test_only_what_is_safe_is_repeated_after_a_timeout(
    silent: int, request_: dict[str, Any], again: bool
) -> None:
    desk, http = sending(silent, **request_)
    work = replace(desk.work(http=http), timeout_seconds=2)  # long enough to send the request, also on a busy machine
    ended = await execute(desk.executor, work, desk.output, asyncio.Event())
    assert (ended.reason, ended.retryable) == ("Timeout", again)
    assert again or "not safe to repeat" in ended.message


async def test_a_silent_host_opens_the_circuit(silent: int) -> None:
    desk, http = sending(silent)
    assert desk.executor.breaker is not None
    for _ in range(breaker.FAILURES):
        assert desk.executor.breaker.open() == []
        work = replace(desk.work(http=http), timeout_seconds=2)
        assert (await execute(desk.executor, work, desk.output, asyncio.Event())).reason == "Timeout"
    assert desk.executor.breaker.open() == [f"ns/127.0.0.1:{silent}"]


async def test_a_user_who_cancels_opens_no_circuit(silent: int) -> None:
    desk, http = sending(silent)
    assert desk.executor.breaker is not None
    for _ in range(breaker.FAILURES + 1):
        cancel = asyncio.Event()
        doing = asyncio.create_task(execute(desk.executor, desk.work(http=http), desk.output, cancel))
        await asyncio.sleep(0.02)
        cancel.set()
        assert (await doing).reason == "Cancelled"
    assert desk.executor.breaker.open() == []


async def test_a_connection_that_is_lost_before_tls_is_up_has_carried_nothing() -> None:
    met = 0

    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal met
        met += 1
        await reader.read(1)
        writer.transport.abort()

    server = await asyncio.start_server(hang_up, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        rule = {"hosts": ["127.0.0.1"], "ports": [port], "methods": ["POST"], "addresses": ["127.0.0.0/8"]}
        desk = Desk(HttpExecutor(), [{"http": {"allow": [rule]}}])
        ended = await desk.attempt(http={"url": f"https://127.0.0.1:{port}/", "method": "POST"})
    assert (met, ended.category, ended.retryable) == (1, "Infrastructure", True), ended


async def test_a_server_of_redis_that_still_loads_its_data_is_asked_again_later() -> None:
    said = []

    async def loading(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            words = [await _word(reader) for _ in range(int(line[1:]))]
            said.append(words[0])
            allowed = {b"MULTI", b"CLIENT", b"HELLO"}
            answer = b"+OK" if words[0] in allowed else b"-LOADING Redis is loading the dataset in memory"
            writer.write((b"-EXECABORT discarded" if words[0] == b"EXEC" else answer) + b"\r\n")
        writer.close()

    server = await asyncio.start_server(loading, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        ended = await end(RedisExecutor(), url, redis={"connection": CONNECTION, "commands": [["INCR", "n"]]})
    assert b"INCR" not in said
    assert (ended.reason, ended.retryable) == ("NotReady", True), ended
    assert "LOADING" in ended.message


@pytest.mark.parametrize(
    ("queued", "ended", "reason", "again"),
    [
        (b"+QUEUED", b"-EXECABORT Transaction discarded because of: CLUSTERDOWN The cluster is down", "NotReady", True),
        (b"-TRYAGAIN Multiple keys request during rehashing of slot", b"-EXECABORT discarded", "NotReady", True),
        (b"-BUSY Valkey is busy running a script.", b"-EXECABORT discarded", "NotReady", True),
        (b"-LOADING Valkey is loading the dataset in memory", b"-EXECABORT discarded", "NotReady", True),
        (b"-MOVED 1 10.0.0.1:6379", b"-EXECABORT discarded", "CommandFailed", False),
        (b"-NOAUTH Authentication required.", b"-EXECABORT discarded", "NotPermitted", False),
        (b"+QUEUED", b"*1\r\n-LOADING said by a script", "CommandFailed", False),
        (b"+QUEUED", b"*1\r\n-TRYAGAIN said by a script", "CommandFailed", False),
    ],
)
async def test_what_a_server_of_redis_refuses(queued: bytes, ended: bytes, reason: str, again: bool) -> None:
    """Before the transaction runs, nothing was done; errors inside its replies are about commands that were
    performed."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        answers = {b"INCR": queued, b"EXEC": ended}
        while line := await reader.readline():
            words = [await _word(reader) for _ in range(int(line[1:]))]
            writer.write(answers.get(words[0], b"+OK") + b"\r\n")
        writer.close()

    server = await asyncio.start_server(answer, "127.0.0.1", 0)
    async with server:
        url = f"redis://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        found = await end(RedisExecutor(), url, redis=increment(read_only=False))
    assert (found.reason, found.retryable) == (reason, again), found
    assert ("nothing was performed" in found.message) is not ended.startswith(b"*")


async def _word(reader: asyncio.StreamReader) -> bytes:
    """Reads one bulk string of a command."""
    size = int((await reader.readline())[1:])
    return (await reader.readexactly(size + 2))[:-2]
