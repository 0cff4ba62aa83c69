"""Opens files as another user would, from a thread of an operator that is root."""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
from collections.abc import Iterator, Sequence
from typing import Final

_libc = ctypes.CDLL(None, use_errno=True)
_SETGROUPS: Final = {"x86_64": 116, "aarch64": 159}
"""The number of the system call by machine. It affects one thread, where the function of libc affects all."""


def open_as(uid: int | None, name: str, flags: int, *, parent: int) -> int:
    """Open `name` in the folder `parent` if the user `uid`, who is in the group of the same number alone, may read it.

    None: as this process. The kernel judges by the thread's filesystem user, which takes root's capabilities over files
    away. It also counts root's own groups, so these are looked at here.

    Raises OSError.
    """
    with _filesystem_user(uid):
        descriptor = os.open(name, flags, dir_fd=parent)
    if uid is not None and not _may_read(os.fstat(descriptor), uid):
        os.close(descriptor)
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES), name)
    return descriptor


def _may_read(info: os.stat_result, uid: int) -> bool:
    if info.st_uid == uid:
        return bool(info.st_mode & stat.S_IRUSR)
    if info.st_gid == uid:
        return bool(info.st_mode & stat.S_IRGRP)
    return bool(info.st_mode & stat.S_IROTH)


@contextlib.contextmanager
def acting_as(uid: int, gid: int) -> Iterator[None]:
    """Have the kernel judge this thread, and no other, by what that user may do with files, who is in that group alone.

    Raises OSError.
    """
    groups = os.getgroups()
    try:
        _set_groups(())
        with _filesystem_user(uid, gid):
            yield
    finally:
        _set_groups(groups)


def _set_groups(groups: Sequence[int]) -> None:
    if sorted(os.getgroups()) == sorted(groups):
        return
    if (number := _SETGROUPS.get(os.uname().machine)) is None:
        raise PermissionError(errno.EPERM, "this machine's way to read files as another user is not known")
    array = (ctypes.c_uint32 * len(groups))(*groups)
    if _libc.syscall(ctypes.c_long(number), ctypes.c_size_t(len(groups)), array):
        raise OSError(ctypes.get_errno(), "the groups of this thread cannot be set")


@contextlib.contextmanager
def _filesystem_user(uid: int | None, gid: int | None = None) -> Iterator[None]:
    """Only this thread's, unlike what `os.setuid` does. The calls tell no error, so the outcome is asked for."""
    if uid is None:
        yield
        return
    own = os.geteuid(), os.getegid()
    gid = uid if gid is None else gid
    try:
        _libc.setfsgid(gid)
        _libc.setfsuid(uid)
        if _libc.setfsuid(-1) != uid or _libc.setfsgid(-1) != gid:
            raise PermissionError(errno.EPERM, f"cannot read files as user {uid}")
        yield
    finally:
        _libc.setfsuid(own[0])
        _libc.setfsgid(own[1])
