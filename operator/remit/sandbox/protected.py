"""Refuses mounts of the operator's own files and of the kernel's filesystems, under whatever name they are found."""

from __future__ import annotations

import contextlib
import errno
import os
import posixpath
import re
import stat
from collections.abc import Iterable, Sequence
from pathlib import Path

from remit.sandbox.beneath import open_path
from remit.sandbox.mounttable import filesystem_of, is_local, line_of, mount_id, mount_table

_KERNEL = frozenset(
    {"binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl"}
    | {"mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs"}
)
"""Filesystems that are interfaces of the kernel."""
_MOST_LOOKS = 10
_Id = tuple[int, int]


class Protected:
    """Files and folders that are never mounted. They are compared by device and inode, because bind mounts give one
    folder many names."""

    def __init__(self, paths: Iterable[str], *, may_wait: bool = True) -> None:
        """For a path that does not exist, the folders in which it could be created are protected. Unless it `may_wait`,
        it raises BlockingIOError where a filesystem would have to be asked."""
        self._themselves: dict[_Id, str] = {}
        self._above: dict[_Id, str] = {}
        above: dict[str, str] = {}
        # Every attempt with a mount waits for this, so each folder is looked up once, however many paths share it.
        for path in paths:
            here, identity = _looked_up(path, may_wait)
            if identity:
                self._themselves[identity] = path
            while (folder := posixpath.dirname(here)) != here:
                above.setdefault(folder, path)
                here = folder
        for folder, path in above.items():
            with contextlib.suppress(OSError):
                self._above.setdefault(_id(os.stat(folder)), path)  # noqa: PTH116

    def objections(self, descriptors: Sequence[int], *, may_wait: bool = True) -> list[str | None]:
        """Give for each descriptor why it must not be mounted, or None. Filesystems that are mounted beneath it are
        checked too. The kernel generates the mount table at each read, so it is read once for all descriptors. It is
        not kept for later: renaming a folder above a mount point changes it, and poll(2) does not report that.

        Unless it `may_wait`, it raises BlockingIOError for all but folders on local filesystems that have no other
        filesystem beneath them.
        """
        found: list[str | None] = [None] * len(descriptors)
        on = [mount_id(descriptor) for descriptor in descriptors]
        left = list(range(len(descriptors)))
        for _ in range(_MOST_LOOKS):
            if not left:
                return found
            paths = {number: _path(descriptors[number]) for number in left}
            mounts = mount_table()
            if not may_wait:
                for number in left:
                    _check_local(descriptors[number], mounts, on[number])
            for number, path in paths.items():
                descriptor = descriptors[number]
                if _path(descriptor) == path:
                    to_itself = self._objection_to_itself(descriptor)
                    found[number] = to_itself or self._objection_to_mounts(mounts, path, on[number], may_wait)
                    left.remove(number)
        for number in left:
            path = _path(descriptors[number])
            found[number] = f"{path} is being renamed, so that what is mounted in it cannot be told; try again"
        return found

    def _objection_to_itself(self, descriptor: int) -> str | None:
        if (within := self._within(descriptor)) is not None:
            return f"{_path(descriptor)} is part of {within}, which is never mounted"
        if (beneath := self._above.get(_id(os.fstat(descriptor)))) is not None:
            path = _path(descriptor)
            return f"{path} has {beneath} in it, which is never mounted; mount the folders beneath it that are needed"
        return None

    def _within(self, descriptor: int) -> str | None:
        """Give the protected path that the descriptor refers to or lies in."""
        here = os.dup(descriptor)
        try:
            root, before = _id(Path("/").stat()), None
            while True:
                found = _id(os.fstat(here))
                if found in self._themselves:
                    return self._themselves[found]
                if found == before == root:  # excludes `/` that is also mounted elsewhere
                    return None
                before = found
                above = _above(here)
                if above is None:
                    return None
                os.close(here)
                here = above
        finally:
            os.close(here)

    def _objection_to_mounts(self, mounts: bytes, path: str, on: bytes, may_wait: bool) -> str | None:
        """Check the mounts beneath `path`, and the mount with the id `on` that contains it."""
        inside = os.fsencode(path.rstrip("/") + "/")
        for line in _lines_about(mounts, inside, on):
            number, _, _, _, escaped, _ = line.split(b" ", 5)
            point = _unescaped(escaped)
            beneath = point.startswith(inside)
            if not beneath and number != on:
                continue
            kind = filesystem_of(line).decode()
            if kind in _KERNEL:
                what = f"has {os.fsdecode(point)} in it, which is" if beneath else "is"
                return f"{path} {what} part of the host's {kind}, and that is never mounted"
            if beneath:
                if not may_wait:
                    raise BlockingIOError(errno.EAGAIN, "a filesystem is mounted there", os.fsdecode(point))
                with contextlib.suppress(OSError):
                    found = _id(Path(os.fsdecode(point)).stat())
                    if protected := self._themselves.get(found) or self._above.get(found):
                        return (
                            f"{path} has {os.fsdecode(point)} in it, where {protected} is, too, which is never mounted"
                        )
        return None


def _check_local(descriptor: int, mounts: bytes, on: bytes) -> None:
    """Raises BlockingIOError unless the descriptor is of a folder on a local filesystem. Only then are the folders
    above it found without a lookup by name, and the kernel tells from memory what they are."""
    if not is_local(mounts, on) or not stat.S_ISDIR(os.fstat(descriptor).st_mode):
        raise BlockingIOError(errno.EAGAIN, "it may be slow to answer", _path(descriptor))


def _lines_about(mounts: bytes, inside: bytes, on: bytes) -> list[bytes]:
    """Select the few relevant ones of possibly thousands: mounts that may be beneath `inside`, and the mount `on`."""
    own = on + b" "
    if inside not in mounts and b"\\" not in mounts:
        return [line] if (line := line_of(mounts, on)) else []
    lines = mounts.strip(b"\n").split(b"\n")
    return [line for line in lines if inside in line or b"\\" in line or line.startswith(own)]


def _looked_up(path: str, may_wait: bool) -> tuple[str, _Id | None]:
    """Give the path without links and its identity, or None if it does not exist. Opening it gives both with one
    lookup, where realpath makes one for each component."""
    try:
        descriptor = open_path(path, os.O_PATH | os.O_CLOEXEC, may_wait=may_wait)
    except BlockingIOError:
        raise
    except OSError:
        here = os.path.realpath(path)
        with contextlib.suppress(OSError):
            return here, _id(os.stat(here))  # noqa: PTH116
        return here, None
    try:
        return _path(descriptor), _id(os.fstat(descriptor))
    finally:
        os.close(descriptor)


def _path(descriptor: int) -> str:
    """Give the current path of a descriptor, or what the kernel shows in its place."""
    return os.readlink(f"/proc/self/fd/{descriptor}")  # noqa: PTH115


def _id(status: os.stat_result) -> _Id:
    return status.st_dev, status.st_ino


def _above(descriptor: int) -> int | None:
    """Open the parent folder. For a file it is looked up by name, because the kernel offers nothing else; None if that
    fails."""
    try:
        return os.open("..", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=descriptor)
    except NotADirectoryError:
        name = _path(descriptor)
        with contextlib.suppress(OSError):
            return os.open(os.path.dirname(name), os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)  # noqa: PTH120
        return None


def _unescaped(point: bytes) -> bytes:
    """Decode a path of /proc/self/mountinfo, which has blanks and backslashes in octal."""
    return re.sub(rb"\\([0-7]{3})", lambda code: bytes([int(code[1], 8)]), point) if b"\\" in point else point
