"""Tells what a statement of PostgreSQL does: its kinds, and the functions that it calls. Pure.

It is told from the words of its code (see `sqltext`), in a time linear in its length, and never less is told than is
there: a statement that changes data within another one begins with its own word, and a function is called by its name
and a parenthesis, or as a column of its argument. What is no statement at all is for the server to refuse. The server
itself takes one statement at a time (the extended protocol), and holds a read-only transaction.
"""

from __future__ import annotations

import itertools
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from remit.policy.sqlfunctions import KEYWORDS, SYNTAX
from remit.policy.sqltext import UnreadableStatement, code_of

__all__ = ["READING", "Function", "Statement", "UnreadableStatement", "read_statement"]

READING: Final = frozenset({"select", "values", "table", "show", "explain"})
"""Kinds that a read-only transaction is for."""
MOST_FUNCTIONS: Final = 256
"""Limit of the functions that one statement calls. Each is matched with all patterns of a policy."""
_CHANGING: Final = frozenset({"insert", "update", "delete", "merge"})
_FOLLOWED_BY_INTO: Final = frozenset({"insert", "merge"})
_QUERY_WORDS: Final = frozenset({"select", "with", "values", "table"})
_EXPLAINED_WORDS: Final = _QUERY_WORDS | _CHANGING | {"create"}
_HOLDS_STATEMENTS: Final = _QUERY_WORDS | _CHANGING | {"copy", "prepare"}
"""First words of what may have another statement within, as CREATE TABLE may, too."""
_BEFORE_TABLE: Final = frozenset({"global", "local", "temporary", "temp", "unlogged"})
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
_BEFORE_OPERAND_SIGNS: Final = frozenset("([,:=+-*/<>~!@#%^&|`?")
_BEFORE_OPERAND: Final = frozenset(
    [
        *(
            "select",
            "distinct",
            "all",
            "any",
            "some",
            "case",
            "when",
            "then",
            "else",
            "where",
            "and",
            "or",
            "not",
            "by",
        ),
        *(
            "having",
            "from",
            "join",
            "lateral",
            "on",
            "using",
            "between",
            "symmetric",
            "like",
            "ilike",
            "to",
            "is",
            "in",
        ),
        *("limit", "offset", "returning", "default", "call", "variadic"),
    ]
)
"""After these signs and words a value may begin, so a name with a parenthesis is a call there."""
_BEGINS_FROM: Final = frozenset({"from", "using"})
_ENDS_FROM: Final = frozenset(
    [
        *("select", "where", "group", "having", "window", "order", "limit", "offset", "fetch", "for"),
        *("union", "intersect", "except", "returning"),
    ]
)
"""Reserved words, which end the FROM clause that they follow."""
_BEFORE_FUNCTION: Final = frozenset({"from", ",", "join", "lateral", "using", "("})
_NO_FUNCTION: Final = _BEFORE_FUNCTION | {"json_table", "xmltable"}
"""What a parenthesis follows in FROM without a call, or in the syntax of rows that are never a mere value."""
_WITHOUT_PARENTHESES: Final = frozenset(
    [
        *("current_catalog", "current_date", "current_role", "current_schema", "current_time", "current_timestamp"),
        *("current_user", "localtime", "localtimestamp", "session_user", "system_user", "user"),
    ]
)
_COLUMNS: Final = {
    **dict.fromkeys(("json_each", "json_each_text", "jsonb_each", "jsonb_each_text"), ("key", "value")),
    **dict.fromkeys(
        [
            *("json_array_elements", "json_array_elements_text"),
            *("jsonb_array_elements", "jsonb_array_elements_text"),
        ],
        ("value",),
    ),
}
"""Columns that functions of the server give their rows, unless the statement names them otherwise."""


@dataclass(frozen=True, slots=True)
class Function:
    """A function as PostgreSQL reads its name. `schema` is empty if the statement names none."""

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
    """Raises `UnreadableStatement`. Read once for all policies and for the executor."""
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
        copies = _copies(tokens, "to")
        return Statement(_kinds(tokens), _functions(tokens, depths), _gives_no_rows(tokens, depths), copies)
    except UnreadableStatement as error:
        return str(error)


def _tokens(sql: str) -> list[str]:
    """The tokens of the one statement."""
    tokens = list(code_of(sql).tokens)
    while tokens and tokens[-1] == ";":
        tokens.pop()
    if not tokens or ";" in tokens:
        holds = "more than one statement" if tokens else "no statement"
        raise UnreadableStatement(f"it holds {holds}; write each as an entry of its own")
    if _copies(tokens, "from"):
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
        return frozenset({"explain"}) | _kinds(tokens[start:])  # ANALYZE performs the statement
    changes = _changes(tokens) if first in _HOLDS_STATEMENTS or _creates_table(tokens) else {}
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


