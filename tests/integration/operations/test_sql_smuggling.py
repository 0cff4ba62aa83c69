"""Tests statements that a parser and a real PostgreSQL server read differently."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator, Iterator
from typing import Any

import psycopg
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from remit.backends.failure import OperationFailed
from remit.errors import PolicyDenied
from remit.operations.database.postgres import PostgresExecutor
from remit.policy.sqlfunctions import KEYWORDS, READING, SYNTAX, VOLATILE
from remit.policy.statements import read_statement
from servers import Server, postgres
from support import repetitions

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
    """Provides an executor under a policy that allows only `select`, as a superuser of the server."""
    executor = PostgresExecutor()
    yield Desk(executor, [{"databases": {"postgres": {"secrets": ["db"], "statements": ["select"]}}}])
    await executor.close()


async def run(desk: Desk, url: str, *statements: str, **rest: Any) -> None:
    operation = {"connection": CONNECTION, "statements": [{"sql": sql} for sql in statements], **rest}
    await desk.do({"connection": url.encode()}, postgres=operation)


def rows(url: str) -> int:
    with psycopg.connect(url) as connection:
        return len(connection.execute("SELECT 1 FROM t").fetchall())


@pytest.mark.parametrize("sql", HIDDEN.values(), ids=HIDDEN)
async def test_a_statement_cannot_be_hidden_from_the_parser(desk: Desk, url: str, sql: str) -> None:
    with contextlib.suppress(PolicyDenied, OperationFailed):  # the text may also be a string for the server
        await run(desk, url, sql)
    assert rows(url) == 1


@pytest.mark.parametrize(("setting", "value"), [("standard_conforming_strings", "off"), ("client_encoding", "SJIS")])
async def test_the_rules_of_reading_stay_as_they_are(desk: Desk, url: str, setting: str, value: str) -> None:
    """With backslash escapes, what reads as a string is code. This also applies if a policy allows changing
    settings."""
    sql = f"WITH x AS (SELECT 'a\\' , ' ), y AS ({WRITES}) SELECT 1 --') SELECT 1 FROM x"
    change = f"SELECT set_config('{setting}', '{value}', true)"
    with pytest.raises(PolicyDenied, match="calls set_config, a function that is not known to only read"):
        await run(desk, url, change, sql)
    desk.policies[0]["databases"]["postgres"]["functions"] = ["set_config"]
    with pytest.raises(OperationFailed, match=rf"statements\[1\]: {setting} is no longer") as caught:
        await run(desk, url, change, sql)
    assert (caught.value.reason, caught.value.retryable) == ("ReadDifferently", False)
    assert rows(url) == 1


async def test_the_servers_own_setting_does_not_change_what_is_read(desk: Desk, url: str) -> None:
    """The role's own settings enable backslash escapes."""
    sql = f"WITH x AS (SELECT 'a\\' , ' ), y AS ({WRITES}) SELECT 1 --') SELECT 1 FROM x"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("ALTER ROLE admin SET standard_conforming_strings = off")
    try:
        with pytest.raises(OperationFailed):  # as the policy reads it, x has two columns without a name
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
    "a sequence": "SELECT setval('s', 5)",
    "the same, a step": "SELECT nextval('s')",
    "a lock": "SELECT pg_advisory_lock(1)",
    "the log": "SELECT pg_log_standby_snapshot()",
    "the server's settings": "SELECT * FROM pg_hba_file_rules()",
    "what somebody created": "SELECT public.change()",
    "the same with a list of columns": "SELECT * FROM change() AS (a int)",
    "in an expression of DISTINCT": "SELECT DISTINCT ON (1) change() FROM t",
    "as a column of a value": "SELECT ('/etc/passwd'::text).pg_read_file",
    "as a column of an element": "SELECT a[1].pg_read_file FROM (VALUES (ARRAY['/etc/passwd'])) AS v(a)",
    "as a column of what a function gives": "SELECT x.pg_read_file FROM lower('/etc/passwd') AS x",
    "in a list of rows": "SELECT * FROM ROWS FROM (change(), lower('x'))",
    "in the place of a table": "SELECT * FROM t, LATERAL change()",
}


