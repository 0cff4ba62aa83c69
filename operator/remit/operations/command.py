"""The command operation: from what the user wrote to the program that will run."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from remit.policy.match import Command

SEARCH_PATH = ("/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin")
"""Where bare names are looked up. Fixed: neither the operator's nor the task's PATH has a say."""


def look_up(argv: Sequence[str], search_path: Sequence[str] = SEARCH_PATH, mounted: Sequence[str] = ()) -> Command:
    """The command with its program found, for one that runs beside the operator.

    A path with a slash must be absolute: what a relative one means would depend on where the operator was started. What
    lies in a `mounted` folder is there only once the task runs, whatever has that path on the host.
    """
    name = argv[0] if argv else ""
    if name.startswith("/"):
        candidates = [Path(os.path.normpath(name))]
        if any(candidates[0].is_relative_to(folder) for folder in mounted):
            return Command(tuple(argv), resolved=str(candidates[0]))
    elif "/" in name or not name or "\0" in name:
        candidates = []
    else:
        candidates = [Path(directory) / name for directory in search_path]
    for candidate in candidates:
        if candidate.is_file() and os.access(candidate, os.X_OK):
            return Command(tuple(argv), resolved=str(candidate), real=str(candidate.resolve()))
    return Command(tuple(argv))