def _creates_table(tokens: Sequence[str]) -> bool:
    what = next((token for token in tokens[1:4] if token not in _BEFORE_TABLE), "")
    return tokens[0] == "create" and what == "table"


def _changes(tokens: Sequence[str]) -> dict[int, str]:
    """The positions at which statements that change data begin. Columns with such a name may be among them."""
    return {at: token for at, token in enumerate(tokens) if token in _CHANGING and _may_begin(tokens, at)}


def _may_begin(tokens: Sequence[str], at: int) -> bool:
    """Whether a statement may begin with the word at `at`, or a change within MERGE."""
    verb, before, after = tokens[at], tokens[at - 1] if at else "", tokens[at + 1] if at + 1 < len(tokens) else ""
    if before == "then":
        return True
    if before in {".", ",", "do", "on"}:
        return False
    if verb == "update":
        return before != "for" and tokens[max(0, at - 3) : at] != ["for", "no", "key"]
    return after == ("from" if verb == "delete" else "into")


def _verbs(tokens: Sequence[str], changes: Collection[int]) -> tuple[str, bool]:
    """The verbs of the statement after its WITH clause, and whether a SELECT INTO is in it. Its first verb is what a
    statement does, and so is that of one in parentheses."""
    verbs, creates = [""], False
    for at, token in enumerate(tokens):
        match token:
            case "(":
                verbs.append("")
            case ")" if len(verbs) > 1:  # the explained statement may appear to begin inside the options of EXPLAIN
                verbs.pop()
            case "into":
                creates |= not (verbs[-1] in _FOLLOWED_BY_INTO and tokens[at - 1] in _FOLLOWED_BY_INTO)
            case _ if at in changes or token in {"select", "table", "values"}:
                verbs[-1] = verbs[-1] or token
    return verbs[0], creates


def _copies(tokens: Sequence[str], way: str) -> bool:
    """Whether it copies to or from the client. The server takes STDIN and STDOUT for the same."""
    return tokens[0] == "copy" and any(pair in {(way, "stdin"), (way, "stdout")} for pair in itertools.pairwise(tokens))


def _gives_no_rows(tokens: Sequence[str], depths: Sequence[int]) -> bool:
    if tokens[0] in _OF_THE_SCHEMA:
        return True
    if tokens[0] not in _CHANGING | {"with"} or ("returning", 0) in zip(tokens, depths, strict=True):
        return False
    return _verbs(tokens, _changes(tokens))[0] in _CHANGING


def _functions(tokens: Sequence[str], depths: Sequence[int]) -> tuple[Function, ...]:
    found: dict[Function, None] = {}
    starts, closings = _starts_of_names(tokens), _closings(tokens)
    columns = _columns_of_functions(tokens, starts, closings)
    creates_index = tokens[:2] == ["create", "index"] or tokens[:3] == ["create", "unique", "index"]
    for at, token in enumerate(tokens):
        if not _is_name(token):
            continue
        start = starts[at]
        before = tokens[start - 1] if start else ""
        if tokens[at + 1 : at + 2] != ["("]:
            if not _is_called_as_column(tokens, start, at, columns):
                continue
            start = at
        elif (
            (start == at and _is_syntax(tokens, depths, at))
            or before in _DECLARING
            or (before == "," and _defines_query(tokens, closings[at + 1]))
            or (creates_index and before in {"on", "only", "using"})
        ):
            continue
        found[Function(_unquoted(token), ".".join(map(_unquoted, tokens[start:at:2])))] = None
        if len(found) > MOST_FUNCTIONS:
            raise UnreadableStatement(f"it calls more than {MOST_FUNCTIONS} functions")
    return tuple(found)


def _starts_of_names(tokens: Sequence[str]) -> list[int]:
    """The start of the name that ends with each token: `a . b . c` is one name."""
    starts: list[int] = []
    for at, token in enumerate(tokens):
        goes_on = at >= 2 and tokens[at - 1] == "." and _is_name(token) and _is_name(tokens[at - 2])
        starts.append(starts[at - 2] if goes_on else at)
    return starts


def _closings(tokens: Sequence[str]) -> dict[int, int]:
    """The position of each opening parenthesis with that of its closing one."""
    opened, closings = list[int](), dict[int, int]()
    for at, word in enumerate(tokens):
        if word == "(":
            opened.append(at)
        elif word == ")":
            closings[opened.pop()] = at
    return closings


def _defines_query(tokens: Sequence[str], closing: int) -> bool:
    """Whether a parenthesis has the columns of a WITH query, as in `, b (x) as (select`. The columns of a function's
    rows in FROM, as in `, f(x) as (a int)`, never begin with a reserved word, and no type with a parenthesis."""
    rest = [token for token in tokens[closing + 1 : closing + 6] if token not in {"not", "materialized"}]
    return rest[:2] == ["as", "("] and (rest[2:3] in (["select"], ["with"], ["table"]) or rest[2:4] == ["values", "("])


