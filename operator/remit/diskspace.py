"""How much of a disk may be used: the audit trail needs what is left, and without it nothing would run."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Final

_RESERVE_BYTES: Final = 256 * 1024**2
_RESERVE_SHARE: Final = 20


def nearly_full(place: Path | int) -> bool:
    """Whether nothing else may be kept there any more, a folder or a descriptor: the last 256 MiB, or the last
    twentieth, are for the audit trail. Raises OSError."""
    disk = os.statvfs(place)
    return disk.f_bavail * disk.f_frsize < min(_RESERVE_BYTES, disk.f_blocks * disk.f_frsize // _RESERVE_SHARE)


def no_space_left() -> OSError:
    """What is raised where it is nearly full."""
    return OSError(errno.ENOSPC, f"{os.strerror(errno.ENOSPC)}: what is left is for the audit trail")
