"""What kinds of statement a piece of PostgreSQL is made of, by a real parser. Pure.

A parser that is not the server's own may read something else than the server does. So a statement is parsed twice, as
it is written and with what PostgreSQL takes for strings and comments put away (see `sqltext`), and has the kinds of
both readings; and the tree must agree with the first word. What neither knows has the kind of its first word; what does
not parse has no kind and is refused. The server itself takes one statement at a time (the extended protocol), and holds
a read-only transaction.
"""

from __future__ import annotations

import logging
import re
from functools import cache, lru_cache
from types import ModuleType
from typing import Any, Final

from remit.policy.sqltext import UnreadableStatement, code_of

__all__ = ["READING", "UnreadableStatement", "copied", "gives_no_rows", "kinds"]

READING: Final = frozenset({"select", "values", "table", "show", "explain"})
"""Kinds that a read-only transaction is for."""
_QUERY_WORDS: Final = frozenset({"select", "with", "values", "table", "("})
_EXPLAINED_WORDS: Final = frozenset(
    ["select", "with", "values", "table", "insert", "update", "delete", "merge", "create"]
)
_OUTSIDE: Final = re.compile(r"\s*(create|drop|alter)\s+(database|tablespace|system|subscription)\b", re.IGNORECASE)
"""What concerns more than a database, by its first words: kinds of their own, such as `create database`."""
_COPY: Final = re.compile(r"\s*copy\b.*\bto\s+stdout\b", re.IGNORECASE | re.DOTALL)
_COPY_IN: Final = re.compile(r"\s*copy\b.*\bfrom\s+stdin\b", re.IGNORECASE | re.DOTALL)
_WITHIN: Final = {
    "Insert": "insert",
    "Update": "update",
    "Delete": "delete",
    "Merge": "merge",
    "Into": "create",
    "Create": "create",
    "Drop": "drop",
    "Copy": "copy",
}
"""What may stand within another statement, by its class in the parser."""


@lru_cache(maxsize=1024)
def kinds(sql: str) -> frozenset[str]:
    """The kinds in one statement: a `with` that deletes is `select` and `delete`, `select into` also `create`.

    Raises `UnreadableStatement`.
    """
    code = code_of(sql).text
    if _COPY_IN.match(code):
        raise UnreadableStatement("it copies from STDIN, and there is nothing to read; use INSERT with parameters")
    found = _kinds(sql) | _kinds(code)
    if outside := _OUTSIDE.match(code):
        return found - {outside[1].lower()} | {f"{outside[1]} {outside[2]}".lower()}
    return found


def copied(sql: str) -> bool:
    """Whether it copies rows to the client."""
    return _COPY.match(code_of(sql).text) is not None


def _kinds(sql: str) -> frozenset[str]:
    parser = _parser()
    try:
        tokens = parser.tokenize(sql, dialect="postgres")
        trees = [tree for tree in parser.parse(sql, dialect="postgres") if tree is not None]
    except (parser.errors.SqlglotError, RecursionError, ValueError) as error:
        raise UnreadableStatement(f"it does not parse: {str(error).splitlines()[0][:200]}") from None
    if len(trees) != 1 or not tokens:
        raise UnreadableStatement(f"it holds {len(trees)} statements; write each as an entry of its own")
    first, tree = tokens[0].text.lower(), trees[0]
    if first == "explain":
        return frozenset({"explain"}) | _explained(sql[tokens[0].end + 1 :])
    found = {_WITHIN[name] for node in tree.walk() if (name := type(node).__name__) in _WITHIN}
    if isinstance(tree, parser.exp.Query | parser.exp.Values):
        if first not in _QUERY_WORDS:
            raise UnreadableStatement(f"it begins with {first!r} and reads as a query")
        return frozenset(found | {"select"})
    if not sql[tokens[0].start].isalpha():
        raise UnreadableStatement(f"it begins with {first!r}")
    if first == "with" and not found:
        raise UnreadableStatement("what comes after WITH cannot be told")
    return frozenset(found | {first} if first != "with" else found)


def gives_no_rows(sql: str) -> bool:
    """Whether it is a change without RETURNING, or of the schema. For a statement that `kinds` accepted."""
    tree: Any = _parser().parse_one(sql, dialect="postgres")
    if type(tree).__name__ in {"Create", "Drop", "Alter", "TruncateTable"}:
        return True
    changes = type(tree).__name__ in {"Insert", "Update", "Delete", "Merge"}
    return changes and tree.find(_parser().exp.Returning) is None


def _explained(rest: str) -> frozenset[str]:
    """The kinds of the statement that is explained: ANALYZE performs it."""
    for token in _parser().tokenize(rest, dialect="postgres"):
        if token.text.lower() in _EXPLAINED_WORDS:
            return _kinds(rest[token.start :])
    raise UnreadableStatement("what EXPLAIN explains cannot be told")


@cache
def _parser() -> ModuleType:
    """Imported on first use: it takes a third of a second, and most policies are about something else."""
    import sqlglot

    logging.getLogger("sqlglot").setLevel(logging.ERROR)
    return sqlglot
