"""Tests that values of PostgreSQL are exact in JSON, or are the text that PostgreSQL itself writes."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import orjson
import psycopg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from remit.backends.breaker import FAILURES
from remit.backends.failure import OperationFailed
from remit.operations.database.loaders import ADAPTERS
from remit.operations.database.postgres import PostgresExecutor
from servers import postgres
from support import repetitions

from .conftest import Desk

CONNECTION = {"name": "db", "key": "url"}


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    server, url = postgres(tmp_path_factory.mktemp("postgres"))
    server.start()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE EXTENSION IF NOT EXISTS hstore")
        connection.execute("CREATE TYPE pair AS (a float8, b timestamptz)")
        connection.execute("CREATE DATABASE bytes TEMPLATE template0 ENCODING SQL_ASCII LOCALE 'C'")
    yield url
    server.stop()


@pytest.fixture
async def desk() -> AsyncIterator[Desk]:
    executor = PostgresExecutor()
    rule = {"secrets": ["db"], "statements": ["select"], "functions": ["set_config", "fail"]}
    yield Desk(executor, [{"databases": {"postgres": rule}}])
    await executor.close()


async def rows(desk: Desk, url: str, sql: str, *parameters: str) -> list[dict[str, Any]]:
    statement = {"sql": sql, "parameters": list(parameters)}
    await desk.do({"connection": url.encode()}, postgres={"connection": CONNECTION, "statements": [statement]})
    found: list[dict[str, Any]] = json.loads(desk.output.stdout, parse_float=Decimal)["rows"]
    return found


EXTREME = {
    "'infinity'::timestamp": "infinity",
    "'-infinity'::timestamptz": "-infinity",
    "'0044-03-15 BC'::date": "0044-03-15 BC",
    "'0044-03-15 10:00 BC'::timestamp": "0044-03-15T10:00:00 BC",
    "'10000-01-01'::date": "10000-01-01",
    "'294276-12-31 23:59:59.5'::timestamp": "294276-12-31T23:59:59.5",
    "'2026-01-02 03:04:05.6+05:30'::timestamptz AT TIME ZONE 'UTC'": "2026-01-01T21:34:05.6",
    "'03:04:05.6+05:30'::timetz": "03:04:05.6+05:30",
    "'24:00'::time": "24:00:00",
    "'1 year 2 mons'::interval": "1 year 2 mons",
    "'NaN'::float8": "NaN",
    "'-Infinity'::float4": "-Infinity",
    "'NaN'::numeric": "NaN",
    "1.10::numeric": "1.10",
    "12345678901234567890123::numeric": "12345678901234567890123",
    "9223372036854775807": 9223372036854775807,
    "0.1::float4": Decimal("0.1"),
    "ARRAY['NaN', '1.5']::float8[]": ["NaN", Decimal("1.5")],
    "ARRAY['infinity', '2026-01-02']::timestamp[]": ["infinity", "2026-01-02T00:00:00"],
    "ARRAY['{\"a\": 12345678901234567890123}', NULL]::json[]": [{"a": 12345678901234567890123}, None],
    '\'{"n": 12345678901234567890123, "x": 1e400}\'::json': {"n": 12345678901234567890123, "x": Decimal("1e400")},
    "E'{\\n\"a\":\\r\\n1}'::json": {"a": 1},
    "'[0.10000000000000000001]'::jsonb": [Decimal("0.10000000000000000001")],
    "ROW('NaN', 'infinity')::pair": "(NaN,infinity)",
    "numrange('-Infinity', 'NaN')": "[-Infinity,NaN)",
    "'[2026-01-02,infinity]'::tsrange": '["2026-01-02 00:00:00",infinity]',
    "'n=>NaN, i=>Infinity'::hstore": '"i"=>"Infinity", "n"=>"NaN"',
    "'\\x00ff'::bytea": "\\x00ff",
    "'10.0.0.1/8'::inet": "10.0.0.1/8",
    "true": True,
    "'{}'::int[]": [],
    "NULL::date": None,
}


async def test_what_json_has_no_word_for_is_text(desk: Desk, url: str) -> None:
    columns = ", ".join(f"{expression} AS c{index}" for index, expression in enumerate(EXTREME))
    for _ in range(2):  # the result must not depend on earlier use of the connection
        (row,) = await rows(desk, url, f"SELECT {columns}")
        assert dict(zip(EXTREME, row.values(), strict=True)) == EXTREME


async def test_settings_of_a_role_do_not_change_it(desk: Desk, url: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE ROLE german LOGIN PASSWORD 'canary-german'")
        for setting in ("datestyle = 'German'", "bytea_output = 'escape'", "extra_float_digits = -15"):
            connection.execute(f"ALTER ROLE german SET {setting}")
    german = url.replace("admin:canary-password", "german:canary-german")
    sql = "SELECT '2026-01-02'::date AS d, '2026-01-02'::timestamp AS t, '\\x00'::bytea AS b, 0.12345::float8 AS f"
    assert await rows(desk, german, sql) == [
        {"d": "2026-01-02", "t": "2026-01-02T00:00:00", "b": "\\x00", "f": Decimal("0.12345")}
    ]


async def test_bytes_that_are_no_text(desk: Desk, url: str) -> None:
    """A database in SQL_ASCII stores any bytes, and the server refuses to convert them to UTF-8."""
    other = url.replace("/postgres", "/bytes")
    with psycopg.connect(other, autocommit=True, client_encoding="latin1") as connection:
        connection.execute("CREATE TABLE t AS SELECT 'caf\u00e9'::text AS v")
    with pytest.raises(OperationFailed, match="invalid byte sequence") as caught:
        await rows(desk, other, "SELECT v FROM t")
    assert (caught.value.reason, caught.value.retryable) == ("StatementFailed", False)
    assert await rows(desk, other, "SELECT convert_to(v, 'SQL_ASCII') AS v FROM t") == [{"v": "\\x636166e9"}]


async def test_every_column_has_a_name_of_its_own(desk: Desk, url: str) -> None:
    assert await rows(desk, url, "SELECT 1 AS n, 2 AS n_3, 3 AS n, 4 AS n") == [{"n": 1, "n_3": 2, "n_4": 3, "n_5": 4}]


async def test_a_value_never_counts_against_the_server(desk: Desk, url: str) -> None:
    """Neither a value that the driver refuses nor one that the server refuses counts as a failure of the server."""
    raising = "CREATE OR REPLACE FUNCTION fail(code text) RETURNS int LANGUAGE plpgsql AS"
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute(f"{raising} $$ BEGIN RAISE EXCEPTION 'failed' USING ERRCODE = code; END $$")
    cases = [
        ("SELECT $1", "a\0b", False),
        ("SELECT $1::timestamp", "soon", False),
        ("SELECT fail($1)", "57P01", True),
        ("SELECT fail($1)", "08006", True),
        ("SELECT fail($1)", "53400", False),
        ("SELECT fail($1)", "58P01", False),
        ("SELECT fail($1)", "55000", False),
        ("SELECT fail($1)", "40001", True),
        ("SELECT fail($1)", "40P01", True),
        ("SELECT fail($1)", "53300", True),
    ]
    assert len(cases) > FAILURES
    for sql, parameter, again in cases:
        with pytest.raises(OperationFailed, match=r"statements\[0\]: ") as caught:
            await rows(desk, url, sql, parameter)
        assert (caught.value.reason, caught.value.retryable) == ("StatementFailed", again), (sql, parameter)
        assert caught.value.category == "Operation"
    assert await rows(desk, url, "SELECT 1 AS n") == [{"n": 1}]


NUMBER = st.one_of(st.integers(-(10**25), 10**25).map(str), st.decimals(allow_nan=True, allow_infinity=True).map(str))
FLOAT = st.floats().map(repr)
DAYS = st.one_of(
    st.sampled_from(["infinity", "-infinity", "4713-01-01 BC", "294276-12-31", "0001-01-01", "10000-01-01"]),
    st.dates().map(str),
    st.tuples(st.integers(1, 4700), st.integers(1, 12), st.integers(1, 28)).map("%04d-%02d-%02d BC".__mod__),
    st.tuples(st.integers(10000, 200000), st.integers(1, 12), st.integers(1, 28)).map("%d-%02d-%02d".__mod__),
)
CLOCK = st.times().map(str)
ZONE = st.sampled_from(["+00", "-03:30", "+14", "+05:45", "-15:59:59"])
MOMENT = st.one_of(
    DAYS.filter(lambda day: "BC" not in day),
    st.tuples(st.datetimes(), ZONE).map(lambda parts: f"{parts[0]} {parts[1]}"),
)
TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=12)
JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), TEXT, st.integers(-(10**25), 10**25), st.floats(allow_nan=False, width=32)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(TEXT, inner, max_size=3)),
    max_leaves=6,
).filter(lambda value: "Infinity" not in json.dumps(value))
JSON_TEXT = st.one_of(
    st.tuples(JSON, st.sampled_from([None, 1])).map(lambda pair: json.dumps(pair[0], indent=pair[1])),
    st.sampled_from(["1e400", "-0", "12345678901234567890123", '{"a": 1e-500}', '{"a": 1, "a": 2}']),
)
TYPES: dict[str, st.SearchStrategy[str]] = {
    "bool": st.sampled_from(["t", "f"]),
    "int2": st.integers(-(2**15), 2**15 - 1).map(str),
    "int4": st.integers(-(2**31), 2**31 - 1).map(str),
    "int8": st.integers(-(2**63), 2**63 - 1).map(str),
    "oid": st.integers(0, 2**32 - 1).map(str),
    "xid8": st.integers(0, 2**64 - 1).map(str),
    "float4": st.floats(width=32).map(repr),
    "float8": FLOAT,
    "numeric": NUMBER.filter(lambda text: not text.endswith("NaN") and len(text) < 60),
    "money": st.integers(-(10**12), 10**12).map(str),
    "date": DAYS,
    "timestamp": st.one_of(DAYS, st.datetimes().map(str)),
    "timestamptz": MOMENT,
    "time": CLOCK,
    "timetz": st.tuples(CLOCK, ZONE).map("".join),
    "interval": st.tuples(st.integers(-9999, 9999), st.integers(-9999, 9999), st.integers(-(10**6), 10**6)).map(
        "%d mons %d days %d seconds".__mod__
    ),
    "text": TEXT,
    "varchar": TEXT,
    "bpchar": TEXT,
    '"char"': st.sampled_from(["", "a", "\\377"]),
    "bytea": st.binary(max_size=12).map(lambda data: "\\x" + data.hex()),
    "json": JSON_TEXT,
    "jsonb": JSON_TEXT.filter(lambda text: "\\u0000" not in text),
    "jsonpath": st.sampled_from(["$", "$.a[*] ? (@ > 1e10)"]),
    "uuid": st.uuids().map(str),
    "inet": st.ip_addresses().map(str),
    "cidr": st.ip_addresses().map(str),
    "macaddr": st.binary(min_size=6, max_size=6).map(bytes.hex),
    "macaddr8": st.binary(min_size=8, max_size=8).map(bytes.hex),
    "bit varying": st.text("01", max_size=12),
    "point": st.tuples(FLOAT, FLOAT).map("(%s,%s)".__mod__),
    "box": st.tuples(FLOAT, FLOAT).map("((%s,1),(2,%s))".__mod__),
    "tsvector": st.sampled_from(["", "a:1A 'b c':2"]),
    "tsquery": st.sampled_from(["a & !b", "'x y'"]),
    "pg_lsn": st.sampled_from(["0/0", "FFFFFFFF/FFFFFFFF"]),
    "tid": st.sampled_from(["(0,1)", "(4294967295,65535)"]),
    "int4range": st.sampled_from(["empty", "(,)", "[1,5]"]),
    "numrange": st.sampled_from(["(,NaN)", "[-Infinity,12345678901234567890123]"]),
    "tsrange": DAYS.filter(lambda day: day != "-infinity").map('["-infinity","{}"]'.format),
    "datemultirange": st.sampled_from(["{}", '{["4713-01-01 BC",infinity)}']),
    "hstore": st.sampled_from(["", 'a=>NULL, "b c"=>NaN']),
    "pair": st.tuples(FLOAT, st.sampled_from(["infinity", "2026-01-02"])).map("(%s,%s)".__mod__),
    "int2vector": st.sampled_from(["", "1 2"]),
}
OWN_WORDS = frozenset({"bool", "int2", "int4", "int8", "oid", "float4", "float8", "json", "jsonb"})
ARRAYS = frozenset(TYPES) - {"hstore", "pair"}


def documented(type_: str, text: str, as_json: str) -> Any:
    """Returns the value that docs/operations.md#values documents, from `concat` (PostgreSQL's text) and `to_json`."""
    if type_ in {"timestamp", "timestamptz"}:
        return json.loads(as_json)
    if type_ not in OWN_WORDS:
        return text
    if type_ in {"float4", "float8"} and text in {"NaN", "Infinity", "-Infinity"}:
        return text
    return json.loads({"t": "true", "true": "true", "f": "false", "false": "false"}.get(text, text), parse_float=exact)


