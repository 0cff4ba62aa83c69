"""Tests statements on a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import resource
from collections.abc import AsyncIterator, Iterator
from typing import Any
from urllib.parse import urlsplit

import orjson
import psycopg
import pytest

from remit.backends.breaker import FAILURES
from remit.backends.failure import OperationFailed
from remit.backends.outcome import Outcome
from remit.errors import PolicyDenied
from remit.operations.database import postgres as postgres_module
from remit.operations.database.pools import MOST_CONNECTIONS
from remit.operations.database.postgres import PostgresExecutor
from remit.operations.database.rows import MOST_BYTES
from remit.policy.statements import Statement
from servers import Server, postgres

from .conftest import Desk

CONNECTION = {"name": "db", "key": "url"}
KINDS = ["select", "insert", "update", "delete", "create"]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Server, str]]:
    server, url = postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    yield server, url
    server.stop()


@pytest.fixture
def url(running: tuple[Server, str]) -> str:
    with psycopg.connect(running[1], autocommit=True) as connection:
        connection.execute("DROP TABLE IF EXISTS t")
        connection.execute("CREATE TABLE t (id int PRIMARY KEY, name text)")
    return running[1]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    executor = PostgresExecutor()
    rule = {
        "secrets": ["db"],
        "statements": KINDS,
        "functions": ["set_config", "sneak", "fail", "pg_sleep", "pg_advisory_lock"],
    }
    yield Desk(executor, [{"databases": {"postgres": rule}}])
    await executor.close()


async def run(desk: Desk, url: str, *statements: str | tuple[str, list[str]], **rest: Any) -> list[dict[str, Any]]:
    written = [
        {"sql": statement} if isinstance(statement, str) else {"sql": statement[0], "parameters": statement[1]}
        for statement in statements
    ]
    operation = {"connection": CONNECTION, "statements": written, **rest}
    await desk.do({"connection": url.encode()}, postgres=operation)
    return [orjson.loads(line) for line in desk.output.stdout.splitlines()]


def names(url: str) -> list[str]:
    with psycopg.connect(url) as connection:
        return [row[0] for row in connection.execute("SELECT name FROM t ORDER BY id").fetchall()]


async def test_statements_with_parameters_in_one_transaction(desk: Desk, url: str) -> None:
    inserted, selected = await run(
        desk,
        url,
        ("INSERT INTO t VALUES ($1::int, $2), (2, 'b')", ["1", "a'; DROP TABLE t; --"]),
        "SELECT id, name FROM t ORDER BY id",
    )
    assert (inserted["status"], inserted["rowCount"], inserted["rows"]) == ("INSERT 0 2", 2, [])
    assert selected["rows"] == [{"id": 1, "name": "a'; DROP TABLE t; --"}, {"id": 2, "name": "b"}]


async def test_a_failure_undoes_everything(desk: Desk, url: str) -> None:
    with pytest.raises(OperationFailed, match=r"spec.postgres.statements\[1\]: .*duplicate key.*23505") as caught:
        await run(desk, url, "INSERT INTO t VALUES (1, 'a')", "INSERT INTO t VALUES (1, 'b')")
    assert (caught.value.reason, caught.value.retryable) == ("StatementFailed", False)
    assert names(url) == []


async def test_too_few_parameters_are_no_trouble_of_the_server(desk: Desk, url: str) -> None:
    """The server reports this error with a code that otherwise means a broken connection."""
    for _ in range(FAILURES + 1):
        with pytest.raises(OperationFailed, match=r"statements\[0\]: .*as many parameters") as caught:
            await run(desk, url, ("SELECT $1::int, $2::int", ["1"]))
        assert (caught.value.reason, caught.value.retryable) == ("StatementFailed", False)
    await run(desk, url, "SELECT 1")


async def test_types_json_has_no_word_for(desk: Desk, url: str) -> None:
    (result,) = await run(
        desk, url, "SELECT 1.10::numeric AS n, '\\x00ff'::bytea AS b, '2026-01-02'::date AS d, NULL AS z, 1 AS n"
    )
    assert result["rows"] == [{"n": "1.10", "b": "\\x00ff", "d": "2026-01-02", "z": None, "n_5": 1}]


async def test_rows_and_bytes_are_capped(desk: Desk, url: str) -> None:
    (result,) = await run(desk, url, "SELECT i FROM generate_series(1, 5000) AS i", maxRows=10)
    assert (len(result["rows"]), result["rowCount"], result["truncated"]) == (10, 5000, True)
    (result,) = await run(desk, url, "SELECT repeat('x', 1000) FROM generate_series(1, 5000)", maxBytes="10Ki")
    assert (len(result["rows"]), result["truncated"]) == (10, True)


async def test_a_large_row_is_not_held(desk: Desk, url: str) -> None:
    """Otherwise a statement of four words would make the operator hold gigabytes in memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    insert = "INSERT INTO t VALUES (1, 'undone')"
    for size in (10_000_000, 100_000_000):  # the second statement gets an intact connection
        with pytest.raises(OperationFailed, match="nothing was committed") as caught:
            await run(desk, url, insert, f"SELECT repeat('x', {size})", "SELECT 1")
        assert (caught.value.reason, caught.value.retryable) == ("RowTooLarge", False)
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) << 10 < 12 * MOST_BYTES
    assert names(url) == []
    (result,) = await run(desk, url, f"SELECT repeat('x', {MOST_BYTES - 100000}) FROM generate_series(1, 5)")
    assert (result["rowCount"], result["truncated"]) == (5, True)
    (result,) = await run(desk, url, "SELECT repeat('x', 100) FROM generate_series(1, 100000)")
    assert result["rowCount"] == 100_000


