"""Refuses mounts of the operator's own files and of the kernel's filesystems, under whatever name they are found."""

from __future__ import annotations

import contextlib
import os
import posixpath
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

_KERNEL = frozenset(
    {"binfmt_misc", "bpf", "cgroup", "cgroup2", "configfs", "debugfs", "devpts", "devtmpfs", "efivarfs", "fusectl"}
    | {"mqueue", "nsfs", "proc", "pstore", "securityfs", "selinuxfs", "sysfs", "tracefs"}
)
"""Filesystems that are interfaces of the kernel."""
_MOST_LOOKS = 10
_CHUNK = 1 << 16
_Id = tuple[int, int]


class Protected:
    """Files and folders that are never mounted. They are compared by device and inode, because bind mounts give one
    folder many names."""

    def __init__(self, paths: Iterable[str]) -> None:
        """For a path that does not exist, the folders in which it could be created are protected."""
        self._themselves: dict[_Id, str] = {}
        self._above: dict[_Id, str] = {}
        above: dict[str, str] = {}
        # Every attempt with a mount waits for this, so each folder is looked up once, however many paths share it.
        for path in paths:
            here, identity = _looked_up(path)
            if identity:
                self._themselves[identity] = path
            while (folder := posixpath.dirname(here)) != here:
                above.setdefault(folder, path)
                here = folder
        for folder, path in above.items():
            with contextlib.suppress(OSError):
                self._above.setdefault(_id(os.stat(folder)), path)  # noqa: PTH116

    def objections(self, opened: Sequence[tuple[int, os.stat_result]]) -> list[str | None]:
        """Give for each descriptor why it must not be mounted, or None. Filesystems that are mounted beneath it are
        checked too. The kernel generates the mount table at each read, so it is read once for all descriptors. It is
        not kept for later: renaming a folder above a mount point changes it, and poll(2) does not report that."""
        found = [self._objection_to_itself(*each) for each in opened]
        left = [number for number, objection in enumerate(found) if objection is None]
        for _ in range(_MOST_LOOKS):
            if not left:
                return found
            paths = {number: _path(opened[number][0]) for number in left}
            mounts = b"\n" + _content("/proc/self/mountinfo")
            for number, path in paths.items():
                descriptor, _ = opened[number]
                if _path(descriptor) == path:
                    found[number] = self._objection_to_mounts(mounts, path, _mount_id(descriptor))
                    left.remove(number)
        for number in left:
            path = _path(opened[number][0])
            found[number] = f"{path} is being renamed, so that what is mounted in it cannot be told; try again"
        return found

    def _objection_to_itself(self, descriptor: int, status: os.stat_result) -> str | None:
        if (within := self._within(descriptor)) is not None:
            return f"{_path(descriptor)} is part of {within}, which is never mounted"
        if (beneath := self._above.get(_id(status))) is not None:
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

    def _objection_to_mounts(self, mounts: bytes, path: str, on: bytes) -> str | None:
        """Check the mounts beneath `path`, and the mount with the id `on` that contains it. `mounts` are the lines of
        /proc/self/mountinfo, each preceded by a newline."""
        inside = os.fsencode(path.rstrip("/") + "/")
        for line in _lines_about(mounts, inside, on):
            number, _, _, _, escaped, rest = line.split(b" ", 5)
            point = _unescaped(escaped)
            beneath = point.startswith(inside)
            if not beneath and number != on:
                continue
            kind = rest.partition(b" - ")[2].partition(b" ")[0].decode()
            if kind in _KERNEL:
                what = f"has {os.fsdecode(point)} in it, which is" if beneath else "is"
                return f"{path} {what} part of the host's {kind}, and that is never mounted"
            if beneath:
                with contextlib.suppress(OSError):
                    found = _id(Path(os.fsdecode(point)).stat())
                    if protected := self._themselves.get(found) or self._above.get(found):
                        return (
                            f"{path} has {os.fsdecode(point)} in it, where {protected} is, too, which is never mounted"
                        )
        return None


def _lines_about(mounts: bytes, inside: bytes, on: bytes) -> list[bytes]:
    """Select the few relevant ones of possibly thousands: mounts that may be beneath `inside`, and the mount `on`."""
    own = on + b" "
    if inside not in mounts and b"\\" not in mounts:
        _, found, rest = mounts.partition(b"\n" + own)
        return [own + rest.partition(b"\n")[0]] if found else []
    lines = mounts.strip(b"\n").split(b"\n")
    return [line for line in lines if inside in line or b"\\" in line or line.startswith(own)]


def _looked_up(path: str) -> tuple[str, _Id | None]:
    """Give the path without links and its identity, or None if it does not exist. Opening it gives both with one
    lookup, where realpath makes one for each component."""
    try:
        descriptor = os.open(path, os.O_PATH | os.O_CLOEXEC)
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


def _mount_id(descriptor: int) -> bytes:
    return _content(f"/proc/self/fdinfo/{descriptor}").partition(b"mnt_id:")[2].split()[0]


def _content(name: str) -> bytes:
    """Read a file of /proc without Python's file objects, which take twice as long."""
    descriptor = os.open(name, os.O_RDONLY | os.O_CLOEXEC)
    try:
        parts = []
        while part := os.read(descriptor, _CHUNK):
            parts.append(part)
        return b"".join(parts)
    finally:
        os.close(descriptor)


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
