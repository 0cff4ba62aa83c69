"""Tests that code, strings and comments of SQL are distinguished as in PostgreSQL."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from remit.policy.sqltext import UnreadableStatement, code_of


@pytest.mark.parametrize(
    ("sql", "code"),
    [
        ("select 'a''b', 1", "select '1', 1"),
        ("select 'a\\', 1", "select '1', 1"),
        ("select E'a\\'b', 1", "select  '1', 1"),
        ("select e'a\\\\', 1", "select  '1', 1"),
        ("select ae'a\\', 1", "select ae'1', 1"),
        ("select E'a'\n '\\'b', 1", "select  '1', 1"),
        ("select E'a' -- c\n  -- d\n '\\'b', 1", "select  '1', 1"),
        ("select 'a' 'b'", "select '1' '1'"),
        ("select x'1f', n'a'", "select x'1', n'1'"),
        ("select $$ a ' b $$, $t$ $$ $t$", "select  '1' ,  '1' "),
        ("select a$b$, 1", "select a$b$, 1"),
        ("select $1, $2", "select $1, $2"),
        ("select 1 -- a ' b\n, 2", "select 1  \n, 2"),
        ("select 1 -- a\r, 2", "select 1  \r, 2"),
        ("select 1 /* a /* ' */ b */, 2", "select 1  , 2"),
        ("select 1 #-- '\n, 2", "select 1 # \n, 2"),
        ("select 1 +/* ' */, 2", "select 1 + , 2"),
        ('select "a""b -- c", 2', 'select "a""b -- c", 2'),
    ],
)
def test_code(sql: str, code: str) -> None:
    assert code_of(sql).text == code


def test_names_are_folded_as_the_server_folds_them() -> None:
    assert code_of('select Ab, "Cd""e", f.G, Été /* h */, \'i\' :: T').tokens == (
        *("select", "ab", ",", '"Cd""e"', ",", "f", ".", "g", ",", "Été", ",", "'1'", "::", "t"),
    )


@pytest.mark.parametrize(
    "sql",
    ["'a", "E'a\\'", "$a$ $b$", "/* /* */", '"a', "U&'a'", 'u&"a"', "a\0", "a\u00a0b", "a\u2028", "'a'\n'b"],
)
def test_what_does_not_end_or_can_be_read_in_two_ways(sql: str) -> None:
    with pytest.raises(UnreadableStatement):
        code_of(sql)


PIECES = [
    "'",
    "''",
    '"',
    "$$",
    "$a$",
    "--",
    "/*",
    "*/",
    "\n",
    "\r",
    "\\",
    "e",
    "E'",
    "#",
    "-",
    "x",
    " ",
    "1",
    "é",
    "u&",
]


@given(st.lists(st.sampled_from(PIECES), max_size=30).map("".join))
def test_code_has_no_string_or_comment_left(sql: str) -> None:
    try:
        code = code_of(sql).text
    except UnreadableStatement:
        return

    def without_strings(text: str) -> list[str]:
        return text.replace("'1'", " ").split()  # two adjacent strings may be read as one that continues

    assert without_strings(code_of(code).text) == without_strings(code)


@given(st.text(max_size=200))
def test_any_text_is_code_or_is_refused(sql: str) -> None:
    try:
        code_of(sql)
    except UnreadableStatement as error:
        assert str(error)
