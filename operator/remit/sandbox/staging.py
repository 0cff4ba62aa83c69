"""Makes host folders available to bubblewrap by descriptor, as root.

bubblewrap resolves its sources by name, as the attempt's user. By then a name may refer to something else, or a parent
folder may be closed to that user. Therefore the folder that was opened and judged is cloned as a detached mount, by its
descriptor, and attached in a mount namespace of the fork server's child: no name is resolved twice. The operator makes
the clones, because a forked child pays a page fault for each page that it touches first. This module uses only the
standard library, because those children import it.
"""

from __future__ import annotations

import contextlib
import ctypes
import errno
import os
import stat
import struct

from remit.libc import call
from remit.sandbox.exposing import PRIVATE, mount, new_mount_namespace

TYPE_CHECKING = False  # as in `forkserver.jobs`
if TYPE_CHECKING:
    from collections.abc import Sequence

STAGE = "/sys"
"""Where the stage is mounted. The folder exists on every host, and bubblewrap needs nothing from it."""

_OPEN_TREE, _MOVE_MOUNT, _OPENAT2, _MOUNT_SETATTR = 428, 429, 437, 442  # the same numbers on every architecture
_AT_EMPTY_PATH, _AT_RECURSIVE, _OPEN_TREE_CLONE, _OPEN_TREE_CLOEXEC = 0x1000, 0x8000, 1, os.O_CLOEXEC
_MOVE_FROM_EMPTY_PATH, _MOVE_TO_EMPTY_PATH = 0x04, 0x40
_AT_FDCWD = -100
_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH = 0x02, 0x04, 0x08
_ATTR_RDONLY, _ATTR_NOSUID, _ATTR_NODEV = 1, 2, 4
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC = 0x2, 0x4, 0x8
_MNT_DETACH = 2
_NOTHING = ctypes.create_string_buffer(1)


def staged(number: int, folder: str = STAGE) -> str:
    """The path of mount `number` on the stage."""
    return f"{folder}/{number}"


def is_offered() -> bool:
    """Whether the kernel supports `stage`, which needs Linux 5.12."""
    try:
        call("syscall", _MOUNT_SETATTR, -1, _empty(), 0, 0, 0)
    except OSError as error:
        return error.errno not in {errno.ENOSYS, errno.EPERM}  # a filter of system calls returns EPERM
    return True


def copy_mount(descriptor: int, read_only: bool) -> int:
    """Clone the folder or file of a descriptor, with the mounts beneath it, as a detached mount that is nosuid and
    nodev. Mounts that the host adds later do not appear in it.

    Needs CAP_SYS_ADMIN and Linux 5.12. Raises OSError.
    """
    flags = _OPEN_TREE_CLONE | _OPEN_TREE_CLOEXEC | _AT_EMPTY_PATH | _AT_RECURSIVE
    tree = call("syscall", _OPEN_TREE, descriptor, _empty(), flags)
    to_set = _ATTR_NOSUID | _ATTR_NODEV | (_ATTR_RDONLY if read_only else 0)
    attributes = struct.pack("=QQQQ", to_set, 0, PRIVATE, 0)  # struct mount_attr
    held = ctypes.create_string_buffer(attributes, len(attributes))
    flags = _AT_EMPTY_PATH | _AT_RECURSIVE
    try:
        call("syscall", _MOUNT_SETATTR, tree, _empty(), flags, ctypes.addressof(held), len(attributes))
    except BaseException:
        os.close(tree)
        raise
    return tree


def stage(mounts: Sequence[tuple[int, int, str, str]]) -> None:
    """Stage each of `mounts`, in their order, and close its descriptor, in a mount namespace of this process's own.

    Each is a descriptor by `copy_mount` (-1: a new tmpfs, which is nosuid and nodev), the number of the mount that it
    lies in (-1: in none), where in that, without a link, and the options of a tmpfs.

    Needs CAP_SYS_ADMIN and Linux 5.12. Raises OSError.
    """
    new_mount_namespace()
    _cover(STAGE)
    _lay_out(STAGE, mounts)


