"""Files of the operator alone."""

from __future__ import annotations

from pathlib import Path

from remit.privatefiles import replace_private


def write(path: Path, content: bytes) -> None:
    """Whole or not at all, and on the disk when it returns. Folders that are missing are made."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    replace_private(path, content)