def _is_syntax(tokens: Sequence[str], depths: Sequence[int], at: int) -> bool:
    """Whether the parenthesis after the word at `at` does not make a call of it."""
    return tokens[at] in KEYWORDS or (tokens[at] in SYNTAX and not _is_operand(tokens, depths, at))


def _is_operand(tokens: Sequence[str], depths: Sequence[int], at: int) -> bool:
    """Whether the word at `at`, with a parenthesis after it, stands where the server expects a value."""
    word, before = tokens[at], tokens[at - 1] if at else ""
    if before not in _BEFORE_OPERAND and before[:1] not in _BEFORE_OPERAND_SIGNS:
        return False
    match word, before:
        case ("by" | "like" | "ilike" | "operator", _) | ("conflict", "on") | ("insert", "then"):
            return False
        case ("insert" | "update", _) if tokens[0] in {"grant", "revoke"}:
            return False
        case "rollup" | "cube", "by" | "," | "(":
            return False
        case "list" | "range" | "hash", "by":
            return tokens[0] != "create" or depths[at] > 0
        case "materialized", "not":
            return tokens[at - 2] != "as"
        case _, "using":
            return tokens[at - 2] != "exclude"
    return True


def _is_called_as_column(tokens: Sequence[str], start: int, at: int, columns: Mapping[str, Collection[str]]) -> bool:
    """Whether the name at `at`, which is part of the one that begins at `start`, may be that of a function.

    The server takes `(x).f` for `f(x)`, and so it takes `t.f` where `t` stands for the value of a function in FROM.
    Where `t` is a row, `f` is a column of it, or else a function of rows, which cannot be told from one here.
    """
    if start and tokens[start - 1] == ".":
        return True
    name = _unquoted(tokens[at])
    return at - start == 2 and name not in columns.get(_unquoted(tokens[start]), {name})


def _columns_of_functions(
    tokens: Sequence[str], starts: Sequence[int], closings: Mapping[int, int]
) -> dict[str, set[str]]:
    """The names under which a statement may refer to a function in its FROM clauses, and what is a column of it for
    certain."""
    found: dict[str, set[str]] = {}
    in_from = [False]
    for at, word in enumerate(tokens):
        if at and tokens[at - 1] == "." and _is_name(word):
            continue
        if word == ")":
            in_from.pop()
        elif word in _BEGINS_FROM:
            in_from[-1] = True
        elif word in _ENDS_FROM:
            in_from[-1] = False
        elif in_from[-1] and word in _WITHOUT_PARENTHESES:
            _add_columns(found, tokens, closings, at + 1, word)
        elif word == "(":
            name = tokens[at - 1] if at else ""
            before = tokens[starts[at - 1] - 1] if at and starts[at - 1] else ""
            is_call = before in _BEFORE_FUNCTION and _is_name(name) and name not in _NO_FUNCTION
            if in_from[-1] and (is_call or (before, name) == ("rows", "from")):
                _add_columns(found, tokens, closings, closings[at] + 1, name)
            in_from.append(in_from[-1])
    return found


def _add_columns(
    found: dict[str, set[str]], tokens: Sequence[str], closings: Mapping[int, int], at: int, function: str
) -> None:
    """`at`: after the call of `function`."""
    columns = set(_COLUMNS.get(_unquoted(function), ()))
    if tokens[at : at + 2] == ["with", "ordinality"]:
        columns.add("ordinality")
        at += 2
    at += tokens[at : at + 1] == ["as"]
    names = [function]
    if at < len(tokens) and _is_name(tokens[at]):  # or a reserved word, to which nothing refers
        names.append(tokens[at])
        at += 1
    if tokens[at : at + 1] == ["("]:
        columns |= _listed(tokens, closings, at)
    for name in map(_unquoted, names):
        certain = columns if tokens[at : at + 1] == ["("] else columns | {name}
        found[name] = found.get(name, certain) & certain


def _listed(tokens: Sequence[str], closings: Mapping[int, int], opening: int) -> set[str]:
    """The first name in the parenthesis at `opening`, and those after each comma."""
    found, at = set[str](), opening + 1
    while at < closings[opening]:
        if tokens[at - 1] in {"(", ","}:
            found.add(_unquoted(tokens[at]))
        at = closings[at] if tokens[at] == "(" else at + 1
    return found


def _is_word(token: str) -> bool:
    return token[:1].isidentifier()


def _is_name(token: str) -> bool:
    return _is_word(token) or token[0] == '"'


def _unquoted(token: str) -> str:
    return token[1:-1].replace('""', '"') if token[0] == '"' else token
