r"""The code of an SQL text, by PostgreSQL's own lexical rules (its scan.l). Pure.

What is no code is put away: a comment becomes a space and a string `'1'`. So a statement cannot be hidden by making it
look like a string or a comment: `1 #-- ' …` begins a comment for PostgreSQL, and for other readers an operator `#-`
and, after a minus, a string. This holds under `standard_conforming_strings = on` and UTF-8, which the connection sees
to. The time is linear in the length of the text.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from remit.policy.argv import refused_character

_TOKEN: Final = re.compile(
    r"""
      (?P<comment> --[^\n\r]* )
    | (?P<block> /\* )
    | (?P<unicode> [uU]&["'] )
    | (?P<escaped> [eE]' )
    | (?P<plain> ' )
    | (?P<dollar> \$(?:[A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_\u0080-\U0010ffff]*)?\$ )
    | (?P<parameter> \$[0-9]+ )
    | (?P<number> (?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)? )
    | (?P<quoted> "(?:[^"]|"")*+" )
    | (?P<name> [A-Za-z_\u0080-\U0010ffff][A-Za-z0-9_$\u0080-\U0010ffff]* )
    | (?P<space> [ \t\n\r\f\v]+ )
    | (?P<other> :: | . )
    """,
    re.VERBOSE | re.DOTALL,
)
_BLOCK_EDGE: Final = re.compile(r"/\*|\*/")
_REST: Final = {"plain": re.compile(r"(?:[^']|'')*'"), "escaped": re.compile(r"(?:[^'\\]|\\.|'')*'", re.DOTALL)}
_CONTINUED: Final = re.compile(r"(?:[ \t\f\v]|--[^\n\r]*+)*+[\n\r](?:[ \t\f\v\n\r]|--[^\n\r]*+[\n\r])*+'")
"""A string goes on, by the rules that it began with, where only blanks and a line's end part it from the next one."""
_STRING: Final = "'1'"
_BLANKS: Final = re.compile(r"[\t\n\r\f\v]")
_ASCII_LOWER: Final = {upper: upper + 32 for upper in range(ord("A"), ord("Z") + 1)}


class UnreadableStatement(ValueError):
    """It is not one statement of PostgreSQL, as far as can be told; the message says why."""


@dataclass(frozen=True, slots=True)
class Code:
    """The parts of a text that are code."""

    text: str
    tokens: tuple[str, ...]
    """Names as PostgreSQL folds them, or in their double quotes; `'1'` for every string; numbers; parameters such as
    `$1`; and else one character each, or `::`."""


def code_of(sql: str) -> Code:
    """Raises `UnreadableStatement` for what is not closed, and for what cannot be read in one way only."""
    if "\0" in sql:
        raise UnreadableStatement("it has a NUL, which ends a text for the server")
    if refused := refused_character(_BLANKS.sub(" ", sql)):
        column, what = refused
        raise UnreadableStatement(
            f"it has {what} (U+{ord(sql[column - 1]):04X}) as its character {column}; pass such text as a parameter"
        )
    parts: list[str] = []
    tokens: list[str] = []
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
                at = _end_of_string(sql, at, _REST[kind])
                text = _STRING if kind == "plain" else f" {_STRING}"
                tokens.append(_STRING)
            case "dollar":
                text, at = f" {_STRING} ", _end_of_dollars(sql, at, text)
                tokens.append(_STRING)
            case "name":
                if not text.replace("$", "_").isidentifier():
                    raise UnreadableStatement(f"the name {text!r} has characters that belong into double quotes")
                # As in the server, which leaves letters outside ASCII unchanged.
                tokens.append(text.translate(_ASCII_LOWER))
            case "quoted" | "number" | "parameter" | "other":
                tokens.append(text)
        if text == '"':
            raise UnreadableStatement("a quoted name does not end")
        parts.append(text)
    return Code("".join(parts), tuple(tokens))


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
