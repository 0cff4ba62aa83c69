"""Kinds of SQL statement, told by a real parser."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.policy.statements import READING, UnreadableStatement, kinds


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select 1", {"select"}),
        ("(SELECT 1) UNION (SELECT 2)", {"select"}),
        ("WITH x AS (SELECT 1) SELECT * FROM x", {"select"}),
        ("with x as (delete from t returning *) select * from x", {"select", "delete"}),
        ("WITH x AS (SELECT 1 AS a) INSERT INTO t SELECT a FROM x", {"insert"}),
        ("select * into n from t", {"select", "create"}),
        ("values (1), (2)", {"select"}),
        ("table t", {"select"}),
        ("insert into t values ($1) on conflict do nothing", {"insert"}),
        ("update t set a = (select 1)", {"update"}),
        ("create table n as select 1", {"create"}),
        ("truncate t", {"truncate"}),
        ("copy t to program 'id'", {"copy"}),
        ("explain select 1", {"explain", "select"}),
        ("EXPLAIN (ANALYZE, BUFFERS) DELETE FROM t", {"explain", "delete"}),
        ("explain analyze with x as (update t set a=1 returning *) select * from x", {"explain", "select", "update"}),
        ("do $$ begin end $$", {"do"}),
        ("call f()", {"call"}),
        ("set role postgres", {"set"}),
        ("begin", {"begin"}),
        ("vacuum", {"vacuum"}),
        ("show all", {"show"}),
        ("prepare p as delete from t", {"prepare"}),
        ("refresh materialized view v", {"refresh"}),
        ("select '; drop table t' /* ; drop */ -- ; drop", {"select"}),
        ("select $tag$; drop table t$tag$", {"select"}),
    ],
)
def test_kinds(sql: str, expected: set[str]) -> None:
    assert kinds(sql) == expected


@pytest.mark.parametrize("sql", ["", ";", "--", "select 1; select 2", "select (", "'x'", "explain", "explain foo bar"])
def test_what_is_not_one_statement(sql: str) -> None:
    with pytest.raises(UnreadableStatement):
        kinds(sql)


WORDS = "select insert into delete from t with x as ( ) ; , * $1 returning explain analyze copy program 'a' $$ -- /* */"


@given(st.lists(st.sampled_from(WORDS.split()), max_size=12).map(" ".join))
def test_nothing_that_changes_reads_as_reading(sql: str) -> None:
    try:
        found = kinds(sql)
    except UnreadableStatement:
        return
    if found <= READING:
        assert not sql.startswith(("insert", "delete", "copy"))
        assert found


def test_what_is_code_for_the_server_is_seen() -> None:
    between = "1 #-- ' \n - 2"
    sql = f"with x as (select {between}), y as (delete from t returning 1), z as (select {between}) select 1"
    assert kinds(sql) == {"select", "delete"}