def rehearse() -> None:
    """Make the system calls of `stage` in a way that they fail, so that nothing is mounted."""
    with contextlib.suppress(OSError):
        mount("none", "", None, PRIVATE)
    with contextlib.suppress(OSError):
        _attach(-1, STAGE)


def stage_at(folder: str, mounts: Sequence[tuple[int, int, str, str]]) -> None:
    """Stage `mounts` in the present mount namespace, at an empty folder that nobody else may enter. Call `unstage`
    afterwards, also when this fails."""
    try:
        _cover(folder)
        mount("none", folder, None, PRIVATE)
    except BaseException:
        close_copies(mounts)
        raise
    _lay_out(folder, mounts)


def unstage(folder: str) -> None:
    """Unmount the stage. Mount namespaces that copied it keep their copies. Raises OSError."""
    name = ctypes.create_string_buffer(os.fsencode(folder))
    while True:
        try:
            call("umount2", ctypes.addressof(name), _MNT_DETACH)
        except OSError as error:
            if error.errno == errno.EINVAL:  # nothing is mounted there any more
                return
            raise


def close_copies(mounts: Sequence[tuple[int, int, str, str]]) -> None:
    """Close the descriptors of mounts that will not be staged."""
    for tree, *_ in mounts:
        if tree >= 0:
            os.close(tree)


def _cover(folder: str) -> None:
    mount("tmpfs", folder, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0755,size=64k,nr_inodes=256")


def _lay_out(folder: str, mounts: Sequence[tuple[int, int, str, str]]) -> None:
    try:
        for number, (tree, within, path, options) in enumerate(mounts):
            if within < 0:
                _attach(tree, _mount_point(staged(number, folder), tree))
                continue
            place = _beneath(staged(within, folder), path)
            try:
                if tree < 0:
                    mount("tmpfs", f"/proc/self/fd/{place}", "tmpfs", _MS_NOSUID | _MS_NODEV, options)
                else:
                    _attach(tree, "", place)
            finally:
                os.close(place)
    finally:
        close_copies(mounts)


def _attach(tree: int, path: str, folder: int = _AT_FDCWD) -> None:
    """Attach `tree` at `path`, or at the descriptor `folder` if `path` is empty."""
    name = ctypes.create_string_buffer(os.fsencode(path))
    flags = _MOVE_FROM_EMPTY_PATH | (0 if path else _MOVE_TO_EMPTY_PATH)
    call("syscall", _MOVE_MOUNT, tree, _empty(), folder, ctypes.addressof(name), flags)


def _mount_point(path: str, tree: int) -> str:
    """Create a mount point on the stage: a folder or a file, as `tree` is."""
    if stat.S_ISDIR(os.fstat(tree).st_mode):
        os.mkdir(path, 0o755)  # noqa: PTH102  # see jobs
    else:
        os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
    return path


def _beneath(staged_at: str, path: str) -> int:
    """Open what is in a staged mount already: nothing is made there, and no link followed."""
    outer = os.open(staged_at, os.O_PATH | os.O_CLOEXEC)
    resolve = _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
    how = struct.pack("=QQQ", os.O_PATH | os.O_CLOEXEC, 0, resolve)  # struct open_how
    held, name = ctypes.create_string_buffer(how, len(how)), ctypes.create_string_buffer(os.fsencode(path))
    try:
        while True:
            try:
                return call("syscall", _OPENAT2, outer, ctypes.addressof(name), ctypes.addressof(held), len(how))
            except OSError as error:
                if error.errno != errno.EAGAIN:  # EAGAIN: a path was renamed meanwhile, so try again
                    raise OSError(error.errno, f"{path}: {os.strerror(error.errno or 0)}") from None
    finally:
        os.close(outer)


def _empty() -> int:
    return ctypes.addressof(_NOTHING)
