"""The command operation: from what the user wrote to the exact argv that policy judges and the kernel gets."""

from __future__ import annotations

import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from remit.api.operations import CommandOperation
from remit.errors import InvalidInput

SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where bare names are looked up. Fixed: neither the operator's nor the task's PATH has a say."""


@dataclass(frozen=True, slots=True)
class Invocation:
    """A command as it will run: `argv` as written, `executable` the absolute path that argv[0] stands for."""

    argv: tuple[str, ...]
    executable: str


def words(command: CommandOperation) -> tuple[str, ...]:
    """The arguments, split as a POSIX shell would split `line`; nothing is expanded.

    Raises `InvalidInput` for an unbalanced quote, an empty command, or a character that no argument can carry.
    """
    if command.argv is not None:
        argv, field = tuple(command.argv), "spec.command.argv"
    else:
        field = "spec.command.line"
        try:
            argv = tuple(shlex.split(command.line or ""))
        except ValueError as error:
            raise InvalidInput(f"cannot be split into words: {str(error).lower()}", field=field) from None
    if not argv or not argv[0]:
        raise InvalidInput("names no program", field=field)
    for number, argument in enumerate(argv):
        if "\0" in argument:
            raise InvalidInput("has a NUL character, which no argument can carry", field=f"{field}[{number}]")
        try:
            argument.encode()
        except UnicodeEncodeError:
            raise InvalidInput("is not valid Unicode", field=f"{field}[{number}]") from None
    return argv


def resolve(name: str, search_path: tuple[str, ...] = SEARCH_PATH) -> str:
    """The absolute path of the program called `name`. Raises `InvalidInput` when there is none.

    A path with a slash must be absolute: what a relative one means would depend on where the operator was started.
    """
    if "/" in name:
        if not name.startswith("/"):
            raise InvalidInput(f"{name!r} is a relative path; write a bare name or an absolute path")
        candidates = [Path(os.path.normpath(name))]
    else:
        candidates = [Path(directory) / name for directory in search_path]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return str(candidate)
    where = "" if "/" in name else f" in {':'.join(search_path)}"
    raise InvalidInput(f"there is no program {name!r}{where}; install it on the operator's host or write its path")


def invocation(command: CommandOperation, search_path: tuple[str, ...] = SEARCH_PATH) -> Invocation:
    """Both together, for a command that runs beside the operator."""
    argv = words(command)
    return Invocation(argv, resolve(argv[0], search_path))