async def test_more_than_is_held_is_refused(desk: Desk, url: str) -> None:
    with pytest.raises(OperationFailed, match=r"^spec.postgres.maxBytes: 1Gi is more than 64Mi"):
        await run(desk, url, "SELECT 1", maxBytes="1Gi")


async def test_the_servers_word_on_what_gives_no_rows(desk: Desk, url: str) -> None:
    made, changed = await run(desk, url, "CREATE TABLE IF NOT EXISTS made (i int)", "INSERT INTO made VALUES (1), (2)")
    assert (made["status"], made["rowCount"]) == ("CREATE TABLE", 0)
    assert (changed["status"], changed["rowCount"]) == ("INSERT 0 2", 2)


async def test_read_only_is_held_by_policy_and_by_the_server(desk: Desk, url: str) -> None:
    with pytest.raises(PolicyDenied, match=r"statements\[0\] is insert, but spec.postgres.readOnly is set"):
        await run(desk, url, "INSERT INTO t VALUES (1, 'a')", readOnly=True)
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION sneak() RETURNS int LANGUAGE sql AS"
            " $$ INSERT INTO t VALUES (9, 'sneaked') RETURNING id $$"
        )
    with pytest.raises(OperationFailed) as caught:
        await run(desk, url, "SELECT sneak()", readOnly=True)
    assert caught.value.reason == "ReadOnly"
    assert names(url) == []
    await run(desk, url, "SELECT sneak()")
    assert names(url) == ["sneaked"]


@pytest.mark.parametrize("setting", ["transaction_read_only", "default_transaction_read_only"])
@pytest.mark.parametrize("local", ["true", "false"])
async def test_read_only_cannot_be_talked_out_of(desk: Desk, url: str, setting: str, local: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION sneak() RETURNS int LANGUAGE sql AS"
            " $$ INSERT INTO t VALUES (9, 'sneaked') RETURNING id $$"
        )
    asked = f"SELECT set_config('{setting}', 'off', {local})"
    with pytest.raises(OperationFailed):
        await run(desk, url, asked, "SELECT sneak()", readOnly=True)
    with pytest.raises(OperationFailed):
        await run(desk, url, "SELECT sneak()", readOnly=True)
    assert names(url) == []


async def test_nothing_of_a_session_is_left_for_the_next_task(desk: Desk, url: str) -> None:
    """The connection is reused; its settings, locks and temporary tables are not."""
    (before,) = await run(
        desk,
        url,
        "SELECT pg_backend_pid() AS pid, set_config('search_path', 'evil', false),"
        " set_config('role', 'pg_monitor', false), pg_advisory_lock(1) IS NULL AS locked",
    )
    (after,) = await run(
        desk,
        url,
        "SELECT pg_backend_pid() AS pid, current_setting('search_path') AS path, current_setting('role') AS role,"
        " (SELECT count(*) FROM pg_locks WHERE locktype = 'advisory') AS locks",
    )
    assert after["rows"] == [{"pid": before["rows"][0]["pid"], "path": '"$user", public', "role": "none", "locks": 0}]


async def test_many_statements_on_one_connection(desk: Desk, url: str) -> None:
    """The session is discarded after each task, including statements that the driver had prepared in it."""
    for _ in range(30):
        await run(desk, url, "SELECT 1")
    (result,) = await run(desk, url, "SELECT count(*)::int AS prepared FROM pg_prepared_statements")
    assert result["rows"] == [{"prepared": 0}]


