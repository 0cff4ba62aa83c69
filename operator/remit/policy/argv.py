"""A command as policy sees it: which arguments are acceptable at all, and how they are written on one line.

Accepted are Unicode characters except: controls (newline, tab, NUL, escape …), lone surrogates, line and paragraph
separators, every space but U+0020, and what is not visible (format characters, variation selectors, fillers …). So
`\\s` in a pattern can only meet a plain space, and `.` never has a line's end to stop at. Text of several lines belongs
in a `script`. Letters that only look alike are accepted: a pattern that names its characters does not match them.
"""

from __future__ import annotations

import shlex
import unicodedata
from collections.abc import Sequence
from typing import Final

import regex

from remit.errors import InvalidInput

MAX_CHARACTERS: Final = 64 * 1024
"""Limit of all arguments together. Every rule reads all of them, and other decisions wait meanwhile."""
_REFUSED: Final = regex.compile(
    # The general categories of controls, formats, surrogates and separators; the property Default_Ignorable_Code_Point
    # (https://www.unicode.org/reports/tr44/#Default_Ignorable_Code_Point), which some letters and marks also have; and
    # two symbols that are drawn as a blank.
    r"(?V1)[[\p{Cc}\p{Cf}\p{Cs}\p{Z}\p{Default_Ignorable_Code_Point}\p{Noncharacter_Code_Point}"
    r"\N{BRAILLE PATTERN BLANK}\N{MUSICAL SYMBOL NULL NOTEHEAD}]--[\ ]]"
)
_KINDS: Final = {
    "Cc": "a control character",
    "Cf": "an invisible format character",
    "Cs": "a byte that is not valid UTF-8",
    "Zl": "a line separator",
    "Zp": "a paragraph separator",
    "Zs": "a space other than the plain one",
}
_OPERATORS: Final = frozenset(";&|<>()`")
_SHELL_WORDS: Final = frozenset({"|", "||", "&&", "&", ";", ">", ">>", "<", "2>&1", "2>", "&>"})


def canonical(argv: Sequence[str]) -> str:
    """The one line that patterns are matched against. Different argument lists never give the same line."""
    return shlex.join(argv)


def unacceptable(argv: Sequence[str]) -> str | None:
    """None, or what is wrong with a command before any rule is asked."""
    if not argv or not argv[0]:
        return "the command is empty"
    if (length := sum(map(len, argv))) > MAX_CHARACTERS:
        return (
            f"the command has {length} characters, {MAX_CHARACTERS} are the most; pass long text by stdin or in a file"
        )
    for index, argument in enumerate(argv):
        if refused := refused_character(argument):
            column, what = refused
            return (
                f"argument {index} has {what} (U+{ord(argument[column - 1]):04X}) in column {column};"
                " no command with such a character is run, use a script for text of several lines"
            )
    if takes_a_detour(argv[0]):
        return f"the program {argv[0]!r} takes a detour; write its path without '..', '//' or a final '/'"
    return None


def takes_a_detour(path: str) -> bool:
    """Whether a path has parts that lead nowhere or back, so that it is not the only way to write it."""
    first, *rest = path.split("/")
    parts = rest if first in {"", "."} else [first, *rest]
    return any(part in {"", ".", ".."} for part in parts)


def refused_character(text: str) -> tuple[int, str] | None:
    """Column, counted from 1, and description of the first character that is not accepted."""
    if text.isascii() and text.isprintable():
        return None
    refused = _REFUSED.search(text)
    if refused is None:
        return None
    return refused.start() + 1, _KINDS.get(unicodedata.category(refused[0]), "an invisible character")


def split_line(line: str) -> list[str]:
    """The words of `line`, split and unquoted as a POSIX shell does it, with nothing expanded.

    Raises `InvalidInput` for an open quote, and for an unquoted operator such as `|` or `>`: without a shell it would
    silently be an argument.
    """
    line = line.strip()
    quote = ""
    characters = enumerate(line, start=1)
    for column, character in characters:
        if character == "\\" and quote != "'":
            next(characters, None)
        elif quote:
            quote = "" if character == quote else quote
        elif character in "'\"":
            quote = character
        elif character in _OPERATORS or character in "\r\n":
            raise InvalidInput(
                f"column {column}: no shell reads the line, so {character!r} has no effect; quote it, or use a script"
            )
    try:
        return shlex.split(line)
    except ValueError as error:
        raise InvalidInput(f"the line cannot be split: {str(error).lower()}") from None


def shell_words(argv: Sequence[str]) -> list[str]:
    """Arguments that look as if somebody had a shell in mind."""
    return [argument for argument in argv[1:] if argument in _SHELL_WORDS]
