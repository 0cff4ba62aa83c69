"""Tests the kinds of SQL statements, and the functions that they call."""

from __future__ import annotations

import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.policy import statements
from remit.policy.sqlfunctions import KEYWORDS
from remit.policy.sqlfunctions import READING as READING_FUNCTIONS
from remit.policy.statements import MOST_FUNCTIONS, READING, UnreadableStatement, read_statement


def kinds(sql: str) -> frozenset[str]:
    return read_statement(sql).kinds


def functions(sql: str) -> list[str]:
    return [str(function) for function in read_statement(sql).functions]


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
        ("create database d", {"create database"}),
        ("ALTER /* */ SYSTEM SET a = 1", {"alter system"}),
        ("explain select 1", {"explain", "select"}),
        ("EXPLAIN (ANALYZE, BUFFERS) DELETE FROM t", {"explain", "delete"}),
        ("explain analyze with x as (update t set a=1 returning *) select * from x", {"explain", "select", "update"}),
        ("do $$ begin end $$", {"do"}),
        ("call f()", {"call"}),
        ("set role postgres", {"set"}),
        ("begin", {"begin"}),
        ("vacuum", {"vacuum"}),
        ("show all", {"show"}),
        ("prepare p as delete from t", {"prepare", "delete"}),
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


WORDS = (
    "select insert into delete from t with x as ( ) . ; , * $1 returning explain analyze copy program 'a' $$ -- /* */"
)


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


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("with recursive x as (select 1 a) search depth first by a set ord delete from t", {"delete"}),
        ("with recursive x as (select 1 a) cycle a set key using key delete from t", {"delete"}),
        ("with x as (select 1) (select 2)", {"select"}),
        ("select a insert into n from t", {"select", "insert", "create"}),
        ("select (1) insert into n from t", {"select", "insert", "create"}),
        ("with recursive x as (select 1 a) cycle a set insert using b select a into n from x", {"select", "create"}),
        ("(with x as (select 1) select (1) insert into n from x)", {"select", "insert", "create"}),
        ("with x as (insert into t values (1) returning *) select * from x", {"select", "insert"}),
        ("copy (delete from t returning *) to stdout", {"copy", "delete"}),
        ("insert into t values (1) on conflict (id) do update set a = 2", {"insert"}),
        ("select * from t for update", {"select"}),
        ("select * from t for no key update", {"select"}),
        ("select t.update, delete from t", {"select"}),
        ("merge into t using u on t.a = u.a when matched then delete", {"merge", "delete"}),
        ("explain (table) delete from t", {"explain", "select", "delete"}),
        ("create table n as with d as (delete from t returning *) select * from d", {"create", "delete"}),
        ("create unlogged table n as with u as (update t set a = 1 returning *) table u", {"create", "update"}),
        ("create table n (a int references t on delete cascade on update cascade)", {"create"}),
        ("create trigger c before insert or update on t execute function f()", {"create"}),
        ("select 1e5into n from t", {"select", "create"}),
        ("select 1.e5into n from t", {"select", "create"}),
    ],
)
def test_a_change_is_seen_wherever_it_may_begin(sql: str, expected: set[str]) -> None:
    assert kinds(sql) == expected


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select count(*), lower ( x ), pg_catalog.now() from t", ["count", "lower", "pg_catalog.now"]),
        ('select "PG_Sleep"(1), s . "f"(1), PG_SLEEP /* ( */ (1)', ["PG_Sleep", "s.f", "pg_sleep"]),
        ('select coalesce(a, 1), "coalesce"(a), s.coalesce(a), cast(a as numeric(3))', ["coalesce", "s.coalesce"]),
        ("select a::numeric(3), a::vector(3), b[1:f(2)], b[1::f(2)] from t as t(a, b)", ["f"]),
        ("with a(x) as (select 1), b(y) as not materialized (select 2) select (1) in (2)", []),
        ("with a as (select 1) select * from a, dblink('x') as (a int)", ["dblink"]),
        ("select * from a, dblink('x') as (values int)", ["dblink"]),
        ("select distinct on (a) pg_read_file('x') from t", ["pg_read_file"]),
        ("insert into s.t(a, b) values (nextval('q'), default) on conflict (a) do nothing returning (a)", ["nextval"]),
        ("create unique index i on only t using gin (a, f(b))", ["f"]),
        ("create table if not exists s.t(a int default f(1), b varchar(3) references u(a), check (g(a)))", ["f", "g"]),
        ("merge into t using f(1) as u on g(1) when matched then insert (a) values (1)", ["f", "g"]),
        ("create function f(a int) returns int language sql as $$ select g(1) $$", []),
        ("select 'f(1)' /* f(1) */ -- f(1)", []),
        ("copy (select f(1)) to stdout", ["f"]),
        ("reindex (verbose) table t", []),
        ("select rank() over (order by (a)) from t group by (a), rollup (a, b) having f(1)", ["rank", "f"]),
        ("select 1 from t join u using (a) left join v on (f(a)) where exists (select 1) limit (1)", ["f"]),
        ("create table index as select 1 from a join b on f(1)", ["f"]),
        ("select $1e5$$ , f(1), 1 as e$$", ["f"]),
        ("select ℮(1)", ["℮"]),
    ],
)
def test_functions_that_may_be_called(sql: str, expected: list[str]) -> None:
    assert functions(sql) == expected


