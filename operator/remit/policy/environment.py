"""The environment of a program that is started: its variables, its private files and its working directory.

A program can be made to load or run something else by its environment (`LD_PRELOAD`, `GIT_SSH_COMMAND`), by files where
it looks for configuration (`.gitconfig`, `package.json`), and by the directory that it is started in. No list of such
names is ever complete, so nothing is allowed because it is missing from one: a policy lists what tasks may set.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import Final

from remit.policy import needs
from remit.policy.patterns import Pattern
from remit.sandboxpaths import WORKSPACE

HARMLESS: Final = frozenset(
    {
        *("LANG", "LANGUAGE", "TZ", "TERM", "NO_COLOR", "COLUMNS", "LINES"),
        *("LC_ALL", "LC_ADDRESS", "LC_COLLATE", "LC_CTYPE", "LC_IDENTIFICATION", "LC_MEASUREMENT", "LC_MESSAGES"),
        *("LC_MONETARY", "LC_NAME", "LC_NUMERIC", "LC_PAPER", "LC_TELEPHONE", "LC_TIME"),
    }
)
"""Variables that need no policy: language, time zone and the terminal's size, in the spelling that programs read.

Only with a plain value: gettext, the C library and terminal libraries read a file where the value is a path.
"""
_PLAIN: Final = re.compile(r"(?:[A-Za-z0-9@_+-]+(?:[./:][A-Za-z0-9@_+-]+)*)?")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_SHOWN_NAMES: Final = 5
_LONGEST_LINE: Final = 400

MAX_NAMES: Final = 1500
"""Limit of the names: as many as a sandbox accepts. Each is matched with all patterns of a policy."""
FREE_FILES: Final = ("/run/private/*",)
"""Where private files need no policy. No program looks there by itself, and it is above no folder that a program starts
in: node reads the nearest `package.json` above a script, and scripts are in `/run/remit`."""


def needing_permission(variables: Mapping[str, str | None]) -> frozenset[str]:
    """The names that a policy has to list. A value of None is not known yet, so it is not known to be plain."""
    return frozenset(
        name
        for name, value in variables.items()
        if name not in HARMLESS or value is None or not _PLAIN.fullmatch(value)
    )


def refused_names(names: Collection[str]) -> str | None:
    """None, or what is wrong with names that no policy can allow: shells and loggers take odd ones apart."""
    if len(names) > MAX_NAMES:
        return f"{len(names)} environment variables are set, and {MAX_NAMES} are the most; take fewer by envFrom"
    wrong = sorted(name for name in names if not _NAME.fullmatch(name))
    if not wrong:
        return None
    shown = ", ".join(ascii(name[:64]) for name in wrong[:_SHOWN_NAMES])
    return (
        f"{shown}: the name of an environment variable has letters, digits and underscores only; rename the key that"
        " envFrom takes it from, or refer to it by env[].valueFrom"
    )


def unlisted_names(names: Iterable[str], allowed: Sequence[Pattern]) -> list[str]:
    """The `names` that no pattern of `allowed` matches, sorted."""
    return sorted(name for name in names if not any(pattern.matches(name) for pattern in allowed))


def unlisted_names_message(policy: str, names: Sequence[str], allowed: Sequence[str]) -> str:
    """Tells which names a policy lacks, and the line that its spec needs."""
    shown = [*names[:_SHOWN_NAMES], *([f"{len(names) - _SHOWN_NAMES} more"] if len(names) > _SHOWN_NAMES else [])]
    listed = " and ".join(filter(None, [", ".join(shown[:-1]), shown[-1]]))
    which = "the environment variable" if len(names) == 1 else f"{len(names)} environment variables:"
    line = needs.line(needs.environment([*allowed, *names]))
    remedy = f"its spec needs `{line}`" if len(line) <= _LONGEST_LINE else "list them in its spec.environment.allow"
    return f"policy {policy} does not allow {which} {listed}; {remedy}"


def unlisted_files(paths: Iterable[str], allowed: Sequence[str]) -> list[str]:
    """Select those of `paths` that a program may read unasked, such as `/workspace/.gitconfig`, and that no glob of
    `allowed` covers, sorted."""
    return sorted(path for path in paths if not any(fnmatchcase(path, glob) for glob in (*FREE_FILES, *allowed)))


def misplaced_working_dir(path: str, mounted: Collection[str], *, starts_program: bool) -> str | None:
    """None, or why a task cannot have the working directory `path`. `mounted`: where its volumes are; `starts_program`:
    it starts one in its sandbox."""
    if path != WORKSPACE and not starts_program:
        return f"workingDir {path!r} goes with command, script and the start of a process; leave it out"
    if not any(path == folder or path.startswith(f"{folder}/") for folder in (WORKSPACE, *mounted)):
        return (
            f"workingDir {path!r} is neither in the task's private workspace, {WORKSPACE}, nor in a mounted folder;"
            " mount the folder by volumes and volumeMounts, or use one that is"
        )
    return None
