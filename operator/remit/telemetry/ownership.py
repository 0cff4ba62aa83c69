"""Whether a folder is somebody else's, who could put another into its place."""

from __future__ import annotations

import os
from pathlib import Path


def stranger(folder: Path) -> str | None:
    """None for a folder of this user's or of root's, or what is wrong with it. Raises OSError."""
    owner = folder.stat().st_uid
    if owner in {0, os.geteuid()}:
        return None
    return f"{folder} belongs to user {owner}, who could replace what is in it; choose another, or change its owner"