async def test_tasks_wait_for_a_connection(desk: Desk, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tasks wait within their own timeout, because a pool whose connections are all in use is not a failure of the
    server."""

    def attempt(sql: str, seconds: float = 60) -> asyncio.Task[Outcome]:
        operation = {"connection": CONNECTION, "statements": [{"sql": sql}]}
        return asyncio.create_task(desk.attempt({"connection": url.encode()}, seconds=seconds, postgres=operation))

    slow = [attempt("SELECT pg_sleep(600) /* long */") for _ in range(MOST_CONNECTIONS)]
    await _sleeping(url, count=MOST_CONNECTIONS)
    with monkeypatch.context() as patch:
        patch.setattr(postgres_module, "_CONNECT_SECONDS", 0.5)
        waiting = [attempt("SELECT 1") for _ in range(FAILURES + 1)]
        ended = await attempt("SELECT 1", seconds=1.5)
    assert (ended.reason, ended.retryable) == ("Timeout", True)
    assert ended.message.endswith(f"all {MOST_CONNECTIONS} connections for this Secret were in use by other tasks")
    for task in slow:
        task.cancel()
    assert {(await task).reason for task in waiting} == {"Completed"}
    assert desk.executor.breaker is not None
    assert desk.executor.breaker.open() == []


async def test_a_transaction_that_cannot_go_on_is_tried_again(desk: Desk, url: str) -> None:
    """This includes transactions that the server itself rolled back: a deadlock, and its own shutdown during a
    statement."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO t VALUES (1, 'a'), (2, 'b')")
    with psycopg.connect(url) as other, psycopg.connect(url, autocommit=True) as admin:
        other.execute("UPDATE t SET name = 'c' WHERE id = 2")
        first, second = (f"UPDATE t SET name = 'd' WHERE id = {number}" for number in (1, 2))
        operation = {"connection": CONNECTION, "statements": [{"sql": first}, {"sql": second}]}
        for end in ("deadlock", "shutdown"):
            doing = asyncio.create_task(desk.attempt({"connection": url.encode()}, postgres=operation))
            waiting = "SELECT pid FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query = ANY(%s)"
            async with asyncio.timeout(30):
                while (found := admin.execute(waiting, [[first, second]]).fetchone()) is None:
                    await asyncio.sleep(0.02)
            if end == "deadlock":
                other.execute("SET deadlock_timeout = '60s'")
                await asyncio.to_thread(other.execute, "UPDATE t SET name = 'e' WHERE id = 1")
            else:
                admin.execute("SELECT pg_terminate_backend(%s)", found)
            ended = await doing
            assert (ended.reason, ended.retryable) == ("StatementFailed", True), ended
            assert ("40P01" if end == "deadlock" else "57P01") in ended.message
            assert ended.category == ("Operation" if end == "deadlock" else "Infrastructure")


AUTOCOMMIT = {"autocommit": True}


async def test_statements_outside_of_a_transaction(desk: Desk, url: str) -> None:
    desk.policies[0]["databases"]["postgres"]["statements"] = [*KINDS, "vacuum"]
    index, vacuum = "CREATE INDEX CONCURRENTLY i ON t (name)", "VACUUM t"
    for sql in (index, vacuum):
        with pytest.raises(OperationFailed, match="cannot run inside a transaction block") as caught:
            await run(desk, url, sql)
        assert (caught.value.reason, caught.value.retryable) == ("StatementFailed", False)
    results = await run(desk, url, index, ("INSERT INTO t VALUES ($1::int, 'a')", ["1"]), vacuum, **AUTOCOMMIT)
    assert [result.get("status") for result in results] == ["CREATE INDEX", "INSERT 0 1", None]
    (after,) = await run(desk, url, "SELECT current_setting('statement_timeout') AS t, count(*)::int AS n FROM t")
    assert after["rows"] == [{"t": "30s", "n": 1}]


async def test_what_was_sent_outside_of_a_transaction_is_not_repeated(desk: Desk, url: str) -> None:
    """Not even after a conflict: a statement with several transactions keeps the effects of the first ones."""
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(
            "CREATE OR REPLACE FUNCTION fail() RETURNS int LANGUAGE plpgsql AS"
            " $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '40001'; END $$"
        )
    statements = [{"sql": "INSERT INTO t VALUES (1, 'a')"}, {"sql": "SELECT fail()"}]
    for extra, again, kept in (({}, True, []), (AUTOCOMMIT, False, ["a"])):
        operation = {"connection": CONNECTION, "statements": statements, **extra}
        ended = await desk.attempt({"connection": url.encode()}, postgres=operation)
        assert (ended.reason, ended.retryable) == ("StatementFailed", again)
        assert names(url) == kept
    assert "; 1 statements took place, and the next one may have" in ended.message


