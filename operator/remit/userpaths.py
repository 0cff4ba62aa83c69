"""The directories of the user that this process runs as."""

from __future__ import annotations

import os
from pathlib import Path

NO_HOME = Path("/nonexistent")


def home() -> Path:
    """This user's home directory. `/nonexistent` for one who has none: no entry in passwd, and no HOME."""
    try:
        return Path.home()
    except RuntimeError:
        return NO_HOME


def default_state_dir() -> Path:
    """/var/lib/remit for root, else what XDG says."""
    if os.geteuid() == 0:
        return Path("/var/lib/remit")
    return Path(os.environ.get("XDG_STATE_HOME") or home() / ".local/state") / "remit"


def may_hold_state(directory: Path) -> bool:
    """Whether this user may write into the directory, or make it where it is not there yet."""
    there = next(path for path in (directory, *directory.absolute().parents) if path.exists())
    return there.is_dir() and os.access(there, os.W_OK | os.X_OK)