def exact(text: str) -> Decimal:
    return Decimal(text)


@pytest.fixture(scope="module")
def connection(url: str) -> Iterator[psycopg.Connection[Any]]:
    with psycopg.connect(url, autocommit=True, context=ADAPTERS, prepare_threshold=None) as connection:
        yield connection


@settings(
    max_examples=repetitions(15, soak=2000), deadline=None, suppress_health_check=list(HealthCheck), derandomize=True
)
@given(values=st.fixed_dictionaries(TYPES))
def test_values_of_all_types(connection: psycopg.Connection[Any], values: dict[str, str]) -> None:
    parts, parameters = [], []
    for type_, value in values.items():
        place = f"%s::text::{type_}"
        if type_ in ARRAYS:
            parts.append(f"{place}, ARRAY[{place}, NULL], concat({place}), to_json({place})::text")
            parameters += [value] * 4
        else:
            parts.append(f"{place}, NULL, concat({place}), NULL")
            parameters += [value] * 2
    row = connection.execute(f"SELECT {', '.join(parts)}".encode(), parameters).fetchone()
    assert row is not None
    told = json.loads(orjson.dumps(row), parse_float=exact)
    for number, type_ in enumerate(values):
        value, array, text, as_json = told[4 * number : 4 * number + 4]
        wanted = documented(type_, text, as_json)
        if type_ == "float8" and isinstance(wanted, int | Decimal):  # two notations of the same number are equal
            value, wanted, array = float(value), float(wanted), [float(array[0]), *array[1:]]
        assert (type_, value) == (type_, wanted)
        if type_ in ARRAYS:
            assert (type_, array) == (type_, [wanted, None])