@pytest.mark.parametrize(
    ("sql", "kind"),
    [
        ("CREATE DATABASE x", "create database"),
        ("create /* */ tablespace x LOCATION '/tmp'", "create tablespace"),
        ("DROP DATABASE x", "drop database"),
        ("ALTER SYSTEM SET work_mem = '1MB'", "alter system"),
        ("CREATE SUBSCRIPTION s CONNECTION 'host=x' PUBLICATION p", "create subscription"),
        ("VACUUM t", "vacuum"),
        ("REINDEX TABLE CONCURRENTLY t", "reindex"),
        ("CALL p()", "call"),
        ("DO $$ BEGIN COMMIT; END $$", "do"),
    ],
)
async def test_what_runs_outside_of_a_transaction_is_judged_as_what_it_is(
    desk: Desk, url: str, sql: str, kind: str
) -> None:
    """`create` and similar kinds are about objects inside one database."""
    desk.policies[0]["databases"]["postgres"]["statements"] = [*KINDS, "drop", "alter"]
    with pytest.raises(PolicyDenied, match=f"does not allow {kind} "):
        await run(desk, url, sql, **AUTOCOMMIT)


async def test_rows_that_are_copied_out(desk: Desk, url: str) -> None:
    desk.policies[0]["databases"]["postgres"]["statements"] = [*KINDS, "copy"]
    copy = "COPY (SELECT i, 'é' FROM generate_series(1, 3) AS i) TO STDOUT"
    inserted, text, binary = await run(
        desk, url, "INSERT INTO t VALUES (1, 'a')", f"{copy} WITH (FORMAT csv)", f"{copy} WITH (FORMAT binary)"
    )
    assert inserted["status"] == "INSERT 0 1"
    assert text == {"statement": 1, "status": "COPY 3", "rowCount": 3, "truncated": False, "data": "1,é\n2,é\n3,é\n"}
    assert bytes.fromhex(binary["data"]["hex"]).startswith(b"PGCOPY\n\xff")
    (capped,) = await run(desk, url, copy, maxRows=2)
    assert (capped["data"], capped["rowCount"], capped["truncated"]) == ("1\té\n2\té\n", 3, True)
    (capped,) = await run(desk, url, copy, maxBytes="6")
    assert (capped["data"], capped["truncated"]) == ("1\té\n", True)
    (alone,) = await run(desk, url, copy, **AUTOCOMMIT)
    assert alone["rowCount"] == 3
    with pytest.raises(OperationFailed, match="nothing was committed") as caught:
        await run(desk, url, f"COPY (SELECT repeat('x', {2 * MOST_BYTES})) TO STDOUT")
    assert caught.value.reason == "RowTooLarge"
    assert names(url) == ["a"]


async def test_copying_in_is_refused(desk: Desk, url: str) -> None:
    desk.policies[0]["databases"]["postgres"]["statements"] = ["copy"]
    with pytest.raises(PolicyDenied, match="there is nothing to read; use INSERT"):
        await run(desk, url, "COPY t FROM STDIN")
    with pytest.raises(OperationFailed, match="could not open file") as caught:
        await run(desk, url, "COPY t FROM '/nothing/here'")
    assert (caught.value.reason, caught.value.category) == ("StatementFailed", "Operation")


async def test_a_long_statement_ends_on_the_server_too(desk: Desk, url: str) -> None:
    work = desk.work(
        {"connection": url.encode()},
        postgres={"connection": CONNECTION, "statements": [{"sql": "SELECT pg_sleep(600) /* long */"}]},
    )
    doing = asyncio.create_task(desk.executor.execute(work, desk.output))
    await _sleeping(url, count=1)
    doing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await doing
    await _sleeping(url, count=0)


async def _sleeping(url: str, count: int) -> None:
    query = "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query LIKE '%pg_sleep(600)%/* long */'"
    async with asyncio.timeout(30), await psycopg.AsyncConnection.connect(url, autocommit=True) as connection:
        while True:
            row = await (await connection.execute(query)).fetchone()
            if row is not None and row[0] == count:
                return
            await asyncio.sleep(0.02)


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("DROP TABLE t", "does not allow drop"),
        ("SELECT 1; DROP TABLE t", "holds more than one statement"),
        ("COPY t TO PROGRAM 'id'", "does not allow copy"),
        ("DO $$ BEGIN END $$", "does not allow do"),
        ("SET ROLE postgres", "does not allow set"),
        ("BEGIN", "does not allow begin"),
        ("EXPLAIN ANALYZE DELETE FROM t", "does not allow explain"),
        ("WITH x AS (DELETE FROM t RETURNING *) MERGE INTO t USING x ON t.id = x.id WHEN MATCHED THEN DELETE", "merge"),
        ("", "at least 1"),
        ("SELECT (", "parentheses do not match"),
    ],
)
async def test_kinds_of_statement_are_allowed_one_by_one(desk: Desk, url: str, sql: str, told: str) -> None:
    with pytest.raises(Exception, match=told):
        await run(desk, url, sql)


