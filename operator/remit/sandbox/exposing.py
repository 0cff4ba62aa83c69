"""Lets a process reach folders through others that are closed to its user. Runs in the fork server's children."""

from __future__ import annotations

import ctypes
import os
import stat

TYPE_CHECKING = False  # as in `forkserver.jobs`
if TYPE_CHECKING:
    from collections.abc import Sequence

_CLONE_NEWNS = 0x0002_0000
_MS_NOSUID, _MS_NODEV, _MS_NOEXEC, _MS_BIND, _MS_REC, PRIVATE = 0x2, 0x4, 0x8, 0x1000, 0x4000, 0x4_0000

_libc = ctypes.CDLL(None, use_errno=True)


def expose(paths: Sequence[Sequence[str]]) -> None:
    """In a mount namespace of this process's own, cover each closed folder so that only `paths` are left in it.

    Each of `paths` comes with the outermost folder above it that is closed. What is exposed keeps its own permissions.
    Needs CAP_SYS_ADMIN. Raises OSError.
    """
    new_mount_namespace()
    held = [(path, os.open(path, os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC)) for path, _ in paths]
    for closed in {closed for _, closed in paths}:
        mount("tmpfs", closed, "tmpfs", _MS_NOSUID | _MS_NODEV | _MS_NOEXEC, "mode=0755,size=64k,nr_inodes=256")
    mask = os.umask(0o022)
    for path, descriptor in held:
        is_folder = stat.S_ISDIR(os.fstat(descriptor).st_mode)
        os.makedirs(path if is_folder else os.path.dirname(path), exist_ok=True)  # noqa: PTH103, PTH120  # see jobs
        if not is_folder:
            os.close(os.open(path, os.O_CREAT | os.O_WRONLY | os.O_CLOEXEC, 0o644))
        mount(f"/proc/self/fd/{descriptor}", path, None, _MS_BIND)
        os.close(descriptor)
    os.umask(mask)


def new_mount_namespace() -> None:
    """Have one of this process's own, from which nothing that is mounted reaches the host. Raises OSError."""
    _checked("unshare", _libc.unshare(_CLONE_NEWNS))
    mount("none", "/", None, _MS_REC | PRIVATE)


def mount(source: str, target: str, kind: str | None, flags: int, options: str | None = None) -> None:
    """Call mount(2). Raises OSError."""
    encoded = [None if each is None else os.fsencode(each) for each in (source, target, kind, options)]
    result = _libc.mount(*encoded[:3], ctypes.c_ulong(flags), encoded[3])
    _checked(f"mount {target}", result)


def _checked(what: str, result: int) -> None:
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
