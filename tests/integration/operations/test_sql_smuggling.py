"""Statements that read as one thing to a parser and as another to a real PostgreSQL server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest

from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.operations.database import PostgresPerformer
from servers import Server, postgres

from .conftest import Desk

CONNECTION = {"name": "db", "key": "url"}
WRITES = "DELETE FROM t RETURNING 1"
HIDDEN = {
    "an operator that runs into a comment": f"WITH x AS (SELECT 1 #-- ' \n - 2), y AS ({WRITES}),"
    " z AS (SELECT 1 #-- ' \n - 2) SELECT 1",
    "a string of escapes that goes on in another line": "WITH x AS (SELECT E'a'\n'\\' , ' ), y AS ("
    f"{WRITES}) SELECT 1 --') SELECT 1",
    "the same with a comment between": "WITH x AS (SELECT E'a' -- b\n'\\', ''), y AS ("
    f"{WRITES}) SELECT 1 --') SELECT 1",
    "a template's comment": f"WITH x AS (SELECT 1 AS a /* {{# */), y AS ({WRITES}) SELECT 1 /* #}} */",
}


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
        connection.execute("CREATE TABLE t (id int)")
        connection.execute("INSERT INTO t VALUES (1)")
    return running[1]


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    """Under a policy that allows `select` and nothing else, as a superuser of the server."""
    performer = PostgresPerformer()
    yield Desk(performer, [{"databases": {"postgres": {"secrets": ["db"], "statements": ["select"]}}}])
    await performer.close()


async def run(desk: Desk, url: str, *statements: str, **rest: Any) -> None:
    operation = {"connection": CONNECTION, "statements": [{"sql": sql} for sql in statements], **rest}
    await desk.do({"connection": url.encode()}, postgres=operation)


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        return len(connection.execute("SELECT 1 FROM t").fetchall())


@pytest.mark.parametrize("sql", HIDDEN.values(), ids=HIDDEN)
async def test_a_statement_cannot_be_hidden_from_the_parser(desk: Desk, url: str, sql: str) -> None:
    with pytest.raises((PolicyDenied, OperationFailed)):
        await run(desk, url, sql)
    assert rows(url) == 1


@pytest.mark.parametrize(("setting", "value"), [("standard_conforming_strings", "off"), ("client_encoding", "SJIS")])
async def test_the_rules_of_reading_stay_as_they_are(desk: Desk, url: str, setting: str, value: str) -> None:
    """With backslashes that escape, what reads as a string is code: also where a policy lets settings be changed."""
    sql = f"WITH x AS (SELECT 'a\\' , ' ), y AS ({WRITES}) SELECT 1 --') SELECT 1 FROM x"
    change = f"SELECT set_config('{setting}', '{value}', true)"
    with pytest.raises(PolicyDenied, match="set_config, which changes settings, as SET does"):
        await run(desk, url, change, sql)
    desk.policies[0]["databases"]["postgres"]["functions"] = ["set_config"]
    with pytest.raises(OperationFailed, match=rf"statements\[1\]: {setting} is no longer") as caught:
        await run(desk, url, change, sql)
    assert (caught.value.reason, caught.value.retryable) == ("ReadDifferently", False)
    assert rows(url) == 1


async def test_the_servers_own_setting_does_not_change_what_is_read(desk: Desk, url: str) -> None:
    """A role for which backslashes escape, by its own settings."""
    sql = f"WITH x AS (SELECT 'a\\' , ' ), y AS ({WRITES}) SELECT 1 --') SELECT 1 FROM x"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER ROLE admin SET standard_conforming_strings = off")
    try:
        with pytest.raises(OperationFailed):  # as it is read, x has two columns without a name
            await run(desk, url, f"{sql} WHERE nothing")
        assert rows(url) == 1
    finally:
        with psycopg.connect(url, autocommit=True) as connection:
            connection.execute("ALTER ROLE admin RESET standard_conforming_strings")


REACHING = {
    "the server's files": "SELECT pg_read_file('/etc/passwd')",
    "the same by another spelling": 'SELECT "pg_catalog" . "pg_read_file" /* */ (\'/etc/passwd\')',
    "a folder of the server": "SELECT * FROM PG_LS_DIR('/')",
    "a large object from a file": "SELECT lo_import('/etc/passwd')",
    "a file from a large object": "SELECT lo_export(1, '/tmp/x')",
    "another server": "SELECT * FROM dblink('host=127.0.0.1', 'DROP TABLE t') AS r (a int)",
    "SQL from a string": "SELECT query_to_xml('SELECT pg_read_file(''/etc/passwd'')', true, true, '')",
    "SQL from a text search": "SELECT * FROM ts_stat('SELECT to_tsvector(pg_read_file(''/etc/passwd''))')",
    "another role": "SELECT set_config('role', 'pg_read_all_data', true)",
    "replication's rights": "SELECT set_config('session_replication_role', 'replica', true)",
    "other sessions": "SELECT pg_terminate_backend(pid) FROM pg_stat_activity",
    "a notification": "SELECT pg_notify('c', 'x')",
    "values": "VALUES (pg_read_file('/etc/passwd'))",
}


@pytest.mark.parametrize("sql", REACHING.values(), ids=REACHING)
async def test_a_function_that_reaches_further_has_to_be_named(desk: Desk, url: str, sql: str) -> None:
    with pytest.raises(PolicyDenied, match=r"would have to name it in spec\.databases\.postgres\.functions"):
        await run(desk, url, sql)
    assert desk.output.stdout == b""


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT U&\"pg\\005fread_file\"('/etc/passwd')", "write the characters themselves"),
        ("SELECT 1 \0", "NUL"),
        ("SELECT 1 /* /* */", "comment does not end"),
        ("SELECT $a$ $b$", r"string after \$a\$ does not end"),
        ("SELECT a\u00a0b", "double quotes"),
    ],
)
async def test_what_can_be_read_in_two_ways_is_refused(desk: Desk, url: str, sql: str, told: str) -> None:
    with pytest.raises(PolicyDenied, match=told):
        await run(desk, url, sql)


async def test_a_function_that_is_named_may_be_called(desk: Desk, url: str) -> None:
    desk.policies[0]["databases"]["postgres"]["functions"] = ["pg_read_file"]
    await run(desk, url, "SELECT length(pg_read_file('/etc/passwd')) > 0 AS found")
    assert b'"found":true' in desk.output.stdout


@pytest.mark.parametrize(
    "sql",
    [
        "SET TRANSACTION READ WRITE",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "SET LOCAL transaction_read_only = off",
        "ROLLBACK",
        "COMMIT",
        "RESET ALL",
    ],
)
async def test_read_only_is_not_lifted_by_a_statement(desk: Desk, url: str, sql: str) -> None:
    """Even where the policy allows that statement, and deleting."""
    rule = desk.policies[0]["databases"]["postgres"]
    rule["statements"] = ["select", "delete", "set", "reset", "rollback", "commit"]
    with pytest.raises(PolicyDenied, match=r"readOnly is set"):
        await run(desk, url, sql, WRITES, readOnly=True)
    assert rows(url) == 1