async def test_the_server_takes_one_statement_at_a_time(desk: Desk, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """This must hold even if the policy's parser were deceived."""
    statement = Statement(frozenset({"select"}), (), gives_no_rows=False, copies=False)
    monkeypatch.setattr("remit.policy.statements._read", lambda sql: statement)
    with pytest.raises(OperationFailed, match="multiple commands"):
        await run(desk, url, "SELECT 1; DROP TABLE t")
    assert names(url) == []


async def test_another_secret(desk: Desk, url: str) -> None:
    with pytest.raises(PolicyDenied, match=r"connection in Secret other; spec.databases.postgres.secrets has db"):
        await run(desk, url, "SELECT 1", connection={"name": "other", "key": "url"})


@pytest.mark.parametrize(
    ("secret", "told"),
    [
        ("mysql://h/x", "begins with postgres"),
        ("postgresql:///x?host=/var/run/postgresql", "must name a host"),
        ("postgresql://%2Fvar%2Frun/x", "sockets of the operator's own machine are closed"),
        ("postgresql://h/x?sslkey=/etc/shadow", "and no others"),
        ("postgresql://h/x?options=-c%20x%3Dy", "and no others"),
        ("postgresql://a,b/x", "one host"),
        ("\udcff", "not a URL"),
    ],
)
async def test_what_a_connection_may_say(desk: Desk, secret: str, told: str) -> None:
    with pytest.raises(OperationFailed, match=told) as caught:
        await desk.do(
            {"connection": secret.encode("utf-8", "surrogateescape")},
            postgres={"connection": CONNECTION, "statements": [{"sql": "SELECT 1"}]},
        )
    assert secret not in str(caught.value)


@pytest.mark.parametrize(
    ("right", "wrong", "told"),
    [
        ("canary-password", "canary-wrong", 'password authentication failed for user "admin"'),
        ("/postgres", "/shop", 'database "shop" does not exist'),
        ("@127.0.0.1", "@nobody.invalid", "the name of the server's host leads to no address"),
        (":PORT/", ":1/", "Connection refused"),
    ],
    ids=["password", "database", "host", "port"],
)
async def test_a_failed_connection_is_reported_without_a_secret(
    desk: Desk, url: str, right: str, wrong: str, told: str
) -> None:
    right = right.replace("PORT", str(urlsplit(url).port))
    assert right in url
    with pytest.raises(OperationFailed) as caught:
        await run(desk, url.replace(right, wrong), "SELECT 1")
    assert (caught.value.reason, caught.value.retryable) == ("ConnectFailed", True)
    assert told in str(caught.value)
    assert "canary" not in str(caught.value)


async def test_a_changed_secret_is_a_new_pool(desk: Desk, url: str) -> None:
    await run(desk, url, "SELECT 1")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE other LOGIN PASSWORD 'canary-other'")
    (result,) = await run(
        desk, url.replace("admin:canary-password", "other:canary-other"), "SELECT current_user::text AS who"
    )
    assert result["rows"] == [{"who": "other"}]


async def test_a_server_that_is_killed_in_mid_transaction(desk: Desk, running: tuple[Server, str], url: str) -> None:
    server, _ = running
    doing = asyncio.create_task(run(desk, url, "INSERT INTO t VALUES (1, 'lost')", "SELECT pg_sleep(600) /* long */"))
    await _sleeping(url, count=1)
    await asyncio.to_thread(server.stop)
    with pytest.raises(OperationFailed) as caught:
        await doing
    assert (caught.value.reason, caught.value.retryable, caught.value.category) == (
        "ConnectionLost",
        True,
        "Infrastructure",
    )
    await asyncio.to_thread(server.start)
    async with asyncio.timeout(60):
        while True:  # recovery takes a moment
            try:
                await run(desk, url, "INSERT INTO t VALUES (2, 'kept')")
                break
            except OperationFailed as failed:
                assert failed.category == "Infrastructure"
                await asyncio.sleep(0.2)
    assert names(url) == ["kept"]