@pytest.mark.parametrize(
    "word", ["list", "update", "insert", "system", "first", "set", "copy", "filter", "materialized"]
)
def test_a_word_of_syntax_is_a_function_where_a_value_is_expected(word: str) -> None:
    assert functions(f"select {word}(1), 2 + {word}(2) from {word}(3)") == [word]
    assert functions(f"create table n as select sum(a) over (partition by {word}(b)) from t") == ["sum", word]


@pytest.mark.parametrize(
    ("sql", "expected"),
    [
        ("select ('x'::text).f", ["f"]),
        ('select (a).f.g, (a). /* */ "F" from t', ["f", "g", "F"]),
        ("select $1.f, a[1].g, t.a[1].h from t", ["f", "g", "h"]),
        ("select x.f from unnest(a) x", ["unnest", "f"]),
        ("select x.f from unnest(a) as x(y)", ["f", "unnest"]),
        ("select lower.f from lower('x')", ["f", "lower"]),
        ("select x.f from t, s.lower('a') as \"x\"", ["f", "s.lower"]),
        ("select x.f from coalesce('a') x", ["f"]),
        ("select x.f from rows from (lower('a')) x", ["f", "lower"]),
        ("select x.f from current_user x", ["f"]),
        ("select 1 from a join b on a.where join lower('a') x on x.f", ["lower", "f"]),
        ("select 1 from (a cross join lower('a') x) where x.f", ["lower", "f"]),
        ("delete from t using lower('a') x where x.f", ["lower", "f"]),
    ],
)
def test_what_is_called_as_a_column_is_seen(sql: str, expected: list[str]) -> None:
    assert sorted(functions(sql)) == sorted(expected)


REPORTS = r"""
select o.region, sum(o.total) from orders o join customers c on c.id = o.customer where o.at >= now() - interval '30 d'
with m(a, b) as (select 1, 2), r(a, c) as (values (1, 2)) select m.a, r.c from m join r using (a)
select d::date, d.d from generate_series('2026-01-01'::date, '2026-02-01', '1 day') as d group by d
select d.day, count(o.id) from generate_series(1, 3) as d(day) left join orders o on o.day = d.day group by d.day
select e.key, e.value from events, jsonb_each_text(events.data) e
select elem.value from events cross join lateral jsonb_array_elements(data->'items') as elem
select x.a, x.b from events, jsonb_to_recordset(data) as x(a int, b numeric(9, 2))
select u.ordinality, v.o from t, unnest(t.ids) with ordinality u, unnest(t.ids) with ordinality as v(i, o)
select percentile_cont(0.5) within group (order by a) filter (where k), lag(a) over w from o window w as (order by o.a)
select grouping(a), sum(b) from s group by grouping sets ((a), cube (b), rollup (a, b), ()), cube (a), a, rollup (b)
select extract(epoch from max(o.at) - min(o.at)) / 3600, o.id from orders o where a.x is not distinct from o.y
select a.id from a tablesample system (1) full join b on (a.id = b.id) where a.n not ilike ('%' || b.n) escape '!'
select l.total from c cross join lateral (select sum(o.total) as total from o) l join lateral (select 1) m on (m.b = 1)
select s.total, v.a, q.n from (select sum(x) from t) as s(total), (values (1)) as v(a), (select 1 as n) q
select sum(x) sales, sales.region from sales where sales.at at time zone ('UTC') > now() group by sales.region
select j.id from docs, json_table(docs.d, '$[*]' columns (id int path '$.id')) as j
select substring(a.name from 1 for 3), trim(both ' ' from a.name) as b, a.id from a
insert into t (a) select x.a from x on conflict (a) do update set (b, c) = row (excluded.b, excluded.c)
merge into t using s on t.a = s.a when matched then update set (a) = row (1) when not matched then insert (a) values (1)
create table t (id int generated always as identity (start 1), exclude using gist (a with =)) partition by list (a)
grant select (a), update (b), insert (c) on t to u
with x as not materialized (select 1) select x.a from x, y as materialized
"""


