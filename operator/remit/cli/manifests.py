"""Manifests that are named on the command line."""

from __future__ import annotations

import sys
from pathlib import Path

from remit.regularfile import MOST_BYTES, as_text, read_text


def read(path: Path) -> str:
    """The text of a file, or of standard input for `-`. Raises `OSError` and `InvalidInput`."""
    if str(path) == "-":
        return as_text(sys.stdin.buffer.read(MOST_BYTES + 1), "standard input")
    return read_text(path)
