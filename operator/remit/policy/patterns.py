"""RE2 patterns: matched in linear time, bounded in memory, and wrong ones explained with the column of the mistake.

Linear means: in the length of the text times the size of the pattern, for a pattern that is made to be slow. `at_most`
bounds the sum of that for many of them.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator, Sequence
from contextvars import ContextVar
from typing import Any, Final

import re2

MAX_MEMORY: Final = 1 << 20
"""Bytes that one compiled pattern may take."""

OPTIONAL: Final = "[**]"
"""Token of a glob: the two following tokens are optional."""
_TOKENS: Final = re.compile(r"(?P<folders>(?:\A|(?<=/))(?:\*\*/)+)|(?P<below>(?:/\*\*)+\Z)|\*\*|.", re.DOTALL)
_RANGE_BYTES: Final = 16
_CALL_WORK: Final = 1000
_LOOK_WORK: Final = 100
"""What it costs to call RE2 at all, and to see that it need not be: names by the thousand, held against hundreds of
patterns, add up."""
_left: ContextVar[list[int] | None] = ContextVar("work that patterns may still do", default=None)

_REMEDIES: Final = {
    "invalid perl operator": "RE2 has no look-around",
    "invalid escape sequence": "RE2 has no back-references; a literal backslash is written as \\\\",
    "pattern too large": "use shorter repetitions",
    "invalid repetition size": "repetitions, multiplied where they are nested, may be at most 1000",
    "bad repetition operator": "put the inner repetition in ( )",
    "no argument for repetition operator": "a literal * + or ? is written with a backslash before it",
}


class BadPattern(ValueError):
    """A pattern that does not compile. `column` counts characters from 1."""

    def __init__(self, message: str, column: int) -> None:
        super().__init__(f"column {column}: {message}")
        self.column = column


class TooMuchWork(Exception):
    """Patterns have done as much as they may."""


@contextlib.contextmanager
def at_most(work: int) -> Iterator[None]:
    """In this block, `matches` raises `TooMuchWork` once all together would have taken more than `work` steps: bytes of
    text times RE2 instructions, a few nanoseconds each. What cannot match by its first bytes costs next to none."""
    token = _left.set([work])
    try:
        yield
    finally:
        _left.reset(token)


class Pattern:
    """A compiled pattern, which a text must match from its first to its last character, or (`is_in`) anywhere."""

    __slots__ = ("_range", "_regexp", "source")

    def __init__(self, source: str) -> None:
        """Raises `BadPattern`."""
        self.source = source
        self._regexp = _compile(source)
        self._range = _range(self._regexp)

    @property
    def size(self) -> int:
        """How big the compiled program is, in instructions."""
        return int(self._regexp.programsize)

    def matches(self, text: str) -> bool:
        data = text.encode(errors="surrogatepass")
        least, most = self._range
        possible = least <= data <= most
        if (left := _left.get()) is not None:
            left[0] -= _CALL_WORK + self.size * len(data) if possible else _LOOK_WORK
            if left[0] < 0:
                raise TooMuchWork
        return possible and self._regexp.fullmatch(text) is not None

    def is_in(self, text: str) -> bool:
        """Whether some part of the text matches."""
        return self._regexp.search(text) is not None

    def __repr__(self) -> str:
        return f"Pattern({self.source!r})"


def glob(text: str) -> Pattern:
    """A pattern in which `*` stands for any characters, `?` for one, and all else for itself."""
    return Pattern("".join({"*": ".*", "?": "."}.get(character) or str(re2.escape(character)) for character in text))


def any_of(patterns: Sequence[Pattern]) -> Pattern | None:
    """One pattern that matches what some of `patterns` match; None where there are none."""
    return Pattern("|".join(f"(?:{pattern.source})" for pattern in patterns)) if patterns else None


def path_glob(text: str) -> Pattern:
    """A pattern over absolute paths: `*` and `?` stand for characters of one name, `**` for any, slashes included.

    Between two slashes `**` stands for any number of folders, none included: `/a/**/b` is `/a/b`, too. `/a/**` is
    everything below `/a`, and `/a` itself.
    """
    tokens = iter(path_tokens(text))
    return Pattern(
        "".join(f"(?:{_re2(next(tokens))}{_re2(next(tokens))})?" if t == OPTIONAL else _re2(t) for t in tokens)
    )


def path_tokens(text: str, *, folder_itself: bool = True) -> list[str]:
    """The tokens that `path_glob` reads in a glob: wildcards, `OPTIONAL`, and all other characters one by one. Without
    `folder_itself`, `a/**` is only what is below `a`."""
    tokens: list[str] = []
    for found in _TOKENS.finditer(text):
        if found["folders"]:
            tokens += [OPTIONAL, "**", "/"]
        elif found["below"]:
            tokens += [OPTIONAL, "/", "**"] if folder_itself else ["/", "**"]
        else:
            tokens.append(found[0])
    return tokens


def _re2(token: str) -> str:
    return {"**": ".*", "*": "[^/]*", "?": "[^/]"}.get(token) or str(re2.escape(token))


def _compile(source: str) -> Any:
    options = re2.Options()
    options.max_mem = MAX_MEMORY
    options.never_capture = True
    options.log_errors = False
    try:
        return re2.compile(source, options)
    except UnicodeEncodeError as error:
        raise BadPattern("not valid Unicode", error.start + 1) from None
    except re2.error as error:
        text = error.args[0].decode(errors="replace") if isinstance(error.args[0], bytes) else str(error.args[0])
        what, _, fragment = text.partition(": ")
        remedy = next((f"; {remedy}" for start, remedy in _REMEDIES.items() if what.startswith(start)), "")
        shown = f" {fragment!r}" if fragment and fragment != source else ""
        raise BadPattern(f"{what}{shown}{remedy}", _column(source, what, fragment)) from None


def _range(regexp: Any) -> tuple[bytes, bytes]:
    """All that matches lies between these, in the order of bytes."""
    try:
        least, most = regexp.possiblematchrange(_RANGE_BYTES)
    except re2.error:  # a match may begin with any byte
        return b"", b"\xff"
    return least, most


def _column(source: str, what: str, fragment: str) -> int:
    """The column of the mistake. RE2 names the offending piece, but not its position."""
    if what.startswith("missing )"):
        opened = [i for i, character in enumerate(source) if character == "(" and _error(source[:i]) == ""]
        return opened[-1] + 1 if opened else 1
    if what.startswith("unexpected )"):
        return next(i for i, c in enumerate(source, start=1) if c == ")" and _error(source[:i]).startswith(what))
    if not fragment:
        return max(1, len(source))
    position = source.find(fragment)
    while position >= 0:  # the fragment may occur earlier, so use the occurrence after which RE2 reports the error
        if _error(source[: position + len(fragment)]).startswith(what):
            return position + 1
        position = source.find(fragment, position + 1)
    return 1


def _error(source: str) -> str:
    options = re2.Options()
    options.log_errors = False
    try:
        re2.compile(source, options)
    except re2.error as error:
        return bytes(error.args[0]).decode(errors="replace")
    return ""
