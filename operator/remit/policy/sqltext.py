r"""Where the code of an SQL text is, by PostgreSQL's own lexical rules (its scan.l). Pure.

A statement is hidden from a parser by making it take code for a string or a comment: `1 #-- ' …` begins a comment for
PostgreSQL, and for others an operator `#-` and, after a minus, a string. So the text is also read the server's way, and
what is no code is put away: a comment becomes a space and a string `'1'`. This holds under
`standard_conforming_strings = on` and UTF-8, which the connection sees to.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

_TOKEN: Final = re.compile(
    r"""
      (?P<comment> --[^\n\r]* )
    | (?P<block> /\* )
    | (?P<unicode> [uU]&["'] )
    | (?P<escaped> [eE]' )
    | (?P<plain> ' )
    | (?P<dollar> \$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$ )
    | (?P<quoted> "(?:[^"]|"")*" )
    | (?P<name> [A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]* )
    | (?P<other> . )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE: Final = re.compile(r"/\*|\*/")
_REST: Final = {"plain": re.compile(r"(?:[^']|'')*'"), "escaped": re.compile(r"(?:[^'\\]|\\.|'')*'", re.DOTALL)}
_CONTINUED: Final = re.compile(r"(?:[ \t\f\v]|--[^\n\r]*)*[\n\r](?:[ \t\f\v\n\r]|--[^\n\r]*[\n\r])*'")
"""A string goes on, by the rules that it began with, where only blanks and a line's end part it from the next one."""


class UnreadableStatement(ValueError):
    """It is not one statement of PostgreSQL, as far as can be told; the message says why."""


@dataclass(frozen=True, slots=True)
class Code:
    """What of a text is code."""

    text: str
    names: frozenset[str]
    """Every name in it, as PostgreSQL folds it."""


@lru_cache(maxsize=1024)
def code_of(sql: str) -> Code:
    """Raises `UnreadableStatement` for what is not closed, and for what cannot be read in one way only."""
    if "\0" in sql:
        raise UnreadableStatement("it has a NUL, which ends a text for the server")
    parts: list[str] = []
    names: set[str] = set()
    at = 0
    while token := _TOKEN.match(sql, at):
        kind, text, at = token.lastgroup or "", token.group(), token.end()
        match kind:
            case "unicode":
                raise UnreadableStatement(f"it has {text}; write the characters themselves")
            case "comment":
                text = " "
            case "block":
                text, at = " ", _end_of_block(sql, at)
            case "plain" | "escaped":
                text, at = "'1'" if kind == "plain" else " '1'", _end_of_string(sql, at, _REST[kind])
            case "dollar":
                text, at = " '1' ", _end_of_dollars(sql, at, text)
            case "quoted":
                names.add(text[1:-1].replace('""', '"'))
            case "name":
                if not text.replace("$", "_").isidentifier():
                    raise UnreadableStatement(f"the name {text!r} has characters that belong into double quotes")
                names.add(text.lower())
        if text == '"':
            raise UnreadableStatement("a quoted name does not end")
        parts.append(text)
    return Code("".join(parts), frozenset(names))


def _end_of_block(sql: str, at: int) -> int:
    """Comments nest."""
    depth = 1
    while depth:
        edge = _BLOCK_EDGE.search(sql, at)
        if edge is None:
            raise UnreadableStatement("a comment does not end")
        depth, at = depth + (1 if edge.group() == "/*" else -1), edge.end()
    return at


def _end_of_string(sql: str, at: int, rest: re.Pattern[str]) -> int:
    while True:
        end = rest.match(sql, at)
        if end is None:
            raise UnreadableStatement("a string does not end")
        further = _CONTINUED.match(sql, end.end())
        if further is None:
            return end.end()
        at = further.end()


def _end_of_dollars(sql: str, at: int, tag: str) -> int:
    end = sql.find(tag, at)
    if end < 0:
        raise UnreadableStatement(f"the string after {tag} does not end")
    return end + len(tag)