@pytest.mark.parametrize("sql", REPORTS.strip().splitlines())
def test_what_only_reads_needs_no_other_function(sql: str) -> None:
    assert [str(called) for called in read_statement(sql).functions if called.name not in READING_FUNCTIONS] == []


def test_what_is_copied_to_the_client_is_reported_and_what_would_come_from_it_is_refused() -> None:
    assert read_statement("copy (select 1) to /* */ stdout").copies
    assert read_statement("copy t to stdin").copies
    assert not read_statement("copy t to program 'to stdout'").copies
    for client in ("stdin", "stdout"):  # the server does not distinguish them
        with pytest.raises(UnreadableStatement, match="copies from STDIN"):
            kinds(f"copy t(a) from {client}")


def test_statements_that_call_very_many_functions_are_refused() -> None:
    assert len(functions(f"select {', '.join(f'f{n}()' for n in range(MOST_FUNCTIONS))}")) == MOST_FUNCTIONS
    with pytest.raises(UnreadableStatement, match="more than 256 functions"):
        kinds(f"select {', '.join(f'f{n}()' for n in range(MOST_FUNCTIONS + 1))}")


@given(st.sampled_from(sorted(KEYWORDS)))
def test_a_keyword_is_a_function_only_in_quotes_or_in_a_schema(word: str) -> None:
    assert functions(f'select {word}(1), "{word}"(1)') == [word]
    assert functions(f"select s.{word}(1)") == [f"s.{word}"]


@pytest.mark.parametrize(
    "sql",
    [
        "select 'a'" + "-- " * 10_000,
        "select " + "(" * 32_000,
        "select " + "(" * 16_000 + ")" * 16_000,
        "select " + "case when " * 3_000,
        "select " + "''" * 16_000,
        "select E'" + "\\'" * 16_000,
        "select " + "/*" * 16_000,
        "select " + "$a$ $b$ " * 4_000,
        "select " + "f(" * 200 + ")" * 200 + ", a.b" * 7_000,
        "select 1" + ", a(1" * 10_000 + ")" * 10_000,
        "select " + "then update " * 5_000,
        "select " + "a." * 32_000 + "b",
        "select x.y from " + "f() x(a), " * 6_000 + "t",
        "select 1 from " + "f() x(" * 8_000 + ")" * 8_000,
        "with " + ", ".join(f"a{n}(x) as (select 1)" for n in range(1_400)) + " select 1",
    ],
    ids=lambda sql: sql[:20],
)
def test_the_largest_statements_are_read_in_linear_time(sql: str) -> None:
    """Earlier versions read each of them with a parser or a backtracking pattern in seconds up to centuries."""
    steps = 0

    def count(*_: object) -> None:
        nonlocal steps
        steps += 1

    sys.setprofile(count)  # counts calls; the test's own timeout limits the time in patterns
    try:
        read_statement(sql)
    except UnreadableStatement:
        pass
    finally:
        sys.setprofile(None)
    assert steps < 60 * len(sql)


def test_what_cannot_be_read_is_remembered_as_well() -> None:
    sql = "select (" * 100
    for _ in range(2):
        with pytest.raises(UnreadableStatement):
            read_statement(sql)
    before = statements._read.cache_info()
    with pytest.raises(UnreadableStatement):
        read_statement(sql)
    after = statements._read.cache_info()
    assert (after.hits, after.misses) == (before.hits + 1, before.misses)
