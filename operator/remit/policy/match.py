"""Does a rule match a command? Pure, on the exact argument list.

Allowing is exact: a bare `executable: git` matches the word `git` and nothing else, an absolute one the path that the
word resolved to. Denying is broad, so that another spelling does not get around it: a deny rule is held against the
program as written, as resolved, and where its links end, each with and without its directory.
"""

from __future__ import annotations

import functools
import posixpath
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from remit.policy.argv import canonical
from remit.policy.patterns import Pattern

_LITERAL: Final = re.compile(r"[A-Za-z0-9_/-]+(?=[ (]|$)")


@dataclass(frozen=True)
class Command:
    """An argument list, and what its program was found to be.

    `resolved` is the absolute path: from the fixed PATH for a bare name, the path itself otherwise. None when it was
    not found, or lies in an image that cannot be looked into. `real` is the same with symbolic links followed.
    """

    argv: tuple[str, ...]
    resolved: str | None = None
    real: str | None = None

    @property
    def program(self) -> str:
        return self.argv[0]

    @functools.cached_property
    def names(self) -> tuple[str, ...]:
        """Every name that its program goes by."""
        paths = [path for path in (self.program, self.resolved, self.real) if path]
        return tuple(dict.fromkeys([*paths, *map(posixpath.basename, paths)]))

    @functools.cached_property
    def line(self) -> str:
        """The text that patterns are matched against. It is kept, because every rule asks for it."""
        return canonical(self.argv)

    @functools.cached_property
    def lines(self) -> tuple[str, ...]:
        """The same under each of `names`."""
        return tuple(canonical((name, *self.argv[1:])) for name in self.names)


class Matcher(Protocol):
    @property
    def size(self) -> int:
        """The size in RE2 instructions."""
        ...

    @property
    def about(self) -> str:
        """The program that it is meant for; empty when that cannot be told."""
        ...

    def allows(self, command: Command) -> bool: ...

    def denies(self, command: Command) -> bool: ...

    def concerns(self, command: Command) -> bool:
        """Whether it is meant for the command's program."""
        ...

    def near_miss(self, command: Command) -> str | None:
        """Why a rule that concerns the command does not match it, if that can be said; None otherwise."""
        ...

    def __str__(self) -> str:
        """The pattern as shown to users."""
        ...


@dataclass(frozen=True)
class PatternMatcher:
    """Matches the whole canonical line, with the program as written."""

    pattern: Pattern

    @property
    def size(self) -> int:
        return self.pattern.size

    def allows(self, command: Command) -> bool:
        return self.pattern.matches(command.line)

    def denies(self, command: Command) -> bool:
        return any(self.pattern.matches(line) for line in command.lines)

    @property
    def about(self) -> str:
        word = _LITERAL.match(self.pattern.source)
        return word[0] if word else ""

    def concerns(self, command: Command) -> bool:
        return self.about == command.program

    def near_miss(self, command: Command) -> str | None:
        return None

    def __str__(self) -> str:
        return self.pattern.source


@dataclass(frozen=True)
class ExecutableMatcher:
    """Matches a program, and its arguments one by one. `args` None: any arguments."""

    executable: str
    args: tuple[Pattern, ...] | None = None
    more: bool = False
    """Whether further arguments may follow."""

    @property
    def size(self) -> int:
        return sum(pattern.size for pattern in self.args or ())

    def allows(self, command: Command) -> bool:
        return self._is_program(command) and self._arguments_match(command.argv[1:])

    def denies(self, command: Command) -> bool:
        return self.executable in command.names and self._arguments_match(command.argv[1:])

    @property
    def about(self) -> str:
        return self.executable

    def concerns(self, command: Command) -> bool:
        return self._is_program(command)

    def near_miss(self, command: Command) -> str | None:
        arguments = command.argv[1:]
        wanted = self.args or ()
        for number, (pattern, argument) in enumerate(zip(wanted, arguments, strict=False), start=1):
            if not pattern.matches(argument):
                return f"argument {number} is {argument[:100]!r}, which does not match {pattern.source!r}"
        if len(arguments) < len(wanted):
            return f"argument {len(arguments) + 1} is missing; it must match {wanted[len(arguments)].source!r}"
        return f"only {len(wanted)} arguments are allowed, {len(arguments)} are given"

    def _is_program(self, command: Command) -> bool:
        if self.executable.startswith("/"):
            return (command.resolved or command.program) == self.executable
        found_under_its_name = command.resolved is None or posixpath.basename(command.resolved) == self.executable
        return command.program == self.executable and found_under_its_name

    def _arguments_match(self, arguments: Sequence[str]) -> bool:
        if self.args is None:
            return True
        if len(arguments) < len(self.args) or (len(arguments) > len(self.args) and not self.more):
            return False
        return all(pattern.matches(argument) for pattern, argument in zip(self.args, arguments, strict=False))

    def __str__(self) -> str:
        if self.args is None:
            return f"{self.executable} …"
        return " ".join([self.executable, *(pattern.source for pattern in self.args), *(["…"] if self.more else [])])