@pytest.mark.parametrize("sql", REACHING.values(), ids=REACHING)
async def test_a_function_that_reaches_further_has_to_be_named(desk: Desk, url: str, sql: str) -> None:
    with pytest.raises(PolicyDenied, match=r"needs `databases: \{postgres: \{functions: \["):
        await run(desk, url, sql)
    assert desk.output.stdout == b""


@pytest.mark.parametrize(
    ("sql", "told"),
    [
        ("SELECT U&\"pg\\005fread_file\"('/etc/passwd')", "write the characters themselves"),
        ("SELECT 1 \0", "NUL"),
        ("SELECT 1 /* /* */", "comment does not end"),
        ("SELECT $a$ $b$", r"string after \$a\$ does not end"),
        ("SELECT a\u00a0b", "a space other than the plain one"),
        ("SELECT 'a\u3164'", "an invisible character"),
        ("SELECT 1 -- \u202e", "an invisible format character"),
        ("SELECT a⁴", "double quotes"),
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
    """This also applies if the policy allows that statement and deleting."""
    rule = desk.policies[0]["databases"]["postgres"]
    rule["statements"] = ["select", "delete", "set", "reset", "rollback", "commit"]
    with pytest.raises(PolicyDenied, match=r"readOnly is set"):
        await run(desk, url, sql, WRITES, readOnly=True)
    assert rows(url) == 1


async def test_parameters_do_not_become_part_of_a_copy(desk: Desk, url: str) -> None:
    """The driver would insert them for `%s`, even within quotes."""
    desk.policies[0]["databases"]["postgres"]["statements"] = ["copy", "select"]
    statement = {"sql": "COPY (SELECT '%s') TO STDOUT", "parameters": ["|| pg_read_file($$/etc/passwd$$) ||"]}
    with pytest.raises(OperationFailed, match="COPY takes no parameters"):
        await desk.do({"connection": url.encode()}, postgres={"connection": CONNECTION, "statements": [statement]})
    assert desk.output.stdout == b""


@pytest.mark.parametrize("sql", ["SELECT 1; DROP TABLE t", "COPY (SELECT 1) TO STDOUT; DROP TABLE t"])
async def test_the_server_takes_one_statement_at_a_time(
    desk: Desk, url: str, monkeypatch: pytest.MonkeyPatch, sql: str
) -> None:
    """This also applies if the policy read it as one statement."""
    first = read_statement(sql.partition(";")[0])
    for module in ("remit.policy.rules.databases", "remit.operations.database.postgres"):
        monkeypatch.setattr(f"{module}.read_statement", lambda _: first)
    desk.policies[0]["databases"]["postgres"]["statements"] = ["copy", "select"]
    with pytest.raises(OperationFailed, match="multiple commands"):
        await run(desk, url, sql)
    assert rows(url) == 1


READS = """
    SELECT count(*), now(), lower('X'), json_agg(id), string_agg(id::text, ', ' ORDER BY id),
      coalesce(sum(id), 0)::numeric(9, 2), date_trunc('day', now()),
      to_char(now(), 'YYYY'), extract(year FROM clock_timestamp()), array_agg(id) FILTER (WHERE id > 0),
      max(id) OVER (w),
      greatest(1, 2), regexp_replace('a', 'b', 'c'), pg_size_pretty(pg_database_size(current_database())), random() < 1,
      CASE WHEN exists (SELECT 1 FROM t) THEN substring('abc' FROM 2) ELSE trim(BOTH FROM ' x ') END
    FROM (VALUES (1), (2)) AS v(id) JOIN LATERAL (SELECT 1) AS o(k) ON (true)
    GROUP BY v.id WINDOW w AS (PARTITION BY (v.id)) ORDER BY (1) LIMIT (1)
"""


async def test_what_only_reads_needs_no_entry(desk: Desk, url: str) -> None:
    await run(desk, url, READS, "WITH a(x) AS (SELECT 1), b(y) AS (SELECT 2) SELECT generate_series(1, 3) FROM a, b")
    assert desk.output.stdout.count(b'"rowCount":') == 2


async def test_user_defined_functions_may_be_named_with_their_schema(desk: Desk, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE OR REPLACE FUNCTION one() RETURNS int LANGUAGE sql AS 'SELECT 1'")
    desk.policies[0]["databases"]["postgres"]["functions"] = ["public.on*"]
    await run(desk, url, "SELECT public.one()")
    with pytest.raises(PolicyDenied, match=r'functions: \["public.on\*", "one"\]'):
        await run(desk, url, "SELECT one()")


CATALOG = """
    SELECT p.proname,
      bool_and(p.provolatile <> 'v' AND p.prokind <> 'p'),
      bool_and(has_function_privilege('nobody', p.oid, 'EXECUTE')),
      bool_and('internal'::regtype::oid = ANY (p.proargtypes))
    FROM pg_proc p WHERE p.pronamespace = 'pg_catalog'::regnamespace GROUP BY 1
"""


def test_the_functions_that_need_no_entry_are_those_that_the_server_says_only_read(running: tuple[Server, str]) -> None:
    with psycopg.connect(running[1], autocommit=True) as connection:
        connection.execute("CREATE ROLE nobody")
        try:
            rows = connection.execute(CATALOG).fetchall()
        finally:
            connection.execute("DROP ROLE nobody")
        keywords = dict(connection.execute("SELECT word, catcode::text FROM pg_get_keywords()").fetchall())
    catalog = {name: (stable, public) for name, stable, public, _ in rows}
    known = READING & catalog.keys()
    assert len(known) > 500
    assert {name for name in known if not catalog[name][0]} == VOLATILE & known
    assert {name for name in known if not catalog[name][1]} == set()
    # Words that are skipped as syntax are reserved, or the server has functions with that name for internal use only.
    assert {word for word in KEYWORDS if keywords.get(word, "R") not in "RC"} == set()
    callable_ = {name for name, _, _, internal in rows if not internal}
    assert (SYNTAX - KEYWORDS) & callable_ - READING == {"like"}


BODIES = ["SELECT 1 AS a", "DELETE FROM t RETURNING id AS a", "TABLE t", "UPDATE t SET id = 2 RETURNING 1 AS a"]
TAILS = ["", "SEARCH DEPTH FIRST BY a SET key", "CYCLE a SET update USING key", "CYCLE a SET b USING values"]
ENDS = [
    "SELECT 1",
    "DELETE FROM t",
    "(SELECT 1)",
    "VALUES (1)",
    "UPDATE t SET id = 3",
    "SELECT 1 insert INTO n",
    "TABLE t",
]
ENDS += ["INSERT INTO t SELECT 2", "MERGE INTO t USING t u ON true WHEN MATCHED THEN DELETE", "SELECT a INTO n FROM x"]
STATE = "SELECT count(*), sum(id), to_regclass('n') FROM t"
PREFIXES = ["", "EXPLAIN ", "EXPLAIN ANALYZE ", "EXPLAIN (ANALYZE, VERBOSE) ", "(", "/* ( */ "]


def test_what_changes_data_for_the_server_does_so_for_policy(url: str) -> None:
    """For any statement that the server performs: a statement that the policy reads as a query leaves all tables
    unchanged."""
    with psycopg.connect(url) as connection:

        @settings(max_examples=repetitions(40, soak=5000), deadline=None, database=None)
        @given(*map(st.sampled_from, (PREFIXES, BODIES, TAILS, ENDS)), st.sampled_from([0, 1, 2]))
        def holds(prefix: str, body: str, tail: str, end: str, query: int) -> None:
            start = "SELECT 1 AS a UNION ALL SELECT a + 1 FROM x WHERE a < 2" if tail else body
            queries = ["", f"WITH RECURSIVE x(a) AS ({start}) {tail} ", f"WITH x AS MATERIALIZED ({body}) "]
            sql = f"{prefix}{queries[query]}{end}{')' if prefix == '(' else ''}"
            before = connection.execute(STATE).fetchone()
            try:
                connection.execute(sql)
                changed = connection.execute(STATE).fetchone() != before
            except psycopg.Error:
                changed = False
            connection.rollback()
            assert not changed or not read_statement(sql).kinds <= {"select", "explain"}, sql

        holds()
