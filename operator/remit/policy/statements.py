"""What a statement of PostgreSQL does: its kinds, and the functions that it calls. Pure.

It is told from the words of its code (see `sqltext`), in a time linear in its length, and never less is told than is
there: a statement that changes data within another one begins with its own word, and a function is called by its name
and a parenthesis. What is no statement at all is for the server to refuse. The server itself takes one statement at a
time (the extended protocol), and holds a read-only transaction.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from remit.policy.sqlfunctions import SYNTAX
from remit.policy.sqltext import UnreadableStatement, code_of

__all__ = ["READING", "Function", "Statement", "UnreadableStatement", "read_statement"]

READING: Final = frozenset({"select", "values", "table", "show", "explain"})
"""Kinds that a read-only transaction is for."""
MOST_FUNCTIONS: Final = 256
"""That one statement calls: each is held against all patterns of a policy."""
_CHANGING: Final = frozenset({"insert", "update", "delete", "merge"})
_FOLLOWED_BY_INTO: Final = frozenset({"insert", "merge"})
_QUERY_WORDS: Final = frozenset({"select", "with", "values", "table"})
_EXPLAINED_WORDS: Final = _QUERY_WORDS | _CHANGING | {"create"}
_HOLDS_STATEMENTS: Final = _QUERY_WORDS | _CHANGING | {"copy"}
"""First words of what may have another statement within."""
_OUTSIDE: Final = frozenset({"database", "tablespace", "system", "subscription"})
"""What concerns more than a database, as its second word: kinds of their own, such as `create database`."""
_OF_THE_SCHEMA: Final = frozenset({"create", "drop", "alter", "truncate"})
_DECLARING: Final = frozenset(
    [
        *("::", "as", "type"),
        *("into", "references", "table", "view", "with", "recursive", "exists", "copy", "prepare"),
        *("function", "procedure", "routine", "aggregate"),
    ]
)
"""After these, a name with a parenthesis is that of a type, a table, or what is defined. In no place of PostgreSQL's
grammar can a call follow them."""


@dataclass(frozen=True, slots=True)
class Function:
    """As PostgreSQL reads its name. `schema` is empty where the statement names none."""

    name: str
    schema: str = ""

    def __str__(self) -> str:
        return f"{self.schema}.{self.name}" if self.schema else self.name


@dataclass(frozen=True, slots=True)
class Statement:
    """`kinds`: a `with` that deletes is `select` and `delete`, `select into` also `create`."""

    kinds: frozenset[str]
    functions: tuple[Function, ...]
    """All that may be calls."""
    gives_no_rows: bool
    """Whether it is a change without RETURNING, or of the schema."""
    copies: bool
    """Whether it copies rows to the client."""


def read_statement(sql: str) -> Statement:
    """Raises `UnreadableStatement`. Read once for all policies and for the performer."""
    found = _read(sql)
    if isinstance(found, str):
        raise UnreadableStatement(found)
    return found


@lru_cache(maxsize=128)
def _read(sql: str) -> Statement | str:
    """The statement, or what is wrong with it, which is kept as well."""
    try:
        tokens = _tokens(sql)
        depths = _depths(tokens)
        copies = _copies(tokens, "to", "stdout")
        return Statement(_kinds(tokens), _functions(tokens, depths), _gives_no_rows(tokens, depths), copies)
    except UnreadableStatement as error:
        return str(error)


def _tokens(sql: str) -> list[str]:
    """Of the one statement."""
    tokens = list(code_of(sql).tokens)
    while tokens and tokens[-1] == ";":
        tokens.pop()
    if not tokens or ";" in tokens:
        holds = "more than one statement" if tokens else "no statement"
        raise UnreadableStatement(f"it holds {holds}; write each as an entry of its own")
    if _copies(tokens, "from", "stdin"):
        raise UnreadableStatement("it copies from STDIN, and there is nothing to read; use INSERT with parameters")
    return tokens


def _depths(tokens: Sequence[str]) -> list[int]:
    """How many parentheses each token is in; they themselves are outside."""
    depths, depth = [], 0
    for word in tokens:
        depth -= word == ")"
        if depth < 0:
            break
        depths.append(depth)
        depth += word == "("
    if depth:
        raise UnreadableStatement("its parentheses do not match")
    return depths


def _kinds(tokens: Sequence[str]) -> frozenset[str]:
    first = next((word for word in tokens if word != "("), "")
    if not _is_word(first):
        raise UnreadableStatement(f"it begins with {first!r}")
    if first == "explain":
        start = next((at for at, token in enumerate(tokens) if token in _EXPLAINED_WORDS), None)
        if start is None:
            raise UnreadableStatement("what EXPLAIN explains cannot be told")
        return frozenset({"explain"}) | _kinds(tokens[start:])  # ANALYZE performs it
    changes = _changes(tokens) if first in _HOLDS_STATEMENTS else {}
    found = set(changes.values())
    if first in {"create", "drop", "alter"} and tokens[1:2] and tokens[1] in _OUTSIDE:
        return frozenset({f"{first} {tokens[1]}"})
    if first not in _QUERY_WORDS:
        return frozenset(found | {first})
    main, creates = _verbs(tokens, changes)
    if main not in _CHANGING:
        found.add("select")
    if creates:
        found.add("create")
    return frozenset(found)


def _changes(tokens: Sequence[str]) -> dict[int, str]:
    """Where statements that change data begin. A column of such a name may be among them."""
    return {at: token for at, token in enumerate(tokens) if token in _CHANGING and _may_begin(tokens, at)}


def _may_begin(tokens: Sequence[str], at: int) -> bool:
    """Whether a statement may begin with the word at `at`, or a change within MERGE."""
    verb, before, after = tokens[at], tokens[at - 1] if at else "", tokens[at + 1] if at + 1 < len(tokens) else ""
    if before == "then" and "merge" in tokens:
        return True
    if before in {".", ",", "do"}:
        return False
    if verb == "update":
        return before != "for" and tokens[max(0, at - 3) : at] != ["for", "no", "key"]
    return after == ("from" if verb == "delete" else "into")


def _verbs(tokens: Sequence[str], changes: Collection[int]) -> tuple[str, bool]:
    """What the statement does, after its WITH clause; and whether a SELECT INTO is in it. Its first verb is what a
    statement does, and so is that of one in parentheses."""
    verbs, creates = [""], False
    for at, token in enumerate(tokens):
        match token:
            case "(":
                verbs.append("")
            case ")" if len(verbs) > 1:  # what is explained may seem to begin among the options of EXPLAIN
                verbs.pop()
            case "into":
                creates |= not (verbs[-1] in _FOLLOWED_BY_INTO and tokens[at - 1] in _FOLLOWED_BY_INTO)
            case _ if at in changes or token in {"select", "table", "values"}:
                verbs[-1] = verbs[-1] or token
    return verbs[0], creates


def _copies(tokens: Sequence[str], way: str, end: str) -> bool:
    return tokens[0] == "copy" and (way, end) in itertools.pairwise(tokens)


def _gives_no_rows(tokens: Sequence[str], depths: Sequence[int]) -> bool:
    if tokens[0] in _OF_THE_SCHEMA:
        return True
    if tokens[0] not in _CHANGING | {"with"} or ("returning", 0) in zip(tokens, depths, strict=True):
        return False
    return _verbs(tokens, _changes(tokens))[0] in _CHANGING


def _functions(tokens: Sequence[str], depths: Sequence[int]) -> tuple[Function, ...]:
    found: dict[Function, None] = {}
    creates_index = "index" in tokens[1:3] and tokens[0] == "create"
    for at, token in enumerate(tokens[:-1]):
        if tokens[at + 1] != "(" or not _is_name(token):
            continue
        start = _start_of_name(tokens, at)
        before = tokens[start - 1] if start else ""
        if start == at and token in SYNTAX:
            continue
        if before in _DECLARING or (before == "," and _defines_query(tokens, depths, at + 1)):
            continue
        if creates_index and before in {"on", "only", "using"}:
            continue
        found[Function(_unquoted(token), ".".join(map(_unquoted, tokens[start:at:2])))] = None
        if len(found) > MOST_FUNCTIONS:
            raise UnreadableStatement(f"it calls more than {MOST_FUNCTIONS} functions")
    return tuple(found)


def _start_of_name(tokens: Sequence[str], at: int) -> int:
    """Where the name that ends at `at` begins: `a . b . c` is one."""
    while at >= 2 and tokens[at - 1] == "." and _is_name(tokens[at - 2]):
        at -= 2
    return at


def _defines_query(tokens: Sequence[str], depths: Sequence[int], opening: int) -> bool:
    """Whether the parenthesis at `opening` has the columns of a WITH query, as in `, b (x) as (select`. The columns of
    a function's rows in FROM, as in `, f(x) as (a int)`, never begin with a reserved word."""
    closing = next(at for at in range(opening + 1, len(tokens)) if depths[at] == depths[opening] and tokens[at] == ")")
    rest = [token for token in tokens[closing + 1 : closing + 6] if token not in {"not", "materialized"}]
    return rest[:2] == ["as", "("] and rest[2:3] in (["select"], ["with"], ["table"])


def _is_word(token: str) -> bool:
    return token[:1].isalpha() or token[:1] == "_"


def _is_name(token: str) -> bool:
    return _is_word(token) or token[0] == '"'


def _unquoted(token: str) -> str:
    return token[1:-1].replace('""', '"') if token[0] == '"' else token
